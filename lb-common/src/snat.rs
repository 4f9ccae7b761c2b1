//! The ports that connections are sent from (`full-nat`).
//!
//! Each SNAT address has a table of 65 536 records, and a record's place is its port: a reply is
//! found by index, and that no two living connections have one port holds by construction
//! (S-NAT-4). The records stand in the buckets of [`crate::flow`], so a request is found as it is
//! there: in one of a few candidate buckets, chosen by the keyed hash of its flow. So ports are
//! spread and cannot be guessed (RFC 6056 §3.3.3), and the search for a free one is bounded.

use crate::{flow::RECORDS, hash::fast_range};

/// Addresses of a service's pool are spread over so many slots: the pool can change without
/// moving every connection's candidates.
pub const POOL_SLOTS: usize = 16;
/// Buckets that are searched for a connection, or for a free port.
pub const CANDIDATES: u32 = 4;
/// Buckets of an address's table: a record a port.
pub const BUCKETS: u32 = 65_536 / RECORDS as u32;
/// Ports below 1 024 are not used (RFC 6056 §3.2).
const FIRST_BUCKET: u32 = 1_024 / RECORDS as u32;

/// The addresses that a service's connections are sent from, by service id: indices of addresses,
/// or 0. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnatPool {
    pub slots: [u16; POOL_SLOTS],
    /// Whose a slot was before the pool changed: connections from then are still sent from there.
    pub before: [u16; POOL_SLOTS],
}

/// Four neighbouring ports of one address of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index in [`SnatPool::slots`], below [`POOL_SLOTS`].
    pub pool_slot: usize,
    /// Bucket of the address's table, [`BUCKETS`] at most.
    pub bucket: u32,
}

/// Candidate number `n` (below [`CANDIDATES`]) of the flow with this hash.
#[inline(always)]
#[must_use]
pub const fn candidate(hash: u64, n: u32) -> Candidate {
    // Each candidate is a product of its own: what the first ones have in common, the others have
    // not.
    let mixed = (hash ^ n as u64)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .rotate_left(32)
        .wrapping_mul(0x94d0_49bb_1331_11eb);
    Candidate {
        pool_slot: (mixed >> 60) as usize,
        bucket: FIRST_BUCKET + fast_range((mixed >> 24) as u32, BUCKETS - FIRST_BUCKET),
    }
}

/// The port, in host order, of a record.
#[inline(always)]
#[must_use]
pub const fn port(bucket: u32, slot: usize) -> u16 {
    (bucket * RECORDS as u32 + slot as u32) as u16
}

/// Bucket and slot of a port's record.
#[inline(always)]
#[must_use]
pub const fn place(port: u16) -> (u32, usize) {
    (port as u32 / RECORDS as u32, port as usize % RECORDS)
}

const _: () = assert!(size_of::<SnatPool>() == 64);
const _: () = assert!(POOL_SLOTS == 1 << 4);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S-NAT-4: source ports are 1024 and above.
        #[test]
        fn candidates_are_ports_from_1024(hash: u64, n in 0..CANDIDATES, slot in 0..RECORDS) {
            let candidate = candidate(hash, n);
            prop_assert!(candidate.pool_slot < POOL_SLOTS && candidate.bucket < BUCKETS);
            prop_assert!(port(candidate.bucket, slot) >= 1024);
        }

        #[test]
        fn a_port_names_its_place(number: u16) {
            let (bucket, slot) = place(number);
            prop_assert_eq!(port(bucket, slot), number);
        }
    }

    /// S-NAT-4: spread (RFC 6056): hashes that differ little lead far apart.
    #[test]
    fn candidates_are_spread() {
        let buckets: HashSet<_> = (0..1000)
            .map(|hash| candidate(hash << 40, 0).bucket)
            .collect();
        assert!(buckets.len() > 950, "{}", buckets.len());
        let mut slots = [0; POOL_SLOTS];
        (0..16_000).for_each(|hash| slots[candidate(hash, 1).pool_slot] += 1);
        assert!(slots.iter().all(|&n| (800..1200).contains(&n)), "{slots:?}");
    }
}
