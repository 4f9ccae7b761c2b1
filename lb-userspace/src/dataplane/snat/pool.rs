//! Which address each slot of a service's pool stands for.

use lb_common::snat::{POOL_SLOTS, SnatPool};

/// The pool of these addresses (by index; more than [`POOL_SLOTS`] do not count) that follows
/// `previous`: every address has its equal share within one slot, and no more slots change hands
/// than that takes. With no addresses no slot has one.
pub(super) fn assign(previous: &SnatPool, addresses: &[u16]) -> SnatPool {
    let mut shares = shares(previous, addresses);
    let slots = previous.slots.map(|owner| take(&mut shares, owner));
    let mut takers = shares
        .iter()
        .flat_map(|&(address, left)| std::iter::repeat_n(address, left));
    let slots = slots.map(|kept| kept.or_else(|| takers.next()).unwrap_or(0));
    let before = std::array::from_fn(|n| match previous.slots[n] {
        owner if owner != 0 && owner != slots[n] => owner,
        _ => previous.before[n],
    });
    SnatPool { slots, before }
}

/// How many slots each address is to have. Where they do not come out even, those that have most
/// get the ones left over.
fn shares(previous: &SnatPool, addresses: &[u16]) -> Vec<(u16, usize)> {
    let mut known: Vec<u16> = Vec::new();
    for &address in addresses {
        if known.len() < POOL_SLOTS && !known.contains(&address) {
            known.push(address);
        }
    }
    let has = |address| {
        previous
            .slots
            .iter()
            .filter(|&&slot| slot == address)
            .count()
    };
    known.sort_by_key(|&address| std::cmp::Reverse(has(address)));
    let (even, left_over) = match known.len() {
        0 => (0, 0),
        count => (POOL_SLOTS / count, POOL_SLOTS % count),
    };
    known
        .into_iter()
        .enumerate()
        .map(|(n, address)| (address, even + usize::from(n < left_over)))
        .collect()
}

/// Lets the owner of a slot keep it, if it has a share left.
fn take(shares: &mut [(u16, usize)], owner: u16) -> Option<u16> {
    let (address, left) = shares.iter_mut().find(|(address, _)| *address == owner)?;
    *left = left.checked_sub(1)?;
    Some(*address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(pool: &SnatPool, address: u16) -> usize {
        pool.slots.iter().filter(|&&slot| slot == address).count()
    }

    fn moved(before: &SnatPool, after: &SnatPool) -> usize {
        let pairs = before.slots.iter().zip(&after.slots);
        pairs.filter(|(before, after)| before != after).count()
    }

    fn lists() -> impl Strategy<Value = Vec<Vec<u16>>> {
        let list = prop::collection::hash_set(1..30_u16, 1..=POOL_SLOTS);
        let list = list.prop_map(|set| set.into_iter().collect());
        prop::collection::vec(list, 1..8)
    }

    proptest! {
        /// S-NAT-4: the ports of every address are used alike, and a change of the list moves the
        /// fewest slots that it can.
        #[test]
        fn shares_are_even_and_moves_are_few(lists in lists()) {
            let mut pool = SnatPool::default();
            for list in lists {
                let next = assign(&pool, &list);
                let even = POOL_SLOTS / list.len();
                for &address in &list {
                    prop_assert!((even..=even + 1).contains(&count(&next, address)));
                }
                let whole = list.iter().map(|&address| count(&next, address)).sum::<usize>();
                prop_assert_eq!(whole, POOL_SLOTS);
                // Whoever keeps `min(before, after)` slots moves no more than it must; the best of
                // all ways to deal out what does not come out even keeps this many.
                let mut had: Vec<_> = list.iter().map(|&address| count(&pool, address)).collect();
                had.sort_unstable_by(|a, b| b.cmp(a));
                let kept: usize = had
                    .iter()
                    .enumerate()
                    .map(|(n, &had)| had.min(even + usize::from(n < POOL_SLOTS % list.len())))
                    .sum();
                prop_assert_eq!(moved(&pool, &next), POOL_SLOTS - kept);
                for (slot, &owner) in pool.slots.iter().enumerate() {
                    if owner != 0 && owner != next.slots[slot] {
                        prop_assert_eq!(next.before[slot], owner);
                    }
                }
                prop_assert_eq!(assign(&next, &list), next);
                pool = next;
            }
        }
    }

    #[test]
    fn a_pool_without_addresses_remembers_what_it_had() {
        let pool = assign(&SnatPool::default(), &[7, 7]);
        assert_eq!(pool.slots, [7; POOL_SLOTS]);
        assert_eq!(pool.before, [0; POOL_SLOTS]);
        let none = assign(&pool, &[]);
        assert_eq!((none.slots, none.before), ([0; POOL_SLOTS], pool.slots));
        assert_eq!(
            assign(&none, &[7]),
            SnatPool {
                before: [7; POOL_SLOTS],
                ..pool
            }
        );
    }
}
