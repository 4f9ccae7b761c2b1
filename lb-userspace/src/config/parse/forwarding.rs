//! How a service's packets reach its backends, and what each way needs.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    section::Section,
    values::{Fault, choice, number, shorten, text},
};
use crate::model::{AddressFault, Forwarding, MAX_SNAT_PER_SERVICE, Tunnel};

/// What a service says about it.
pub(super) struct Means {
    pub(super) forwarding: Forwarding,
    pub(super) snat: Vec<Spanned<IpAddr>>,
    pub(super) tunnel: Tunnel,
}

pub(super) fn means(section: &mut Section<'_, '_>) -> Means {
    let modes = [
        ("nat", Forwarding::Nat),
        ("full-nat", Forwarding::FullNat),
        ("dsr", Forwarding::Dsr),
        ("ipip", Forwarding::Ipip),
        ("gue", Forwarding::Gue),
    ];
    let given = section.plain("forwarding", choice(&modes, &[]));
    let snat = snat(section);
    let sources = section.list("tunnel_source", prefix);
    let port = section.plain("tunnel_port", number(1..=u16::MAX));
    let is_known = given.is_some() || !section.has("forwarding"); // else a wrong one, reported
    let forwarding = given.unwrap_or_default();
    if is_known {
        refuse_strangers(section, forwarding);
    }
    if forwarding == Forwarding::FullNat && !section.has("snat") {
        let message = "a service with forwarding = \"full-nat\" needs addresses to send from: add snat = [\"10.0.0.5\"], an address that this host has and uses for nothing else";
        let place = section.span_of("forwarding").unwrap_or(section.span());
        section.report().error(place, message);
    }
    let mut tunnel = tunnel(section, sources);
    tunnel.port = port.unwrap_or(tunnel.port);
    Means {
        forwarding,
        snat,
        tunnel,
    }
}

/// Reports the keys that say nothing in this mode.
fn refuse_strangers(section: &mut Section<'_, '_>, forwarding: Forwarding) {
    for (key, modes) in [
        ("snat", &[Forwarding::FullNat][..]),
        ("tunnel_source", &[Forwarding::Ipip, Forwarding::Gue]),
        ("tunnel_port", &[Forwarding::Gue]),
    ] {
        if let Some(span) = section
            .span_of(key)
            .filter(|_| !modes.contains(&forwarding))
        {
            let modes: Vec<String> = modes.iter().map(|mode| format!("\"{mode}\"")).collect();
            let message = format!(
                "{key}: only a service with forwarding = {} has one, and this one has \"{forwarding}\": take the line out",
                modes.join(" or ")
            );
            section.report().error(span, message);
        }
    }
}

fn snat(section: &mut Section<'_, '_>) -> Vec<Spanned<IpAddr>> {
    let mut addresses = section.list("snat", unicast);
    let mut seen = HashMap::new();
    for address in &addresses {
        if let Some(first) = seen.insert(*address.get_ref(), address.span()) {
            let message = format!(
                "snat: {} is listed already: remove one of the two",
                address.get_ref()
            );
            section
                .report()
                .collision(address.span(), message, Some(first));
        }
    }
    if let Some(beyond) = addresses.get(MAX_SNAT_PER_SERVICE) {
        let message = format!(
            "snat: a service has at most {MAX_SNAT_PER_SERVICE} addresses to send from, this one has {}",
            addresses.len()
        );
        section.report().error(beyond.span(), message);
        addresses.truncate(MAX_SNAT_PER_SERVICE);
    }
    addresses
}

/// The address of a single host.
fn unicast(value: &DeValue<'_>) -> Result<IpAddr, Fault> {
    let text = text(value)?;
    let address: IpAddr = text.parse().map_err(|_| match text.parse::<SocketAddr>() {
        Ok(address) => format!(
            "{:?} has a port: write \"{}\"; the ports are chosen connection by connection",
            shorten(&text),
            address.ip()
        ),
        Err(_) => format!(
            "{:?} is not an IP address, as in \"10.0.0.5\" or \"2001:db8::5\"",
            shorten(&text)
        ),
    })?;
    match fault(address) {
        Some(fault) => Err(format!("cannot send from {address}: {fault}")),
        None => Ok(address),
    }
}

/// A prefix without host bits; a plain address is one of a single host.
fn prefix(value: &DeValue<'_>) -> Result<IpNet, Fault> {
    let text = text(value)?;
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            format!(
                "{:?} is not a prefix, as in \"172.16.0.0/16\" or \"2001:db8:0:1::/64\"",
                shorten(&text)
            )
        })?,
    };
    if prefix != prefix.trunc() {
        return Err(format!(
            "{prefix} has bits set behind its first {}, where the hash of the connection goes: write \"{}\"",
            prefix.prefix_len(),
            prefix.trunc()
        ));
    }
    match fault(prefix.network()) {
        Some(fault) => Err(format!("cannot send from {prefix}: {fault}")),
        None => Ok(prefix),
    }
}

fn fault(address: IpAddr) -> Option<AddressFault> {
    const ANY_PORT: u16 = 1;
    AddressFault::of(SocketAddr::new(address, ANY_PORT))
}

/// The outer sources, one for each family; the defaults stand in for what is not given.
fn tunnel(section: &mut Section<'_, '_>, sources: Vec<Spanned<IpNet>>) -> Tunnel {
    let mut tunnel = Tunnel::default();
    let mut seen = HashMap::new();
    for source in sources {
        let span = source.span();
        let family = match source.into_inner() {
            IpNet::V4(prefix) => {
                tunnel.source_ipv4 = prefix;
                "IPv4"
            }
            IpNet::V6(prefix) => {
                tunnel.source_ipv6 = prefix;
                "IPv6"
            }
        };
        if let Some(first) = seen.insert(family, span.clone()) {
            let message = format!(
                "tunnel_source: there is an {family} prefix already: remove one of the two"
            );
            section.report().collision(span, message, Some(first));
        }
    }
    tunnel
}
