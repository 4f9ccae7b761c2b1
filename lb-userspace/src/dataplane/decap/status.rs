//! How an attached decapsulator does.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

use super::{DecapError, LAYOUT, Maps, check_namespace, links_alive_and_dead};
use crate::dataplane::{AttachMode, interface, pins::Pins};

/// What [`status`] finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapStatus {
    pub interfaces: Vec<DecapInterface>,
    pub gue_port: u16,
    /// Those that the program takes for the host's.
    pub addresses: Vec<IpAddr>,
    /// Those that the host has by now, and the program does not know.
    pub missing: Vec<IpAddr>,
    /// Those that the host no longer has.
    pub stale: Vec<IpAddr>,
    /// Of all interfaces together, since the first was attached.
    pub counters: Vec<OutcomeCount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecapInterface {
    pub name: String,
    pub mode: AttachMode,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    /// As in [`lb_common::decap::Outcome::name`].
    pub outcome: String,
    /// `stripped`, `passed` (as it came) or `dropped`.
    pub verdict: String,
    pub packets: u64,
    /// For people.
    pub description: String,
}

/// What is attached below `bpffs`: to one interface, or to all. `own` are the host's addresses.
///
/// # Errors
///
/// Nothing is attached (there); the pins are of another version, or cannot be read.
pub fn status(
    bpffs: &Path,
    interface: Option<&str>,
    own: &BTreeSet<IpAddr>,
) -> Result<DecapStatus, DecapError> {
    let nothing = || match interface {
        Some(interface) => DecapError::NotAttached {
            interface: interface.to_owned(),
            bpffs: bpffs.to_owned(),
        },
        None => DecapError::NothingAttached {
            bpffs: bpffs.to_owned(),
        },
    };
    let pins = Pins::look(bpffs, &LAYOUT)?.ok_or_else(nothing)?;
    check_namespace(&pins)?;
    let mut interfaces = Vec::new();
    for (_, ifindex, mode) in links_alive_and_dead(&pins)?.0 {
        let name = interface::name(ifindex).unwrap_or_else(|| format!("#{ifindex}"));
        if interface.is_none_or(|wanted| wanted == name) {
            interfaces.push(DecapInterface { name, mode });
        }
    }
    if interfaces.is_empty() {
        return Err(nothing());
    }
    interfaces.sort_by(|one, other| one.name.cmp(&other.name));
    if pins.existing_links()?.is_empty() {
        return Err(DecapError::OtherVersion);
    }
    pins.check()?;
    let maps = Maps::open(&pins)?;
    let addresses = maps.addresses()?;
    Ok(DecapStatus {
        interfaces,
        gue_port: u16::from_be_bytes(maps.settings()?.gue_port),
        missing: own.difference(&addresses).copied().collect(),
        stale: addresses.difference(own).copied().collect(),
        addresses: addresses.into_iter().collect(),
        counters: maps.counters()?,
    })
}
