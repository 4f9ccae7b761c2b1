//! Services of mode `full-nat`.

use std::net::{IpAddr, SocketAddr};

use lb_userspace::{
    dataplane::{MapWrite, ServiceRecord},
    model::{BackendIndex, Forwarding, ServiceId},
};

use super::{
    packet::{Packet, flags},
    scene::{LISTEN, LISTEN6, SERVER, SERVER6, WEB, WEB6, address},
    testbed::Testbed,
};

/// What the IPv4 service's connections are sent from.
pub const SNAT: &str = "10.0.0.250";
/// What the IPv6 service's connections are sent from.
pub const SNAT6: &str = "fd00::250";

impl Testbed {
    /// One IPv4 and one IPv6 service of mode `full-nat`, with one backend each (indices 1 and 2).
    pub fn with_full_nat() -> Self {
        let mut testbed = Self::new();
        testbed.add_full_nat(WEB, LISTEN, &[SNAT], &[(1, SERVER)]);
        testbed.add_full_nat(WEB6, LISTEN6, &[SNAT6], &[(2, SERVER6)]);
        testbed
    }

    /// A service whose connections are sent from these addresses; its backends have equal shares,
    /// and are next to the loopback interface.
    pub fn add_full_nat(
        &mut self,
        service: ServiceId,
        listen: &str,
        snat: &[&str],
        backends: &[(u16, &str)],
    ) {
        let shape = |record: &mut ServiceRecord| record.snat = ips(snat);
        let forwarding = Forwarding::FullNat;
        self.add_service_with(service, listen, backends, forwarding, shape, |_| {});
    }

    /// The record of such a service, with whatever `change` wants to be different.
    pub fn write_full_nat(
        &mut self,
        service: ServiceId,
        listen: &str,
        snat: &[&str],
        change: impl FnOnce(&mut ServiceRecord),
    ) {
        self.write_service_with(service, listen, |record| {
            record.forwarding = Forwarding::FullNat;
            record.snat = ips(snat);
            change(record);
        });
    }

    /// Sends one segment to such a service: the backend that gets it, and whom it takes it to be
    /// from.
    #[track_caller]
    pub fn request_full_nat(
        &mut self,
        client: SocketAddr,
        listen: &str,
        flags: u8,
    ) -> [SocketAddr; 2] {
        let out = self.forward(&Packet::new(client, address(listen)).flags(flags));
        [out.destination, out.source]
    }

    /// Opens a connection through such a service; as [`Testbed::request_full_nat`].
    #[track_caller]
    pub fn connect_full_nat(&mut self, client: SocketAddr, listen: &str) -> [SocketAddr; 2] {
        let [backend, source] = self.request_full_nat(client, listen, flags::SYN);
        let reply = self.forward(&Packet::new(backend, source).flags(flags::SYN_ACK));
        assert_eq!((reply.source, reply.destination), (address(listen), client));
        let again = self.request_full_nat(client, listen, flags::ACK);
        assert_eq!(again, [backend, source]);
        again
    }

    /// Makes the backend with this index and address the first of its address and port, before the
    /// one with index `next`.
    pub fn chain(
        &mut self,
        (service, listen): (ServiceId, &str),
        (index, server): (u16, &str),
        forwarding: Forwarding,
        next: u16,
    ) {
        self.write_backend(service, listen, index, server, |backend| {
            backend.forwarding = forwarding;
            backend.next_with_same_address = Some(BackendIndex(next));
        });
        self.apply(&MapWrite::BindEndpoint {
            address: address(server),
            backend: BackendIndex(index),
        });
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let parse = |text: &&str| {
        let parsed = text.parse();
        parsed.unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    texts.iter().map(parse).collect()
}
