//! What `lbctl -o json` says, as much of it as the demo needs.

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

use crate::lab::Lbd;

/// From `lbctl -o json backend list`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) weight: u64,
    /// `up`, `down` or `unknown`.
    pub(super) health: String,
    /// What the probes saw.
    pub(super) reason: String,
    pub(super) slots: u64,
}

impl Backend {
    /// Those of a service, in the order of its configuration.
    pub(super) fn list(lbd: &Lbd, service: &str) -> Result<Vec<Self>> {
        ask(lbd, &["backend", "list", "--service", service])
    }
}

/// From `lbctl -o json service list`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) table: SlotTable,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct SlotTable {
    pub(super) slots: u64,
    /// Of the whole assignment of slots to addresses.
    pub(super) checksum: String,
}

impl Service {
    pub(super) fn find(lbd: &Lbd, name: &str) -> Result<Self> {
        let services: Vec<Self> = ask(lbd, &["service", "list"])?;
        let found = services.into_iter().find(|service| service.name == name);
        found.with_context(|| format!("lbd knows no service {name}"))
    }
}

/// From `lbctl -o json conntrack stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Connections {
    pub(super) established: u64,
}

impl Connections {
    pub(super) fn count(lbd: &Lbd) -> Result<Self> {
        ask(lbd, &["conntrack", "stats"])
    }
}

/// From `lbctl -o json conntrack list`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Connection {
    state: String,
}

/// Connections to a backend that are established and not closing.
pub(super) fn established(lbd: &Lbd, service: &str, backend: &str) -> Result<u64> {
    let arguments = [
        "conntrack",
        "list",
        "--service",
        service,
        "--backend",
        backend,
    ];
    let connections: Vec<Connection> = ask(lbd, &arguments)?;
    let established = connections.iter().filter(|c| c.state == "ESTABLISHED");
    Ok(established.count() as u64)
}

/// From `lbctl -o json status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    pub(super) interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mode: String,
}

impl Status {
    pub(super) fn now(lbd: &Lbd) -> Result<Self> {
        ask(lbd, &["status"])
    }
}

fn ask<T: DeserializeOwned>(lbd: &Lbd, arguments: &[&str]) -> Result<T> {
    let json = lbd.lbctl_json(arguments)?;
    serde_json::from_value(json)
        .with_context(|| format!("`lbctl -o json {}` says too little", arguments.join(" ")))
}
