//! The namespace lab: clients, a balancer and backends as network namespaces of this machine.
//!
//! ```no_run
//! use lb_tests::lab::{Lab, VIP4};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new("first-steps")?;
//! let servers = lab.serve_identity(8080)?;
//! let greeting = lab.client().exchange(lab.backends()[0].v4(8080), 1 << 20)?;
//! assert_eq!(greeting.server, "backend-1");
//! # Ok(()) }
//! ```
//!
//! Labs have unique names, so that tests and test processes run side by side. A lab removes all
//! of itself when it is dropped, also by a panic: processes, BPF pins, namespaces, files. What a
//! killed process leaves behind is removed by the next one.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};

mod behind;
mod binaries;
mod bpf;
mod bypass;
mod clients;
mod daemon;
mod decap;
mod footprint;
mod host;
mod knock;
mod listener;
mod live;
mod netns;
mod process;
mod raw;
mod servers;
mod signals;
mod sys;
mod topology;
mod wait;

pub use binaries::Binaries;
pub use bypass::BYPASS;
pub use clients::{Greeting, Held, Spread};
pub use daemon::Lbd;
pub use decap::Decap;
pub use footprint::sweep;
pub use host::{CutOff, Established, Host};
pub use knock::{Knock, Knocker, Way};
pub use live::{LiveConnections, LiveReport};
pub use netns::Netns;
pub use process::{Process, output};
pub use raw::Flood;
pub use servers::{HealthServer, IdentityServer};
pub use signals::remove_labs_on_signal;
pub use topology::{Arms, Topology, VlanTag};
pub use wait::{TimedOut, wait_for, wait_until};

use footprint::Footprint;

/// A virtual address for services; like every address that is not their neighbour's, clients and
/// backends send packets for it to the balancer.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// [`VIP4`] for IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// Hosts, wired up. See [`Topology`] for their names and addresses.
pub struct Lab {
    clients: Vec<Host>,
    balancer: Host,
    backends: Vec<Host>,
    links: Vec<bpf::Link>,
    /// Last, so that it is dropped last.
    footprint: Footprint,
}

impl Lab {
    /// A lab of the default [`Topology`]: one client, two backends.
    ///
    /// `hint` becomes part of the namespaces' names, for people who look at them.
    ///
    /// # Errors
    /// Without root, or where the kernel or iproute2 refuse a step: the error shows the command.
    pub fn new(hint: &str) -> Result<Self> {
        Self::with(hint, &Topology::default())
    }

    /// A lab of any topology; returns when every client reaches every backend.
    pub fn with(hint: &str, topology: &Topology) -> Result<Self> {
        netns::require_root()?;
        // Both ends of thousands of connections live in this process.
        sys::allow_open_files().context("cannot raise the limit of open files")?;
        let footprint = Footprint::new(hint)?;
        let wired = topology::wire(topology, &footprint)?;
        Ok(Self {
            clients: wired.clients,
            balancer: wired.balancer,
            backends: wired.backends,
            links: wired.links,
            footprint,
        })
    }

    /// Takes the lab's own programs off all interfaces, where others are to be attached. Without
    /// a successor, or generic receive offload, such an interface gets nothing that is redirected
    /// to it.
    pub fn clear_interfaces(&mut self) {
        self.links.clear();
    }

    /// Unique on this machine; the names of everything that belongs to the lab begin with it.
    pub fn name(&self) -> &str {
        self.footprint.name()
    }

    /// For temporary files; removed with the lab.
    pub fn directory(&self) -> &Path {
        self.footprint.directory()
    }

    /// The first client.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    pub fn clients(&self) -> &[Host] {
        &self.clients
    }

    /// The balancer. Its addresses here are those of `eth0`.
    pub fn lb(&self) -> &Host {
        &self.balancer
    }

    pub fn backends(&self) -> &[Host] {
        &self.backends
    }

    /// Starts an identity server on every backend, in their order.
    pub fn serve_identity(&self, port: u16) -> Result<Vec<IdentityServer>> {
        self.backends
            .iter()
            .map(|backend| backend.serve_identity(port))
            .collect()
    }
}
