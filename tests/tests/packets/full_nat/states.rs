//! The life of a connection's record, and with it of its port.

use std::time::Duration;

use lb_common::reason::Reason;
use lb_tests::{
    lab::wait_until,
    packets::{
        Expect, Packet, Testbed, address,
        flags::{ACK, FIN, PSH, RST, SYN, SYN_ACK},
    },
};
use lb_userspace::{
    dataplane::Timeouts,
    model::{BackendIndex, Forwarding},
};

use super::{SCENES, Scene};

const PATIENCE: Duration = Duration::from_secs(10);
const OTHERS: [(u16, &str); 2] = [(11, "10.0.0.11:8080"), (12, "[fd00::12]:8080")];

#[track_caller]
fn state(testbed: &Testbed, scene: &Scene) -> Option<&'static str> {
    testbed.state(scene.service, scene.client())
}

/// S-NAT-2, S-NAT-6: a connection is listed with its state and counted for its backend, whoever
/// sends.
#[test]
fn a_connection_is_followed_from_its_beginning_to_its_end() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let source = scene.open(&mut testbed);
        assert_eq!(state(&testbed, &scene), Some("ESTABLISHED"));
        let steps = [
            (true, RST, "RESET"),
            (true, PSH | ACK, "ESTABLISHED"),
            (true, FIN | ACK, "FIN_WAIT"),
            (false, ACK, "FIN_WAIT"),
            (false, FIN | ACK, "CLOSING"),
            (true, ACK, "TIME_WAIT"),
        ];
        for (from_client, flags, expected) in steps {
            let packet = match from_client {
                true => scene.request(),
                false => scene.reply(source),
            };
            testbed.forward(&packet.flags(flags));
            assert_eq!(state(&testbed, &scene), Some(expected));
        }
        let counters = testbed.backend_counters(BackendIndex(scene.backend.0));
        // SYN twice, SYN-ACK, ACK, and the steps.
        let (packets_in, packets_out) = (counters.packets_in, counters.packets_out);
        assert_eq!((counters.connections, packets_in, packets_out), (1, 7, 3));
    }
    let totals = testbed.totals();
    assert_eq!((totals.used, totals.closing), (2, 2));
    assert_eq!(totals.by_backend[&BackendIndex(1)], 1);
}

/// S-NAT-2: a retransmitted SYN, and one after a refusal, keep the port.
#[test]
fn a_syn_that_comes_again_keeps_its_port() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let syn = scene.request().flags(SYN);
        let source = testbed.forward(&syn).source;
        assert_eq!(testbed.forward(&syn).source, source);
        testbed.forward(&scene.reply(source).flags(RST | ACK));
        assert_eq!(state(&testbed, &scene), Some("REFUSED"));
        assert_eq!(testbed.forward(&syn).source, source);
        assert_eq!(state(&testbed, &scene), Some("SYN_SENT"));
    }
}

/// S-NAT-7: a new connection of the client's port begins at once, from the same port, and may have
/// another backend; a SYN on a living one goes to its backend.
#[test]
fn a_closed_connection_gives_its_port_to_its_successor() {
    let mut testbed = Testbed::with_full_nat();
    for (scene, (index, server)) in SCENES.into_iter().zip(OTHERS) {
        testbed.write_backend(scene.service, scene.listen, index, server, |backend| {
            backend.forwarding = Forwarding::FullNat;
        });
        let source = scene.open(&mut testbed);
        testbed.share(scene.service, &[index]);
        let syn = scene.request().flags(SYN);
        assert_eq!(testbed.forward(&syn).destination, scene.server());
        testbed.forward(&scene.request().flags(FIN | ACK));
        testbed.forward(&scene.reply(source).flags(FIN | ACK));
        testbed.forward(&scene.request().flags(ACK));
        let out = testbed.forward(&syn);
        assert_eq!((out.destination, out.source), (address(server), source));
        assert_eq!(state(&testbed, &scene), Some("SYN_SENT"));
        // The record is no more the old backend's.
        let stale = scene.reply(source).build();
        testbed.check("stale reply", &stale, &Expect::Pass);
    }
}

/// S-NAT-2: a retransmitted SYN leaves a backend that takes no new connections.
#[test]
fn a_half_open_connection_leaves_a_backend_that_is_down() {
    let mut testbed = Testbed::with_full_nat();
    for (scene, (other, server)) in SCENES.into_iter().zip(OTHERS) {
        testbed.write_backend(scene.service, scene.listen, other, server, |backend| {
            backend.forwarding = Forwarding::FullNat;
        });
        let syn = scene.request().flags(SYN);
        let source = testbed.forward(&syn).source;
        let (index, down) = scene.backend;
        testbed.write_backend(scene.service, scene.listen, index, down, |backend| {
            backend.forwarding = Forwarding::FullNat;
            backend.accepts_new = false;
        });
        testbed.share(scene.service, &[other]);
        let out = testbed.forward(&syn);
        assert_eq!((out.destination, out.source), (address(server), source));
    }
}

/// S-NAT-4, S-NAT-7: without a record only what may begin a connection gets a port.
#[test]
fn what_begins_no_connection_gets_no_port() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        for (flags, reason) in [
            (SYN_ACK, Reason::UnexpectedSynAck),
            (RST, Reason::NoBackend),
            (RST | ACK, Reason::NoBackend),
        ] {
            let frame = scene.request().flags(flags).build();
            let expected = Expect::Drop(Some(scene.service), reason);
            testbed.check("no record", &frame, &expected);
            assert_eq!(state(&testbed, &scene), None);
        }
        // A connection whose record was lost is asked of its backend, which knows no such port.
        let source = testbed.forward(&scene.request().flags(ACK)).source;
        assert_eq!(state(&testbed, &scene), Some("SYN_SENT"));
        let reset = testbed.forward(&scene.reply(source).flags(RST));
        assert_eq!(reset.destination, scene.client());
    }
}

/// S-NAT-3, S-NAT-4: a port is given back when its connection has been idle for too long, and not
/// before.
#[test]
fn an_idle_connection_loses_its_port() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let source = scene.open(&mut testbed);
        testbed.write_full_nat(scene.service, scene.listen, &[scene.snat], |record| {
            record.timeouts = Timeouts {
                reset: Duration::ZERO,
                ..record.timeouts
            };
        });
        assert_eq!(state(&testbed, &scene), Some("ESTABLISHED"));
        testbed.forward(&scene.request().flags(RST));
        wait_until(PATIENCE, "a reset connection expires", || {
            testbed.connections().is_empty()
        });
        assert_eq!(testbed.totals().used, 0);
        let late = scene.reply(source).build();
        testbed.check("late reply", &late, &Expect::Pass);
    }
}

/// S-CT-7: a backend that is gone, or none at all.
#[test]
fn without_a_backend_there_is_no_port() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        testbed.write_full_nat(scene.service, scene.listen, &[scene.snat], |record| {
            record.no_backend = lb_userspace::model::NoBackend::Drop;
        });
        testbed.share(scene.service, &[]);
        let expected = Expect::Drop(Some(scene.service), Reason::NoBackend);
        for flags in [SYN, ACK] {
            let packet = Packet::new(scene.client(), address(scene.listen)).flags(flags);
            testbed.check("no backend", &packet.build(), &expected);
        }
        assert_eq!(state(&testbed, &scene), None);
    }
}
