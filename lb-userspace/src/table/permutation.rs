//! The order in which a backend prefers the slots of a table.

use crate::model::TableSize;

use super::hash::SplitMix64;

/// A backend's preference list, as in Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software
/// Network Load Balancer", NSDI 2016, §3.4): the slots `offset + i · skip`, modulo a prime size.
/// Since the size is prime and `0 < skip < size`, the list names every slot exactly once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    offset: u32,
    skip: u32,
    size: u32,
}

impl Permutation {
    /// The preference list of the backend with this [`identity`](super::hash::identity).
    pub(super) fn new(identity: u64, size: TableSize) -> Self {
        let size = size.slots();
        let mut random = SplitMix64::new(identity);
        Self {
            offset: random.below(size),
            skip: 1 + random.below(size - 1),
            size,
        }
    }

    /// Every slot once, the most preferred first.
    pub(super) fn walk(self) -> impl Iterator<Item = u32> {
        let mut slot = self.offset;
        (0..self.size).map(move |_| {
            let this = slot;
            slot += self.skip;
            if slot >= self.size {
                slot -= self.size;
            }
            this
        })
    }

    /// Where in the walk a slot stands, as a function.
    pub(super) fn rank(self) -> impl Fn(u32) -> u32 {
        let size = u64::from(self.size);
        let inverse = power(u64::from(self.skip), size - 2, size);
        move |slot| {
            let steps = u64::from(slot + self.size - self.offset);
            (steps * inverse % size) as u32
        }
    }
}

/// `base` to the power of `exponent`, modulo `modulus` < 2³². For a prime modulus the power
/// `modulus − 2` is the inverse of `base` (Fermat).
fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_every_slot_once_and_rank_is_its_inverse() {
        for size in [251, 4_093, 65_537] {
            let size = TableSize::try_from(size).unwrap();
            for identity in 0..20 {
                let permutation = Permutation::new(identity, size);
                let rank = permutation.rank();
                let mut seen = vec![false; size.slots() as usize];
                for (position, slot) in permutation.walk().enumerate() {
                    assert_eq!(rank(slot) as usize, position);
                    seen[slot as usize] = true;
                }
                assert!(seen.iter().all(|&seen| seen));
            }
        }
    }

    #[test]
    fn backends_prefer_different_slots() {
        let size = TableSize::default();
        let starts: std::collections::BTreeSet<(u32, u32)> = (0..1_000)
            .map(|identity| Permutation::new(identity, size))
            .map(|permutation| (permutation.offset, permutation.skip))
            .collect();
        assert_eq!(starts.len(), 1_000);
    }
}
