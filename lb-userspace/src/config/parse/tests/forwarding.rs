//! What each forwarding mode needs, and what it has no use for.

use std::net::IpAddr;

use super::{WEB, assert_mistake, assert_service_mistake, mistakes};
use crate::{
    config::Config,
    model::{Forwarding, Service, Tunnel},
};

fn service(added: &str) -> Service {
    let text = format!("{WEB}{added}");
    let config = Config::parse(&text, "lb.toml").unwrap_or_else(|error| panic!("{error}"));
    config.desired.services.into_iter().next().unwrap()
}

#[test]
fn every_mode_can_be_chosen() {
    for (name, mode) in [
        ("nat", Forwarding::Nat),
        ("dsr", Forwarding::Dsr),
        ("ipip", Forwarding::Ipip),
        ("gue", Forwarding::Gue),
    ] {
        let service = service(&format!("forwarding = \"{name}\""));
        assert_eq!(service.forwarding, mode);
        assert_eq!(
            (service.snat, service.tunnel),
            (Vec::new(), Tunnel::default())
        );
    }
    let service = service("forwarding = \"full-nat\"\nsnat = [\"10.0.0.5\", \"10.0.0.6\"]");
    assert_eq!(service.forwarding, Forwarding::FullNat);
    let snat: [IpAddr; 2] = [[10, 0, 0, 5].into(), [10, 0, 0, 6].into()];
    assert_eq!(service.snat, snat);
    assert_service_mistake(
        "forwarding = \"fullnat\"",
        "4:14: forwarding: \"fullnat\" is unknown: did you mean \"full-nat\"?",
    );
}

#[test]
fn a_tunnel_has_a_source_of_each_family() {
    let tunnel = |lines: &str| service(&format!("forwarding = \"gue\"\n{lines}")).tunnel;
    let default = Tunnel::default();
    let mut expected = default;
    expected.source_ipv4 = "10.9.0.0/16".parse().unwrap();
    assert_eq!(tunnel("tunnel_source = \"10.9.0.0/16\""), expected);
    expected.source_ipv6 = "2001:db8::5/128".parse().unwrap();
    assert_eq!(
        tunnel("tunnel_source = [\"2001:db8::5\", \"10.9.0.0/16\"]"),
        expected
    );
    expected = default;
    expected.port = 9999;
    assert_eq!(tunnel("tunnel_port = 9999"), expected);
}

#[test]
fn a_key_that_says_nothing_in_this_mode_is_a_mistake() {
    for (added, expected) in [
        (
            "snat = [\"10.0.0.5\"]",
            "4:8: snat: only a service with forwarding = \"full-nat\" has one, and this one has \"nat\": take the line out",
        ),
        (
            "forwarding = \"dsr\"\ntunnel_source = \"10.0.0.0/16\"",
            "5:17: tunnel_source: only a service with forwarding = \"ipip\" or \"gue\" has one, and this one has \"dsr\": take the line out",
        ),
        (
            "forwarding = \"ipip\"\ntunnel_port = 6080",
            "5:15: tunnel_port: only a service with forwarding = \"gue\" has one, and this one has \"ipip\": take the line out",
        ),
        // Of a mode that is none, nobody knows what it has.
        (
            "forwarding = \"tunnel\"\ntunnel_port = 6080",
            "4:14: forwarding: expected one of \"nat\", \"full-nat\", \"dsr\", \"ipip\", \"gue\", found \"tunnel\"",
        ),
    ] {
        assert_service_mistake(added, expected);
    }
}

#[test]
fn addresses_to_send_from() {
    assert_service_mistake(
        "forwarding = \"full-nat\"",
        "4:14: a service with forwarding = \"full-nat\" needs addresses to send from: add snat = [\"10.0.0.5\"], an address that this host has and uses for nothing else",
    );
    for (value, column, message) in [
        (
            "[]",
            8,
            "snat: the list is empty: take the line out, or fill it",
        ),
        ("5", 8, "snat: expected text in quotes, found 5"),
        (
            "[\"10.0.0.5\", \"host\"]",
            21,
            "snat: \"host\" is not an IP address, as in \"10.0.0.5\" or \"2001:db8::5\"",
        ),
        (
            "[\"10.0.0.5:80\"]",
            9,
            "snat: \"10.0.0.5:80\" has a port: write \"10.0.0.5\"; the ports are chosen connection by connection",
        ),
        (
            "[\"224.0.0.1\"]",
            9,
            "snat: cannot send from 224.0.0.1: TCP needs a single host and this is a multicast address",
        ),
        (
            "[\"10.0.0.5\", \"10.0.0.5\"]",
            21,
            "snat: 10.0.0.5 is listed already: remove one of the two",
        ),
        (
            "[\"10.0.0.5\", \"2001:db8::5\"]",
            21,
            "2001:db8::5 is an IPv6 address and service web listens on IPv4: full-nat sends from an address of the same family; use an IPv4 address",
        ),
        (
            "[\"192.0.2.10\"]",
            9,
            "192.0.2.10 is the listen address of service web: full-nat needs an address that nobody connects to; use another one of this host",
        ),
        (
            "[\"10.0.1.1\"]",
            9,
            "10.0.1.1 is a backend of service web: full-nat needs an address of this host to send from; use one that no server has",
        ),
    ] {
        let added = format!(
            "forwarding = \"full-nat\"\nsnat = {value}\nbackend = [{{ address = \"10.0.1.1:80\" }}]"
        );
        let found = mistakes(&format!("{WEB}{added}"));
        let at: Vec<_> = found
            .iter()
            .map(|m| (m.place.line, m.place.column, m.message.as_str()))
            .collect();
        assert_eq!(at, [(5, column, message)], "{value}");
    }
}

#[test]
fn a_service_has_a_bounded_number_of_addresses_to_send_from() {
    let list = |count: usize| {
        let addresses: Vec<String> = (1..=count).map(|n| format!("\"10.0.2.{n}\"")).collect();
        format!(
            "forwarding = \"full-nat\"\nsnat = [{}]",
            addresses.join(", ")
        )
    };
    assert_eq!(service(&list(16)).snat.len(), 16);
    assert_service_mistake(
        &list(17),
        "5:208: snat: a service has at most 16 addresses to send from, this one has 17",
    );
}

#[test]
fn outer_sources() {
    for (value, column, message) in [
        (
            "\"172.16.1.0/16\"",
            17,
            "172.16.1.0/16 has bits set behind its first 16, where the hash of the connection goes: write \"172.16.0.0/16\"",
        ),
        (
            "\"2001:db8::1/64\"",
            17,
            "2001:db8::1/64 has bits set behind its first 64, where the hash of the connection goes: write \"2001:db8::/64\"",
        ),
        (
            "\"172.16.0.0/33\"",
            17,
            "\"172.16.0.0/33\" is not a prefix, as in \"172.16.0.0/16\" or \"2001:db8:0:1::/64\"",
        ),
        (
            "\"224.0.0.0/16\"",
            17,
            "cannot send from 224.0.0.0/16: TCP needs a single host and this is a multicast address",
        ),
        (
            "[\"10.0.0.0/16\", \"10.1.0.0/16\"]",
            33,
            "there is an IPv4 prefix already: remove one of the two",
        ),
    ] {
        assert_service_mistake(
            &format!("forwarding = \"ipip\"\ntunnel_source = {value}"),
            &format!("5:{column}: tunnel_source: {message}"),
        );
    }
    assert_service_mistake(
        "forwarding = \"gue\"\ntunnel_port = 0",
        "5:15: tunnel_port: expected a whole number from 1 to 65535, found 0",
    );
}

/// S-DSR-1.
#[test]
fn a_mode_that_leaves_the_port_wants_the_same_port() {
    for mode in ["dsr", "ipip", "gue"] {
        let added = format!("forwarding = \"{mode}\"\n[[service.backend]]\naddress = ");
        assert_service_mistake(
            &format!("{added}\"10.0.0.1:8080\""),
            &format!(
                "6:11: 10.0.0.1:8080 has port 8080 and service web listens on port 80: forwarding mode {mode} leaves a packet's port as it is, so the backend has to listen on the same; write 10.0.0.1:80, or use forwarding mode nat or full-nat"
            ),
        );
        assert_eq!(
            service(&format!("{added}\"10.0.0.1:80\"")).backends.len(),
            1
        );
    }
}

#[test]
fn only_a_tunnel_mixes_families() {
    let text = |mode: &str| {
        format!(
            "{WEB}forwarding = \"{mode}\"\n[[service.backend]]\naddress = \"[2001:db8::1]:80\"\n"
        )
    };
    for mode in ["ipip", "gue"] {
        assert!(Config::parse(&text(mode), "lb.toml").is_ok(), "{mode}");
    }
    assert_mistake(
        &text("dsr"),
        "6:11: [2001:db8::1]:80 is an IPv6 address and service web listens on IPv4: in forwarding mode dsr both must be of one family; use an IPv4 address, or a service of its own for IPv6",
    );
}
