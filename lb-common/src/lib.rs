//! The words and rules that the XDP program and the daemon share.
//!
//! `no_std`, no dependencies but `core`, no `unsafe`: everything here runs in the kernel, in the
//! daemon and in tests, and it is the tests on the host that prove it.
//!
//! * [`records`]: what stands in the maps, byte by byte.
//! * [`endpoints`]: who listens or answers at an address and port.
//! * [`flow`]: the connection table: one cache line a bucket, one record for both directions.
//! * [`flood`]: when SYNs are a flood.
//! * [`tcp`]: the life of a TCP connection as a middlebox sees it.
//! * [`hash`]: the keyed hash that picks buckets and slots.
//! * [`checksum`]: incremental updates of Internet checksums.
//! * [`rate`]: what is done only so often.
//! * [`reason`]: why a packet was dropped, or passed where that is worth a count.
//! * [`snat`]: which ports a connection may be sent from.
//! * [`decap`]: what the decapsulator of backends and `lbctl decap` share.
//! * [`ecn`]: congestion marks where a packet leaves a tunnel.
//! * [`lab`]: what the benchmark tells the program that makes its packets.

#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod decap;
pub mod ecn;
pub mod endpoints;
pub mod flood;
pub mod flow;
pub mod hash;
pub mod lab;
pub mod rate;
pub mod reason;
pub mod records;
pub mod snat;
pub mod tcp;
