//! Which hosts there are and how they are wired.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Host, Netns,
    bpf::{self, Link},
    footprint::Footprint,
};

/// The shape of a lab: clients, the balancer, backends, and the links between them.
///
/// ```text
///   two arms (the default)                              one arm
///
///   client-1 ─┐                       ┌─ backend-1      client-1 ──┐
///   client-2 ─┤ front ─ eth0 lb eth1 ─┤ back            client-2 ──┤ front ─ eth0 lb
///             10.1.0.0/24       10.2.0.0/24             backend-1 ─┤
///             fd00:1::/64       fd00:2::/64             backend-2 ─┘
/// ```
///
/// Every host but the balancer has one interface, `eth0`, and the balancer as its default route.
/// A network of one host is a veth pair, of several a bridge in a namespace of its own, `switch`.
/// With one arm both networks' addresses share a wire, so that what the balancer forwards leaves
/// by the interface it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// `client-1` is 10.1.0.11 and fd00:1::11, and so on; at most 200.
    pub clients: u8,
    /// `backend-1` is 10.2.0.11 and fd00:2::11, and so on; at most 200.
    pub backends: u8,
    pub arms: Arms,
    /// Tags on the wire between the clients and the balancer, outermost first; at most two, and
    /// only with two arms.
    pub client_tags: Vec<VlanTag>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Clients and backends share the balancer's only interface, `eth0`.
    One,
    /// Clients at the balancer's `eth0`, backends at its `eth1`.
    Two,
}

/// A VLAN tag with its VLAN's id, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanTag {
    /// 802.1Q, the ordinary one.
    Customer(u16),
    /// 802.1ad, the outer one of two.
    Service(u16),
}

impl VlanTag {
    pub fn id(self) -> u16 {
        match self {
            Self::Customer(id) | Self::Service(id) => id,
        }
    }

    /// Its EtherType.
    pub fn protocol(self) -> u16 {
        match self {
            Self::Customer(_) => 0x8100,
            Self::Service(_) => 0x88a8,
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            clients: 1,
            backends: 2,
            arms: Arms::Two,
            client_tags: Vec::new(),
        }
    }
}

impl Topology {
    const MAX_HOSTS: u8 = 200;

    fn check(&self) -> Result<()> {
        for (count, what) in [(self.clients, "clients"), (self.backends, "backends")] {
            ensure!(
                (1..=Self::MAX_HOSTS).contains(&count),
                "a lab has 1 to {} {what}, not {count}",
                Self::MAX_HOSTS
            );
        }
        ensure!(self.client_tags.len() <= 2, "at most two VLAN tags");
        ensure!(
            self.client_tags
                .iter()
                .all(|t| (1..=4094).contains(&t.id())),
            "a VLAN id is 1 to 4094: {:?}",
            self.client_tags
        );
        ensure!(
            self.client_tags.is_empty() || self.arms == Arms::Two,
            "tags of the clients' wire need a wire of the clients' own: two arms"
        );
        Ok(())
    }
}

/// The hosts of a lab, wired and reachable.
pub(super) struct Wired {
    pub(super) clients: Vec<Host>,
    pub(super) balancer: Host,
    pub(super) backends: Vec<Host>,
    pub(super) links: Vec<Link>,
}

/// Makes all hosts of a topology, and returns when every client reaches every backend through the
/// balancer as a plain router.
pub(super) fn wire(topology: &Topology, footprint: &Footprint) -> Result<Wired> {
    topology.check()?;
    let place = Place {
        prefix: footprint.name(),
        directory: footprint.directory(),
    };
    let balancer = place.host("lb", CLIENT_NETWORK, ROUTER)?;
    let clients = place.hosts("client", topology.clients, CLIENT_NETWORK)?;
    let backends = place.hosts("backend", topology.backends, BACKEND_NETWORK)?;
    let mut wiring = Wiring {
        place,
        balancer: balancer.netns(),
        switch: None,
        links: Vec::new(),
    };
    let tags = &topology.client_tags;
    let backend_interface = match topology.arms {
        Arms::One => {
            let everyone: Vec<_> = clients.iter().chain(&backends).collect();
            wiring.network("front", "eth0", &everyone, tags)?;
            "eth0"
        }
        Arms::Two => {
            wiring.network("front", "eth0", &clients.iter().collect::<Vec<_>>(), tags)?;
            wiring.network("back", "eth1", &backends.iter().collect::<Vec<_>>(), &[])?;
            "eth1"
        }
    };
    let links = wiring.links;

    balancer
        .netns()
        .sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    CLIENT_NETWORK.assign(balancer.netns(), "eth0", ROUTER)?;
    BACKEND_NETWORK.assign(balancer.netns(), backend_interface, ROUTER)?;
    for (network, hosts) in [(CLIENT_NETWORK, &clients), (BACKEND_NETWORK, &backends)] {
        for (number, host) in (FIRST_HOST..).zip(hosts) {
            network.assign(host.netns(), "eth0", number)?;
            network.route_all(host.netns())?;
        }
    }
    await_paths(&clients, &balancer, &backends)?;
    Ok(Wired {
        clients,
        balancer,
        backends,
        links,
    })
}

/// Number of the balancer in each network.
pub(super) const ROUTER: u8 = 1;
pub(super) const FIRST_HOST: u8 = 11;
const CLIENT_NETWORK: Network = Network(1);
const BACKEND_NETWORK: Network = Network(2);
/// Of [`super::Lab::host_behind`].
pub(super) const FAR_NETWORK: Network = Network(3);
/// Of [`super::Lab::bypass`].
pub(super) const BYPASS_NETWORK: Network = Network(4);

/// 10.N.0.0/24 and fd00:N::/64.
#[derive(Clone, Copy)]
pub(super) struct Network(u8);

impl Network {
    fn ipv4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, 0, host)
    }

    /// The last group is written in decimal, as people read it: host 11 is `::11`.
    fn ipv6(self, host: u8) -> Ipv6Addr {
        let [hundreds, tens, ones] = [host / 100, host / 10 % 10, host % 10].map(u16::from);
        let decimal = hundreds << 8 | tens << 4 | ones;
        Ipv6Addr::new(0xfd00, self.0.into(), 0, 0, 0, 0, 0, decimal)
    }

    pub(super) fn assign(self, netns: &Netns, interface: &str, host: u8) -> Result<()> {
        let (ipv4, ipv6) = (self.ipv4(host), self.ipv6(host));
        netns.ip(&format!("address add {ipv4}/24 dev {interface}"))?;
        netns.ip(&format!("address add {ipv6}/64 dev {interface} nodad"))?;
        Ok(())
    }

    pub(super) fn route_all(self, netns: &Netns) -> Result<()> {
        netns.ip(&format!("route add default via {}", self.ipv4(ROUTER)))?;
        netns.ip(&format!("-6 route add default via {}", self.ipv6(ROUTER)))?;
        Ok(())
    }
}

/// Where the hosts of one lab are made, and what their namespaces' names begin with.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) prefix: &'a str,
    pub(super) directory: &'a Path,
}

impl Place<'_> {
    fn hosts(&self, kind: &str, count: u8, network: Network) -> Result<Vec<Host>> {
        (1..=count)
            .map(|n| self.host(&format!("{kind}-{n}"), network, FIRST_HOST + n - 1))
            .collect()
    }

    pub(super) fn host(&self, name: &str, network: Network, number: u8) -> Result<Host> {
        Ok(Host::new(
            name,
            self.netns(name)?,
            network.ipv4(number),
            network.ipv6(number),
            self.directory.to_owned(),
        ))
    }

    fn netns(&self, name: &str) -> Result<Netns> {
        let netns = Netns::create(&format!("{}-{name}", self.prefix))?;
        let mut settings = Vec::from(SETTINGS);
        // The wider range lets one client hold tens of thousands of connections.
        settings.push(("ipv4/ip_local_port_range", "10000 65535"));
        netns.sysctl(&settings)?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }
}

/// Settings of every namespace: no filters, no redirects, and IPv6 addresses usable at once.
const SETTINGS: [(&str, &str); 9] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
];

/// Work in progress: the links between hosts.
struct Wiring<'a> {
    place: Place<'a>,
    balancer: &'a Netns,
    /// The namespace of the bridges, once one is needed.
    switch: Option<Netns>,
    links: Vec<Link>,
}

impl Wiring<'_> {
    /// Connects the `eth0` of some hosts with an interface of the balancer.
    fn network(
        &mut self,
        name: &str,
        interface: &str,
        hosts: &[&Host],
        tags: &[VlanTag],
    ) -> Result<()> {
        let balancer = self.balancer;
        if let [host] = hosts {
            pair((host.netns(), "eth0"), (balancer, interface), tags)?;
            self.links.push(bpf::xdp_pass(host.netns(), "eth0")?);
        } else {
            let switch = self.switch()?;
            switch.ip(&format!("link add {name} up type bridge mcast_snooping 0"))?;
            let to_balancer = format!("{name}-lb");
            pair((&switch, &to_balancer), (balancer, interface), tags)?;
            switch.ip(&format!("link set {to_balancer} master {name}"))?;
            self.links.push(bpf::xdp_pass(&switch, &to_balancer)?);
            for host in hosts {
                pair((host.netns(), "eth0"), (&switch, host.name()), tags)?;
                switch.ip(&format!("link set {host} master {name}"))?;
            }
        }
        if !tags.is_empty() {
            self.links.extend(bpf::vlan(balancer, interface, tags)?);
            for host in hosts {
                self.links.extend(bpf::vlan(host.netns(), "eth0", tags)?);
            }
        }
        Ok(())
    }

    fn switch(&mut self) -> Result<Netns> {
        if let Some(switch) = &self.switch {
            return Ok(switch.clone());
        }
        let switch = self.place.netns("switch")?;
        // Where bridges call netfilter, they do so for each packet, and there is nothing to filter.
        if switch.run(|| Path::new("/proc/sys/net/bridge").exists()) {
            switch.sysctl(&[
                ("bridge/bridge-nf-call-iptables", "0"),
                ("bridge/bridge-nf-call-ip6tables", "0"),
                ("bridge/bridge-nf-call-arptables", "0"),
            ])?;
        }
        self.switch = Some(switch.clone());
        Ok(switch)
    }
}

/// A veth pair, up, whose first end hands over whole packets as a real network card does: with
/// complete checksums, not larger than the MTU, and with VLAN tags in the frame.
pub(super) fn pair(near: (&Netns, &str), far: (&Netns, &str), tags: &[VlanTag]) -> Result<()> {
    // Tags come on top of the hosts' 1500 bytes.
    let mtu = 1500 + 4 * tags.len();
    let (near, near_interface) = near;
    let (far, far_interface) = far;
    near.ip(&format!(
        "link add {near_interface} mtu {mtu} type veth \
         peer name {far_interface} mtu {mtu} netns {}",
        far.name()
    ))?;
    near.ethtool(&format!("-K {near_interface} tx off tso off gso off"))?;
    if !tags.is_empty() {
        near.ethtool(&format!(
            "-K {near_interface} txvlan off tx-vlan-stag-hw-insert off"
        ))?;
        far.ethtool(&format!(
            "-K {far_interface} txvlan off tx-vlan-stag-hw-insert off"
        ))?;
    }
    near.ip(&format!("link set {near_interface} up"))?;
    far.ip(&format!("link set {far_interface} up"))?;
    Ok(())
}

/// Carrier and bridge ports come up a moment after they are told to.
fn await_paths(clients: &[Host], balancer: &Host, backends: &[Host]) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    for client in clients {
        for backend in backends {
            for address in [IpAddr::from(backend.ipv4()), backend.ipv6().into()] {
                client
                    .wait_for_path(address, PATIENCE)
                    .context("the lab's network does not come up")?;
            }
        }
    }
    // The balancer begins without knowledge of its neighbours, as a daemon may find it.
    balancer.netns().ip("neigh flush all")?;
    Ok(())
}
