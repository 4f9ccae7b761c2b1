//! From the balancer's program into the backend's.

use lb_common::decap::Outcome;
use lb_tests::packets::{
    BALANCER, Expected, LISTEN, LISTEN6, Link, Packet, Tag, Testbed, Verdict, WEB, address,
    backend_mac, flags, timeouts,
};
use lb_userspace::{
    dataplane::{MapWrite, ServiceRecord},
    model::{Forwarding, NoBackend, Scheduler, Tunnel},
};

use super::{BACKEND4, BACKEND6, Family, backend, segment};

const SLOTS: u32 = 252;

/// A balancer with a service of this forwarding, and its only backend.
fn balancer(forwarding: Forwarding, listen: &str, server: &str) -> Testbed {
    let mut testbed = Testbed::new();
    testbed.apply(&MapWrite::CreateTable {
        service: WEB,
        slots: SLOTS,
    });
    testbed.apply(&MapWrite::WriteService {
        service: WEB,
        record: ServiceRecord {
            listen: address(listen),
            forwarding,
            scheduler: Scheduler::Maglev,
            slots: SLOTS,
            timeouts: timeouts(),
            snat: Vec::new(),
            tunnel: Tunnel::default(),
            no_backend: NoBackend::default(),
        },
    });
    testbed.write_backend(WEB, listen, 1, server, |backend| {
        backend.forwarding = forwarding
    });
    testbed.share(WEB, &[1]);
    testbed.apply(&MapWrite::Listen {
        address: address(listen),
        service: WEB,
    });
    testbed
}

/// S-FWD-8: what one puts a client's packet into, the other takes it out of; on the way the packet
/// has made one hop, and nothing else about it has changed.
#[test]
fn what_the_balancer_sends_is_what_the_backend_gets() {
    let mut bed = backend();
    for (forwarding, outcome) in [
        (Forwarding::Ipip, Outcome::Ipip),
        (Forwarding::Gue, Outcome::Gue),
    ] {
        for (inner, listen) in [(Family::V4, LISTEN), (Family::V6, LISTEN6)] {
            for server in [format!("{BACKEND4}:80"), format!("[{BACKEND6}]:80")] {
                let mut testbed = balancer(forwarding, listen, &server);
                for (flags, ecn) in [(flags::SYN, 0), (flags::ACK, 0b10), (flags::ACK, 0b11)] {
                    let sent = with_ecn(segment(inner), ecn).flags(flags);
                    let description = format!("{forwarding:?} to {server}, {sent:?}");
                    let tunnelled = testbed.run(&sent.clone().tags(&[Tag::dot1q(5)]).build());
                    assert_eq!(tunnelled.verdict, Verdict::Transmit, "{description}");
                    let got = sent.forwarded(Link {
                        to: backend_mac(1),
                        from: BALANCER,
                        tags: Vec::new(),
                    });
                    let expected = Expected::Stripped(outcome, got.build());
                    bed.check(&description, &tunnelled.frame, &expected);
                }
            }
        }
    }
}

fn with_ecn(packet: Packet, ecn: u8) -> Packet {
    match packet.network {
        lb_tests::packets::Network::V4(_) => packet.v4(|ip| ip.service_type = 0xb8 | ecn),
        lb_tests::packets::Network::V6(_) => packet.v6(|ip| ip.traffic_class = 0xb8 | ecn),
    }
}
