//! Packets that the daemon sends and hears itself, past the routes, filters and queueing disciplines
//! of the host.
//!
//! * **segment**: TCP segments without data as IP packets, and what is heard of answers to them.
//! * **outer**: the headers that a tunnel puts around a packet.
//! * **frame**: a packet as an Ethernet frame, for a [`NextHop`](crate::model::NextHop) or otherwise.
//! * **ip**: the headers and checksums that these are made of; **filter**: what the kernel lets
//!   through to an [`Ear`]; **socket**: the system calls.
//!
//! Everything but the sockets is pure. Checksums are computed in full: nothing below a packet
//! socket would complete them.

mod filter;
mod frame;
mod ip;
mod outer;
mod segment;
mod socket;

pub use self::{
    filter::Filter,
    frame::{Link, frame},
    ip::Addresses,
    outer::{Encapsulation, Outer},
    segment::{Heard, Segment},
    socket::{Ear, Family, Mouth},
};
