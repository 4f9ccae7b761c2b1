//! `lbctl decap` on a backend: what comes through tunnels reaches its servers.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use lb_common::decap::LAYOUT_VERSION;
use lb_tests::lab::{
    Decap, Host, IdentityServer, Knocker, Lab, Topology, VIP4, VIP6, Way, output, wait_until,
};
use lb_userspace::dataplane::{
    AttachMode, Detached,
    decap::{Attached, DecapStatus},
};
use serde::de::DeserializeOwned;

use super::{PATIENCE, PORT, ask::Refusal};

const GUE_PORT: u16 = 6080;

/// A backend that serves the services' addresses, and a client that knocks on it. Dropped in the
/// order of the fields.
struct Stage {
    knocker: Knocker,
    decap: Decap,
    _server: IdentityServer,
    lab: Lab,
}

impl Stage {
    /// Of two backends: a single one's interface has a program of the lab.
    fn new(hint: &str) -> Self {
        let lab = Lab::new(hint).unwrap();
        let backend = &lab.backends()[0];
        for ip in [
            format!("address add {VIP4}/32 dev lo"),
            format!("address add {VIP6}/128 dev lo nodad"),
        ] {
            backend.netns().ip(&ip).unwrap();
        }
        // So that the same can be sent without a tunnel.
        for route in [
            format!("route add {VIP4}/32 via {}", backend.ipv4()),
            format!("-6 route add {VIP6}/128 via {}", backend.ipv6()),
        ] {
            lab.lb().netns().ip(&route).unwrap();
        }
        Self {
            knocker: lab.client().knocker().unwrap(),
            decap: Decap::on(&lab, backend).unwrap(),
            _server: backend.serve_identity(PORT).unwrap(),
            lab,
        }
    }

    fn backend(&self) -> &Host {
        &self.lab.backends()[0]
    }

    /// All ways to the service of the same family as `door` through a tunnel.
    fn tunnels(&self) -> [Way; 4] {
        let (ipv4, ipv6) = (self.backend().ipv4(), self.backend().ipv6());
        [
            Way::Ipip(ipv4.into()),
            Way::Ipip(ipv6.into()),
            Way::Gue((ipv4, GUE_PORT).into()),
            Way::Gue((ipv6, GUE_PORT).into()),
        ]
    }

    /// Knocks through each tunnel; every one has to be answered.
    #[track_caller]
    fn assert_answers(&mut self) {
        for door in doors() {
            for way in self.tunnels() {
                let knock = self.knocker.knock(door, way).unwrap();
                let answered = self.knocker.is_answered(knock, PATIENCE).unwrap();
                assert!(answered, "{door}, {way:?}");
            }
        }
    }

    /// Knocks through each tunnel, which must not be answered. What is sent without one, later and
    /// on the same way, is: when that answer has come, none is under way any more.
    #[track_caller]
    fn assert_is_deaf(&mut self) {
        for door in doors() {
            let ways = self.tunnels().into_iter().chain([Way::Plain]);
            let knocks: Vec<_> = ways
                .map(|way| self.knocker.knock(door, way).unwrap())
                .collect();
            let first = self.knocker.first_answered(&knocks, PATIENCE).unwrap();
            assert_eq!(first, Some(knocks.len() - 1), "{door}");
        }
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        serde_json::from_value(self.decap.json(arguments).unwrap()).unwrap()
    }

    fn has_program(&self, interface: &str) -> bool {
        let shown = self.backend().netns().ip(&format!("link show {interface}"));
        shown.unwrap().contains("xdp")
    }
}

fn doors() -> [SocketAddr; 2] {
    [(VIP4, PORT).into(), (VIP6, PORT).into()]
}

#[track_caller]
fn refused(decap: &Decap, arguments: &[&str]) -> Refusal {
    let output = decap.run(arguments).unwrap();
    let refusal = Refusal {
        code: output.status.code().unwrap(),
        message: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(refusal.code != 0, "lbctl decap {arguments:?} succeeds");
    refusal
}

#[track_caller]
fn assert_refused(decap: &Decap, arguments: &[&str], code: i32, part: &str) {
    let refusal = refused(decap, arguments);
    assert!(
        refusal.code == code && refusal.message.contains(part),
        "{arguments:?}: {refusal:?}"
    );
}

fn counters(status: &DecapStatus) -> BTreeMap<&str, u64> {
    let counted = status.counters.iter().filter(|c| c.packets > 0);
    counted.map(|c| (c.outcome.as_str(), c.packets)).collect()
}

/// All four kinds of IP in IP, and GUE, in native and in generic mode; the program goes on when
/// `lbctl` has ended, and another one takes it away.
#[test]
fn tunnelled_clients_are_answered_while_it_is_attached() {
    let mut stage = Stage::new("decap");
    let nothing = "no decapsulator is attached to eth0";
    assert_refused(&stage.decap, &["status", "eth0"], 1, nothing);
    stage.assert_is_deaf();
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let wanted = mode.to_string();
        let attached: Attached = stage.json(&["attach", "eth0", "--mode", &wanted]);
        assert_eq!((attached.mode, attached.refreshed), (mode, false));
        assert_eq!(
            (attached.gue_port, &attached.interface[..]),
            (GUE_PORT, "eth0")
        );
        assert!(stage.has_program("eth0"));

        stage.assert_answers();
        let status: DecapStatus = stage.json(&["status", "eth0"]);
        assert_eq!(
            (&status.interfaces[0].name[..], status.interfaces[0].mode),
            ("eth0", mode)
        );
        assert_eq!(counters(&status), [("ipip", 4), ("gue", 4)].into());
        assert_eq!((&status.missing[..], &status.stale[..]), (&[][..], &[][..]));
        for address in [
            IpAddr::from(VIP4),
            VIP6.into(),
            stage.backend().ipv4().into(),
        ] {
            assert!(status.addresses.contains(&address), "{status:?}");
        }
        assert!(
            !status.addresses.iter().any(IpAddr::is_loopback),
            "{status:?}"
        );

        let detached: Detached = stage.json(&["detach", "eth0"]);
        assert_eq!(
            (&detached.interfaces[..], detached.maps),
            (&["eth0".to_owned()][..], 4)
        );
        assert!(!stage.has_program("eth0"));
        assert!(!stage.decap.bpffs().exists());
        stage.assert_is_deaf();
    }
    assert_refused(&stage.decap, &["detach", "eth0"], 1, nothing);
    assert_refused(&stage.decap, &["status"], 1, "no decapsulator is attached");
}

/// To attach again makes known what addresses the host has by then, and costs no packet.
#[test]
fn attached_again_it_is_up_to_date_and_has_lost_nothing() {
    let mut stage = Stage::new("decap-again");
    let attached: Attached = stage.json(&["attach", "eth0"]);
    assert_eq!(attached.mode, AttachMode::Native);
    let new: IpAddr = [192, 0, 2, 20].into();
    let netns = stage.backend().netns().clone();
    netns.ip("address add 192.0.2.20/32 dev lo").unwrap();
    let status: DecapStatus = stage.json(&["status", "eth0"]);
    assert_eq!(
        (&status.missing[..], &status.stale[..]),
        (&[new][..], &[][..])
    );
    let shown = stage.decap.text(&["status", "eth0"]).unwrap();
    let warning = "warning: this host also has 192.0.2.20";
    assert!(shown.contains(warning), "{shown}");
    let way = stage.tunnels()[0];
    let lost = stage.knocker.knock((new, PORT).into(), way).unwrap();
    wait_until(PATIENCE, "the packet has been passed as it came", || {
        let status: DecapStatus = stage.json(&["status", "eth0"]);
        counters(&status).get("inner_address") == Some(&1)
    });

    // One knock after the other: each is sent once, so that a lost one is never answered.
    let (stop, heard) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let knocker = &mut stage.knocker;
        let knocking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let knock = knocker.knock(doors()[0], way).unwrap();
                assert!(knocker.is_answered(knock, PATIENCE).unwrap(), "one is lost");
                heard.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..5 {
            let before = heard.load(Ordering::Relaxed);
            let again = stage.decap.json(&["attach", "eth0"]).unwrap();
            let again: Attached = serde_json::from_value(again).unwrap();
            assert!(
                again.refreshed && again.addresses.contains(&new),
                "{again:?}"
            );
            wait_until(PATIENCE, "knocks go on", || {
                knocking.is_finished() || heard.load(Ordering::Relaxed) > before + 2
            });
        }
        stop.store(true, Ordering::Relaxed);
        knocking.join().unwrap();
    });
    let known = stage.knocker.knock((new, PORT).into(), way).unwrap();
    let first = stage
        .knocker
        .first_answered(&[lost, known], PATIENCE)
        .unwrap();
    assert_eq!(first, Some(1));

    // The counters are of all its lives, and the port stays unless it is named.
    let changed: Attached = stage.json(&["attach", "eth0", "--gue-port", "7000"]);
    let kept: Attached = stage.json(&["attach", "eth0"]);
    assert_eq!((changed.gue_port, kept.gue_port), (7000, 7000));
    netns.ip("address del 192.0.2.20/32 dev lo").unwrap();
    let status: DecapStatus = stage.json(&["status", "eth0"]);
    assert_eq!(
        (&status.missing[..], &status.stale[..]),
        (&[][..], &[new][..])
    );
    assert_eq!(
        counters(&status)["ipip"],
        u64::from(heard.load(Ordering::Relaxed)) + 1
    );
}

/// Each interface is attached and detached on its own; an interface that is made anew has none.
#[test]
fn interfaces_come_and_go() {
    let stage = Stage::new("decap-interfaces");
    let netns = stage.backend().netns().clone();
    let make = || netns.ip("link add v0 up type veth peer name v1").unwrap();
    make();
    let _: Attached = stage.json(&["attach", "v0"]);
    let _: Attached = stage.json(&["attach", "eth0"]);
    let names = || -> Vec<String> {
        let status: DecapStatus = stage.json(&["status"]);
        status.interfaces.into_iter().map(|i| i.name).collect()
    };
    assert_eq!(names(), ["eth0", "v0"]);

    netns.ip("link delete v0").unwrap();
    assert_eq!(names(), ["eth0"]);
    make();
    assert_refused(&stage.decap, &["status", "v0"], 1, "attached to v0");
    assert_refused(&stage.decap, &["detach", "v0"], 1, "attached to v0");
    let again: Attached = stage.json(&["attach", "v0"]);
    assert!(!again.refreshed);

    let one: Detached = stage.json(&["detach", "v0"]);
    assert_eq!((&one.interfaces[..], one.maps), (&["v0".to_owned()][..], 0));
    assert!(!stage.has_program("v0") && stage.has_program("eth0"));
    assert_eq!(names(), ["eth0"]);
    let last: Detached = stage.json(&["detach", "eth0"]);
    assert_eq!(
        (&last.interfaces[..], last.maps),
        (&["eth0".to_owned()][..], 4)
    );
    assert!(!stage.decap.bpffs().exists());
}

/// What another version has left, with maps that this one cannot use, is told from nothing; it is
/// replaced, or taken down.
#[test]
fn another_version_s_attachment_is_replaced() {
    let mut stage = Stage::new("decap-version");
    let layout = |version: u32| stage.decap.bpffs().join(format!("decap-v{version}"));
    let (ours, theirs) = (layout(LAYOUT_VERSION), layout(LAYOUT_VERSION - 1));
    for replace in [true, false] {
        let _: Attached = stage.json(&["attach", "eth0"]);
        fs::rename(&ours, &theirs).unwrap();
        assert_refused(&stage.decap, &["status", "eth0"], 1, "another version");
        if replace {
            let attached: Attached = stage.json(&["attach", "eth0"]);
            assert!(!attached.refreshed);
            stage.assert_answers();
        }
        let detached: Detached = stage.json(&["detach", "eth0"]);
        assert_eq!(detached.interfaces, ["eth0"]);
        assert!(!stage.has_program("eth0") && !stage.decap.bpffs().exists());
    }
}

/// Pins of others in the same directory are left alone, whatever becomes of these.
#[test]
fn what_others_keep_in_the_directory_stays() {
    let stage = Stage::new("decap-others");
    let others = stage.decap.bpffs().join("v1/links");
    fs::create_dir_all(&others).unwrap();
    assert_refused(&stage.decap, &["detach", "eth0"], 1, "no decapsulator");
    assert_refused(&stage.decap, &["attach", "lo", "--mode", "native"], 1, "lo");
    assert!(others.exists());
    for _ in 0..2 {
        let _: Attached = stage.json(&["attach", "eth0"]);
        let detached: Detached = stage.json(&["detach", "eth0"]);
        assert_eq!((detached.maps, others.exists()), (4, true));
    }
    assert!(!stage.has_program("eth0"));
    let left = fs::read_dir(stage.decap.bpffs()).unwrap();
    assert_eq!(left.count(), 1);
}

/// What is refused says why, and leaves nothing behind.
#[test]
fn refusals_say_why() {
    // A single backend's interface has a program of the lab, in native mode.
    let topology = Topology {
        backends: 1,
        ..Topology::default()
    };
    let lab = Lab::with("decap-refusals", &topology).unwrap();
    let backend = &lab.backends()[0];
    let decap = Decap::on(&lab, backend).unwrap();
    let another = "another XDP program is attached there";
    for mode in ["auto", "native", "generic"] {
        assert_refused(&decap, &["attach", "eth0", "--mode", mode], 1, another);
        assert!(!decap.bpffs().exists(), "{mode}");
    }
    assert_refused(
        &decap,
        &["attach", "eth7"],
        1,
        "cannot find interface eth7: No such device",
    );
    assert_refused(
        &decap,
        &["attach", "lo", "--mode", "native"],
        1,
        "interface lo",
    );
    assert_refused(&decap, &["attach"], 2, "INTERFACE");
    assert_refused(
        &decap,
        &["attach", "lo", "--gue-port", "0"],
        2,
        "--gue-port",
    );
    assert_refused(&decap, &["attach", "lo", "--mode", "fast"], 2, "--mode");
    assert!(!decap.bpffs().exists());

    decap.text(&["attach", "lo"]).unwrap();
    let elsewhere = decap.seen_from(lab.client());
    for command in ["attach", "status", "detach"] {
        let part = "another network namespace";
        assert_refused(&elsewhere, &[command, "lo"], 1, part);
    }
    let status = decap.text(&["status", "lo"]).unwrap();
    assert!(status.contains("generic"), "{status}");

    // Whoever holds the pins is not interfered with.
    let held = fs::File::open(decap.bpffs()).unwrap();
    held.lock().unwrap();
    assert_refused(&decap, &["attach", "lo"], 1, "held by another lbctl");
    drop(held);
    decap.text(&["detach", "lo"]).unwrap();
}

#[test]
fn whoever_is_not_root_is_told_so() {
    let stage = Stage::new("decap-nobody");
    let binaries = lb_tests::lab::Binaries::locate().unwrap();
    // Where everybody may execute it.
    let lbctl = stage.lab.directory().join("lbctl");
    fs::copy(binaries.lbctl(), &lbctl).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = stage.backend().netns().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&lbctl).arg("decap").args(arguments);
        command.arg("--bpffs").arg(stage.decap.bpffs());
        output(&mut command).unwrap_err().to_string()
    };
    let hint = "hint: run lbctl decap as root";
    for arguments in [
        &["attach", "eth0"][..],
        &["attach", "lo", "--mode", "generic"],
    ] {
        let refusal = nobody(arguments);
        assert!(refusal.contains(hint), "{refusal}");
    }
    stage.decap.text(&["attach", "eth0"]).unwrap();
    for arguments in [&["detach", "eth0"][..], &["status", "eth0"]] {
        let refusal = nobody(arguments);
        assert!(refusal.contains(hint), "{refusal}");
    }
    assert!(stage.has_program("eth0"));
    let way = stage.tunnels()[0];
    let mut knocker = stage.lab.client().knocker().unwrap();
    let knock = knocker.knock(doors()[0], way).unwrap();
    assert!(knocker.is_answered(knock, PATIENCE).unwrap());
}
