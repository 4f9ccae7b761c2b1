//! The fixed, unkeyed hash that tables are made with.
//!
//! It need not resist an adversary: its input is backend addresses and slot numbers, which only the
//! operator chooses. (The hash that maps a *connection* to a slot is keyed, and is not this one.)
//! It must be the same on every machine and in every version, so it is spelt out here instead of
//! being taken from a library.

use std::net::SocketAddr;

/// A 64-bit name for a backend that depends on its address and port alone: FNV-1a over the octets of
/// the address, the port in network order and, for IPv6, the scope id.
pub(super) fn identity(address: SocketAddr) -> u64 {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => fnv1a(v4.ip().octets().into_iter().chain(port)),
        SocketAddr::V6(v6) => {
            let scope = v6.scope_id().to_be_bytes();
            fnv1a(v6.ip().octets().into_iter().chain(port).chain(scope))
        }
    }
}

/// Checksum of a table: of its owners' identities in the order of the slots.
pub(super) fn checksum(owners: impl Iterator<Item = Option<u64>>) -> u64 {
    const NOBODY: u64 = 0;
    owners.fold(
        GOLDEN_RATIO,
        |sum, owner| mix(sum ^ owner.unwrap_or(NOBODY)),
    )
}

/// The generator SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, scaled to `0..bound` by multiplication. What that leaves of a bias is below
    /// `bound` / 2³².
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_RATIO);
        mix(self.0)
    }
}

/// 2⁶⁴ / φ, made odd.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: a bijection in which every input bit changes every output bit
/// with a probability of about one half.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Vectors of draft-eastlake-fnv.
    #[test]
    fn fnv1a_agrees_with_its_published_vectors() {
        assert_eq!(fnv1a("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_f739_67e8);
    }

    /// The sequence that other implementations give for this seed.
    #[test]
    fn splitmix64_agrees_with_its_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn scaled_numbers_reach_both_ends_and_stay_below_the_bound() {
        let mut random = SplitMix64::new(1);
        let drawn: BTreeSet<u32> = (0..1_000).map(|_| random.below(7)).collect();
        assert_eq!(drawn, (0..7).collect());
    }

    #[test]
    fn every_part_of_an_address_counts() {
        let addresses = [
            "10.0.0.1:80",
            "10.0.0.2:80",
            "10.0.0.1:81",
            "[::ffff:10.0.0.1]:80",
            "[fe80::1]:80",
            "[fe80::1%2]:80",
        ];
        let identities: BTreeSet<u64> = addresses
            .iter()
            .map(|text| identity(text.parse().unwrap()))
            .collect();
        assert_eq!(identities.len(), addresses.len());
    }

    #[test]
    fn a_checksum_sees_the_order_and_the_gaps() {
        let sum = |owners: &[Option<u64>]| checksum(owners.iter().copied());
        let sums = BTreeSet::from([
            sum(&[]),
            sum(&[None]),
            sum(&[None, None]),
            sum(&[Some(1), Some(2)]),
            sum(&[Some(2), Some(1)]),
            sum(&[Some(1), None]),
        ]);
        assert_eq!(sums.len(), 6);
    }
}
