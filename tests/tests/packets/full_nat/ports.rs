//! Which ports connections are sent from.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use lb_common::{reason::Reason, tcp::Flags};
use lb_tests::packets::{Expect, Packet, Testbed, Verdict, address, flags};
use lb_userspace::model::NoBackend;

use super::{SCENES, Scene};

/// Ports of an address that may be used.
const PORTS: u32 = 65_536 - 1_024;
const SYN: u8 = Flags::SYN;

/// Sends the SYN of client number `n`; where it is sent from, or `None` where it is refused.
fn syn(testbed: &mut Testbed, scene: &Scene, n: u32) -> Option<SocketAddr> {
    let packet = Packet::new((scene.clients)(n), address(scene.listen)).flags(SYN);
    let outcome = testbed.run(&packet.build());
    if outcome.verdict == Verdict::Drop {
        return None;
    }
    assert_eq!(outcome.verdict, Verdict::Transmit);
    let out = lb_tests::packets::Dissection::of(&outcome.frame).expect("TCP in, TCP out");
    assert!(out.tcp_checksum_verifies);
    Some(out.source)
}

/// A testbed that does not answer what it refuses.
fn silent() -> Testbed {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        testbed.write_full_nat(scene.service, scene.listen, &[scene.snat], |record| {
            record.no_backend = NoBackend::Drop;
        });
    }
    testbed
}

/// S-NAT-4: at 60 % of an address's ports, no port has two connections; all are 1024 and above, and
/// spread; few connections find no port.
#[test]
fn every_connection_has_a_port_of_its_own() {
    let mut testbed = silent();
    for scene in SCENES {
        let offered = PORTS * 6 / 10;
        let mut ports = HashSet::new();
        let mut last = 0_u16;
        let mut steps = HashSet::new();
        for n in 0..offered {
            let Some(source) = syn(&mut testbed, &scene, n) else {
                continue;
            };
            assert_eq!(source.ip().to_string(), scene.snat);
            assert!(source.port() >= 1024, "{source}");
            assert!(ports.insert(source.port()), "{source} is in use twice");
            steps.insert(source.port().wrapping_sub(last));
            last = source.port();
        }
        let refused = u64::from(offered) - ports.len() as u64;
        assert_eq!(
            testbed.reason(scene.service, Reason::SnatExhausted),
            refused
        );
        assert!(refused * 100 < u64::from(offered), "{refused} refused");
        // RFC 6056: the next port cannot be told from the one before.
        assert!(steps.len() > ports.len() / 2, "{}", steps.len());
        let mut parts = [0_u32; 63];
        for port in &ports {
            parts[usize::from(port / 1024) - 1] += 1;
        }
        let mean = ports.len() as u32 / 63;
        let even = parts.iter().all(|&part| part.abs_diff(mean) < mean / 4);
        assert!(even, "{parts:?}");
        assert_eq!(
            testbed.state(scene.service, (scene.clients)(0)),
            Some("SYN_SENT")
        );
    }
}

/// S-NAT-4: ports that are used up are refused, counted, and taken from nobody, half-open or not:
/// every connection is sent from its port for as long as it lives.
#[test]
fn exhaustion_is_refused_and_steals_nothing() {
    let mut testbed = silent();
    let scene = SCENES[0];
    let mut sources = HashMap::new();
    let mut refused = Vec::new();
    // By far the most of the ports are taken when this many are offered a connection.
    for n in 0..PORTS {
        match syn(&mut testbed, &scene, n) {
            Some(source) => {
                sources.insert(n, source);
            }
            None => refused.push(n),
        }
    }
    assert!(refused.len() > 1_000, "{}", refused.len());
    let exhausted = testbed.reason(scene.service, Reason::SnatExhausted);
    assert_eq!(exhausted, refused.len() as u64);
    assert!(sources.len() as u32 > PORTS * 6 / 10, "{}", sources.len());
    let distinct: HashSet<_> = sources.values().collect();
    assert_eq!(distinct.len(), sources.len());
    assert_eq!(testbed.totals().half_open, sources.len() as u64);
    for (&n, &source) in &sources {
        assert_eq!(syn(&mut testbed, &scene, n), Some(source), "client {n}");
    }
    let last = *refused.last().expect("there are some");
    let packet = Packet::new((scene.clients)(last), address(scene.listen));
    for flags in [SYN, flags::ACK] {
        let frame = packet.clone().flags(flags).build();
        let expected = Expect::Drop(Some(scene.service), Reason::SnatExhausted);
        testbed.check("no port", &frame, &expected);
    }
}
