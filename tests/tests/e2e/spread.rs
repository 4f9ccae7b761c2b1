//! The main promise: connections arrive, are spread, and every byte comes back.

use std::net::SocketAddr;

use lb_tests::lab::{Lab, Topology, VIP4, VIP6};

use crate::setup::{PORT, start};

#[test]
fn connections_are_spread_over_ipv4_and_ipv6() {
    let topology = Topology {
        backends: 4,
        ..Topology::default()
    };
    let lab = Lab::with("spread", &topology).unwrap();
    let _servers = lab.serve_identity(PORT).unwrap();
    let lbd = start(&lab);
    for vip in [SocketAddr::from((VIP4, 80)), SocketAddr::from((VIP6, 80))] {
        let greeting = lab.client().exchange(vip, 100_000).unwrap();
        println!("{greeting:?}\n{}", lbd.log());
        let spread = lab.client().connect_many(vip, 200, 20).unwrap();
        println!("{:?}", spread.by_server);
        assert_eq!(spread.failures, [""; 0]);
    }
    for c in [
        &["status"][..],
        &["backend", "list"],
        &["service", "list"],
        &["conntrack", "stats"],
        &["stats"],
        &["conntrack", "list", "--limit", "5"],
    ] {
        println!("{}", lbd.lbctl_text(c).unwrap());
    }
}
