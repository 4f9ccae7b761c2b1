//! The table in use: the base, with substitutes for the backends that cannot take connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::SocketAddr,
};

use super::{BaseTable, MemberIndex, hash, hash::SplitMix64};

/// Slots that are tried at random before the rest is searched in order. While a share `u` of the
/// slots has a usable owner, a fraction `(1 − u)^128` of the searches ends without a hit: one in
/// 700 000 at 10 %, one in 700 at 5 %.
const PROBES: u32 = 128;

/// Where the connections of each slot go while only some of the base's members are usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlaidTable {
    members: Vec<SocketAddr>,
    slots: Vec<Successors>,
}

/// The first two distinct usable owners that a search comes to.
type Successors = [Option<MemberIndex>; 2];

impl BaseTable {
    /// Where connections go while only the backends in `usable` can take them.
    ///
    /// Each slot has a sequence of slots of its own, which depends on its number and the table's
    /// size alone: itself, then 128 pseudo-random ones, then the table in order from itself
    /// on. Its primary is the first usable owner in this sequence, its secondary the next usable one
    /// that differs. Hence
    ///
    /// * a slot whose owner is usable keeps it, and with all members usable the table is the base;
    /// * substitutes come in proportion to the slots that the usable backends own, so by weight,
    ///   and one that owns no slot is no substitute;
    /// * one more failure moves only the slots that pointed at the backend that failed, to their
    ///   secondaries, and its return moves only those back.
    ///
    /// Without a usable owner no slot has a primary; with only one, none has a secondary.
    pub fn overlay(&self, usable: &BTreeSet<SocketAddr>) -> OverlaidTable {
        let members = self.members().to_vec();
        let usable: Vec<bool> = members
            .iter()
            .map(|member| usable.contains(member))
            .collect();
        let owners: Vec<Option<MemberIndex>> = self
            .owners()
            .map(|owner| owner.filter(|&owner| usable[usize::from(owner)]))
            .collect();
        let slots = (0..self.size().slots())
            .zip(in_order(&owners))
            .map(|(slot, in_order)| search(slot, &owners, in_order))
            .collect();
        OverlaidTable { members, slots }
    }
}

impl OverlaidTable {
    /// Checksum of the primaries: the base's own where all its members are usable.
    pub fn checksum(&self) -> u64 {
        let identities: Vec<u64> = self.members.iter().copied().map(hash::identity).collect();
        hash::checksum(
            self.slots
                .iter()
                .map(|&[primary, _]| Some(identities[usize::from(primary?)])),
        )
    }

    /// Of how many slots each member of the base is the primary; 0 for those that are not usable.
    pub fn slot_counts(&self) -> BTreeMap<SocketAddr, u32> {
        let mut counts = vec![0; self.members.len()];
        for &owner in self.slots.iter().flat_map(|[primary, _]| primary) {
            counts[usize::from(owner)] += 1;
        }
        self.members.iter().copied().zip(counts).collect()
    }

    /// Primary and secondary of each slot, in order.
    pub fn slots(&self) -> impl Iterator<Item = (Option<SocketAddr>, Option<SocketAddr>)> {
        self.slots_of(Some)
    }

    /// The same by what `call` calls each member, which it is asked once.
    pub fn slots_of<T: Copy>(
        &self,
        call: impl FnMut(SocketAddr) -> Option<T>,
    ) -> impl Iterator<Item = (Option<T>, Option<T>)> {
        let called: Vec<Option<T>> = self.members.iter().copied().map(call).collect();
        let owner = move |owner: Option<MemberIndex>| called[usize::from(owner?)];
        self.slots
            .iter()
            .map(move |&[primary, secondary]| (owner(primary), owner(secondary)))
    }
}

/// Primary and secondary of a slot. `owners` are the usable ones, `in_order` what a search in order
/// from this slot on would find.
fn search(slot: u32, owners: &[Option<MemberIndex>], in_order: Successors) -> Successors {
    if let [_, None] = in_order {
        return in_order; // Nobody or only one is usable.
    }
    let mut random = SplitMix64::new(u64::from(slot));
    let probes = (0..PROBES).map(|_| random.below(owners.len() as u32));
    let mut found = iter::once(slot)
        .chain(probes)
        .filter_map(|slot| owners[slot as usize])
        .chain(in_order.into_iter().flatten());
    let primary = found.next();
    let secondary = found.find(|&owner| Some(owner) != primary);
    [primary, secondary]
}

/// For each slot, the first two distinct owners from it on, going round at the end.
fn in_order(owners: &[Option<MemberIndex>]) -> Vec<Successors> {
    let mut successors = vec![[None, None]; owners.len()];
    let mut from_here = [None, None];
    // Backwards, and twice: the first round supplies what the last slots find at the beginning.
    for _ in 0..2 {
        for (slot, &owner) in owners.iter().enumerate().rev() {
            if owner.is_some() && owner != from_here[0] {
                from_here = [owner, from_here[0]];
            }
            successors[slot] = from_here;
        }
    }
    successors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::TableSize,
        table::tests::{Weights, address, members, numbered, owners, size},
    };

    /// What the slots of failed backends add to each usable one, beside what its weight is worth. The
    /// tables are fixed, so this cannot fail by chance; the bound is five standard deviations.
    #[track_caller]
    fn assert_proportional(weights: Weights, failed: &[u16]) {
        let base = BaseTable::build(TableSize::default(), None, &weights);
        let owned = base.slot_counts();
        let mut usable = members(&base);
        usable.retain(|member| !failed.iter().any(|&n| address(n) == *member));
        let in_use = base.overlay(&usable).slot_counts();
        let of_usable: u32 = usable.iter().map(|member| owned[member]).sum();
        let of_failed = f64::from(TableSize::MAX - of_usable);
        for member in &usable {
            let share = f64::from(owned[member]) / f64::from(of_usable);
            let (gain, expected) = (f64::from(in_use[member] - owned[member]), of_failed * share);
            let deviation = (of_failed * share * (1.0 - share)).sqrt();
            assert!(
                (gain - expected).abs() <= 5.0 * deviation,
                "{member} took over {gain} slots, its share is {expected:.0} ± {deviation:.0}"
            );
        }
    }

    #[test]
    fn substitutes_are_proportional_to_weights() {
        assert_proportional(numbered([1, 1, 2, 4]), &[3]);
        assert_proportional(numbered([1, 1, 2, 4]), &[0]);
        assert_proportional(numbered([100; 2]), &[0]);
        assert_proportional(numbered(1..=10), &[9, 4]);
        assert_proportional(numbered(1..=100), &[99]);
        assert_proportional(numbered([100; 1_000]), &[7]);
        // Nearly everyone is gone: 95 of 100.
        assert_proportional(numbered([100; 100]), &Vec::from_iter(5..100));
    }

    /// A usable backend that owns no slot is no substitute, and a stranger is none either.
    #[test]
    fn who_owns_no_slot_takes_over_none() {
        let base = BaseTable::build(size(251), None, &numbered([1, 0]));
        let (weightless, stranger) = (address(1), address(2));
        let nobody = base.overlay(&BTreeSet::from([weightless, stranger]));
        assert_eq!(nobody.slots().count(), 251);
        assert!(nobody.slots().all(|slot| slot == (None, None)));
        assert_eq!(nobody.slot_counts(), BTreeMap::from([(address(0), 0)]));
    }

    /// Where the probes find nothing, the table is searched in order from the slot on. One usable slot in
    /// 65 537 for each of two backends, so that hardly any probe hits.
    #[test]
    fn a_fruitless_search_goes_on_in_order() {
        let base = BaseTable::build(TableSize::default(), None, &numbered([65_535, 1, 1]));
        let owners = owners(&base);
        let position = |n| {
            owners
                .iter()
                .position(|&owner| owner == Some(address(n)))
                .unwrap()
        };
        let (one, two) = (position(1), position(2));
        let distance = |from: usize, to: usize| (to + owners.len() - from) % owners.len();

        let overlaid = base.overlay(&BTreeSet::from([address(1), address(2)]));
        let in_order = overlaid
            .slots()
            .enumerate()
            .filter(|&(slot, found)| {
                let nearest = if distance(slot, one) < distance(slot, two) {
                    [1, 2]
                } else {
                    [2, 1]
                };
                let [nearest, other] = nearest.map(|n| Some(address(n)));
                found == (nearest, other)
            })
            .count();
        // A probe hits one of the two in one slot of 256, and half of these hits agree all the same.
        assert!(in_order > owners.len() * 99 / 100, "{in_order}");
    }
}
