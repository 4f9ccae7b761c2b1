//! Packets in and packets out through the loaded XDP program (`BPF_PROG_TEST_RUN`).
//!
//! * [`Packet`] builds frames, right ones and wrong ones, every checksum computed in full from
//!   nothing. A test says what is to come out by changing the same description and building it
//!   again, so that the program's incremental arithmetic is held against an independent one.
//! * [`Icmp`] does the same for ICMP, around a [`Packet`] that an error quotes.
//! * [`Answer`] is what a refused packet is to be answered with, built just so.
//! * [`Dissection`] reads frames back and says which checksums verify; [`Outer`] does so with the
//!   outer headers of tunnels.
//! * [`Testbed`] loads the program over pins of its own, writes services and backends the way the
//!   engine does, and runs frames through.
//! * [`Tunnelled`] puts a packet into another one, and [`DecapBed`] runs that through the
//!   decapsulator of backends.
//! * [`in_new_namespace`] gives a test interfaces and routes of its own.

mod answer;
mod checksum;
mod decap_bed;
mod dissect;
mod expect;
mod full_nat;
mod icmp;
mod ip;
mod namespace;
mod outer;
mod packet;
mod scene;
mod testbed;
mod tick;
mod tunnelled;

pub use answer::{Answer, IcmpError};
pub use decap_bed::{DecapBed, Expected};
pub use dissect::Dissection;
pub use expect::{Expect, Reasons};
pub use full_nat::{SNAT, SNAT6};
pub use icmp::{Body, Icmp};
pub use ip::{Extension, Ipv4, Ipv6, Network};
pub use namespace::{in_new_namespace, ip, sysctl};
pub use outer::{Outer, Udp};
pub use packet::{Link, Mac, Packet, Tag, Tcp, flags};
pub use scene::{
    BALANCER, CLIENT, CLIENT6, GATEWAY, LISTEN, LISTEN6, SERVER, SERVER6, WEB, WEB6, address,
    backend_mac, client, client6, next_hop, timeouts,
};
pub use testbed::{Outcome, Testbed, Verdict};
pub use tick::{let_ticks_pass, within_a_tick};
pub use tunnelled::{Gue, Tunnelled};
