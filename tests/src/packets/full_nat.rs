//! Services of mode `full-nat`.

use std::net::SocketAddr;

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
        self.add_service(service, listen, backends);
        self.write_full_nat(service, listen, snat, |_| {});
        for (index, server) in backends {
            self.write_backend(service, listen, *index, server, |backend| {
                backend.forwarding = Forwarding::FullNat;
            });
        }
    }

    /// The record of such a service, with whatever `change` wants to be different.
    ///
    /// # Panics
    ///
    /// If an address of `snat` is none.
    pub fn write_full_nat(
        &mut self,
        service: ServiceId,
        listen: &str,
        snat: &[&str],
        change: impl FnOnce(&mut ServiceRecord),
    ) {
        let parse = |text: &&str| {
            text.parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        self.write_service_with(service, listen, |record| {
            record.forwarding = Forwarding::FullNat;
            record.snat = snat.iter().map(parse).collect();
            change(record);
        });
    }

    /// Opens a connection through such a service: the backend that has it, and where it is sent
    /// from.
    #[track_caller]
    pub fn connect_full_nat(&mut self, client: SocketAddr, listen: &str) -> [SocketAddr; 2] {
        let listen = address(listen);
        let send = |testbed: &mut Self, flags| {
            let out = testbed.forward(&Packet::new(client, listen).flags(flags));
            [out.destination, out.source]
        };
        let [backend, source] = send(self, flags::SYN);
        let reply = self.forward(&Packet::new(backend, source).flags(flags::SYN_ACK));
        assert_eq!((reply.source, reply.destination), (listen, client));
        assert_eq!(send(self, flags::ACK), [backend, source]);
        [backend, source]
    }

    /// Chains a backend behind another of the same address and port.
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
