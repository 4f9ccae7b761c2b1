//! What must hold of every table, as properties; and what must never change, as golden values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::model::{TableSize, Weight};

pub(super) type Weights = Vec<(SocketAddr, Weight)>;
type Counts = BTreeMap<SocketAddr, u32>;

/// Distinct addresses, every third one IPv6.
pub(super) fn address(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    match n % 3 {
        0 => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), 80).into(),
        _ => ([10, 0, high, low], 8_000 + n % 7).into(),
    }
}

/// Backend `n` with the `n`-th weight.
pub(super) fn numbered(weights: impl IntoIterator<Item = u16>) -> Weights {
    present(weights.into_iter().map(Some))
}

/// The same, without the backends that have none.
fn present(weights: impl Iterator<Item = Option<u16>>) -> Weights {
    (0..)
        .zip(weights)
        .filter_map(|(n, weight)| Some((address(n), Weight(weight?))))
        .collect()
}

pub(super) fn size(slots: u32) -> TableSize {
    TableSize::try_from(slots).unwrap()
}

/// Odd weights, even ones, huge ones, none: alike often enough that remainders tie.
fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![
        1 => Just(0),
        2 => Just(100),
        2 => 1..=10_u16,
        2 => any::<u16>(),
    ]
}

/// Few backends as often as many, and sometimes more than the smallest table has slots.
fn backend_count() -> impl Strategy<Value = usize> {
    prop_oneof![0..=10_usize, 0..=100_usize, 0..=1_000_usize]
}

fn weights() -> impl Strategy<Value = Weights> {
    backend_count()
        .prop_flat_map(|count| prop::collection::vec(weight(), count))
        .prop_map(numbered)
}

/// Two desired states of one service: of each backend that is in either, what becomes of it.
fn change() -> impl Strategy<Value = (Weights, Weights)> {
    let fate = prop_oneof![
        6 => weight().prop_map(|weight| (Some(weight), Some(weight))),
        1 => (weight(), weight()).prop_map(|(old, new)| (Some(old), Some(new))),
        1 => weight().prop_map(|weight| (Some(weight), None)),
        1 => weight().prop_map(|weight| (None, Some(weight))),
    ];
    backend_count()
        .prop_flat_map(move |count| prop::collection::vec(fate.clone(), count))
        .prop_map(|fates| {
            let before = fates.iter().map(|&(before, _)| before);
            let after = fates.iter().map(|&(_, after)| after);
            (present(before), present(after))
        })
}

fn small_size() -> impl Strategy<Value = TableSize> {
    select(vec![251, 257, 509, 1_021, 4_093]).prop_map(size)
}

/// What to choose a subset by: a seed, and the chance of each member in percent.
fn subset() -> impl Strategy<Value = (u64, u32)> {
    (any::<u64>(), 0..=100_u32)
}

fn choose(from: &BTreeSet<SocketAddr>, (seed, percent): (u64, u32)) -> BTreeSet<SocketAddr> {
    let mut random = hash::SplitMix64::new(seed);
    let chosen = |_: &&SocketAddr| random.below(100) < percent;
    from.iter().filter(chosen).copied().collect()
}

pub(super) fn members(table: &BaseTable) -> BTreeSet<SocketAddr> {
    table.slot_counts().into_keys().collect()
}

/// The owner of each slot, by address.
pub(super) fn owners(table: &BaseTable) -> Vec<Option<SocketAddr>> {
    let members: Vec<SocketAddr> = table.slot_counts().into_keys().collect();
    table
        .owners()
        .map(|owner| Some(members[usize::from(owner?)]))
        .collect()
}

fn primaries(table: &OverlaidTable) -> Vec<Option<SocketAddr>> {
    table.slots().map(|(primary, _)| primary).collect()
}

/// Every backend's slots are less than one away from its exact share, and together they are all.
fn check_quotas(size: TableSize, weights: &Weights) -> Result<(), TestCaseError> {
    let counts = BaseTable::build(size, None, weights).slot_counts();
    let total: i128 = weights.iter().map(|(_, weight)| i128::from(weight.0)).sum();
    for (address, weight) in weights {
        let owned = counts.get(address).copied().unwrap_or(0);
        let scaled_error =
            i128::from(owned) * total - i128::from(size.slots()) * i128::from(weight.0);
        prop_assert!(scaled_error.abs() < total.max(1), "{address} owns {owned}");
        prop_assert!(weight.0 > 0 || owned == 0);
    }
    let expected = if total > 0 { size.slots() } else { 0 };
    prop_assert_eq!(counts.values().sum::<u32>(), expected);
    Ok(())
}

/// From one state to another, exactly the slots move that someone has too many of.
fn check_moves(size: TableSize, old: &Weights, new: &Weights) -> Result<(), TestCaseError> {
    let before = BaseTable::build(size, None, old);
    let after = BaseTable::build(size, Some(&before), new);
    let moved = owners(&before)
        .iter()
        .zip(&owners(&after))
        .filter(|(old, new)| old.is_some() && old != new)
        .count();
    prop_assert_eq!(
        moved as u32,
        surplus(&before.slot_counts(), &after.slot_counts())
    );

    let fresh = BaseTable::build(size, None, new);
    let fresh_surplus = surplus(&before.slot_counts(), &fresh.slot_counts());
    prop_assert!(moved as u32 <= fresh_surplus, "ties cost moves");
    prop_assert!(
        BaseTable::build(size, Some(&after), new) == after,
        "unchanged, yet moved"
    );
    Ok(())
}

fn surplus(old: &Counts, new: &Counts) -> u32 {
    old.iter()
        .map(|(address, &old)| old.saturating_sub(new.get(address).copied().unwrap_or(0)))
        .sum()
}

/// The same state and base in another order of input, on a "machine" that read the base from disk.
fn check_order(
    size: TableSize,
    (old, new): &(Weights, Weights),
    (old_shuffled, new_shuffled): &(Weights, Weights),
) -> Result<(), TestCaseError> {
    let here = BaseTable::build(size, None, old);
    let there = BaseTable::build(size, None, old_shuffled);
    prop_assert!(here == there);
    let there = serde_json::to_string(&there).unwrap();
    let there: BaseTable = serde_json::from_str(&there).unwrap();
    let here = BaseTable::build(size, Some(&here), new);
    let there = BaseTable::build(size, Some(&there), new_shuffled);
    prop_assert!(here == there);
    prop_assert_eq!(here.checksum(), there.checksum());
    Ok(())
}

/// With everyone usable the overlay is the base, whatever failed in between; and with some of them
/// out of use only their slots change.
fn check_flap(size: TableSize, weights: &Weights, usable: (u64, u32)) -> Result<(), TestCaseError> {
    let base = BaseTable::build(size, None, weights);
    let everyone = members(&base);
    let healthy = base.overlay(&everyone);
    prop_assert!(primaries(&healthy) == owners(&base));
    prop_assert_eq!(healthy.checksum(), base.checksum());
    prop_assert_eq!(healthy.slot_counts(), base.slot_counts());

    let usable = choose(&everyone, usable);
    let degraded = base.overlay(&usable);
    for (owner, primary) in owners(&base).into_iter().zip(primaries(&degraded)) {
        match owner.filter(|owner| usable.contains(owner)) {
            Some(usable_owner) => prop_assert_eq!(primary, Some(usable_owner)),
            None => prop_assert_eq!(primary.is_some(), !usable.is_empty()),
        }
        prop_assert!(primary.is_none_or(|primary| usable.contains(&primary)));
    }
    // Two different tables are told apart by their checksums.
    prop_assert_eq!(
        primaries(&degraded) == owners(&base),
        degraded.checksum() == base.checksum()
    );
    prop_assert!(base.overlay(&everyone) == healthy);
    Ok(())
}

/// A secondary is usable and not the primary, and it is where the slot goes when the primary fails;
/// nothing else moves then.
fn check_next_failure(
    size: TableSize,
    weights: &Weights,
    usable: (u64, u32),
    victim: prop::sample::Index,
) -> Result<(), TestCaseError> {
    let base = BaseTable::build(size, None, weights);
    let mut usable = choose(&members(&base), usable);
    let before = base.overlay(&usable);
    for (primary, secondary) in before.slots() {
        prop_assert!(secondary.is_none_or(|secondary| usable.contains(&secondary)));
        prop_assert!(secondary.is_none() || secondary != primary);
        prop_assert_eq!(secondary.is_some(), usable.len() >= 2);
    }
    if usable.is_empty() {
        return Ok(());
    }
    let victim = *usable.iter().nth(victim.index(usable.len())).unwrap();
    usable.remove(&victim);
    let after = base.overlay(&usable);
    for ((primary, secondary), now) in before.slots().zip(primaries(&after)) {
        let expected = if primary == Some(victim) {
            secondary
        } else {
            primary
        };
        prop_assert_eq!(now, expected);
    }
    Ok(())
}

fn shuffled(weights: Weights) -> impl Strategy<Value = (Weights, Weights)> {
    (Just(weights.clone()), Just(weights).prop_shuffle())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// S-SEL-1
    #[test]
    fn quotas_are_exact_to_within_one_slot(size in small_size(), weights in weights()) {
        check_quotas(size, &weights)?;
    }

    /// S-SEL-2
    #[test]
    fn a_change_moves_only_what_it_must(size in small_size(), (old, new) in change()) {
        check_moves(size, &old, &new)?;
    }

    /// S-SEL-2
    #[test]
    fn a_flap_restores_the_table(size in small_size(), weights in weights(), usable in subset()) {
        check_flap(size, &weights, usable)?;
    }

    /// S-SEL-2
    #[test]
    fn a_second_failure_moves_only_the_slots_of_the_failed(
        size in small_size(),
        weights in weights(),
        usable in subset(),
        victim in any::<prop::sample::Index>(),
    ) {
        check_next_failure(size, &weights, usable, victim)?;
    }

    /// S-SEL-3
    #[test]
    fn the_order_of_input_is_of_no_consequence(
        size in small_size(),
        ((old, old_shuffled), (new, new_shuffled)) in
            change().prop_flat_map(|(old, new)| (shuffled(old), shuffled(new))),
    ) {
        check_order(size, &(old, new), &(old_shuffled, new_shuffled))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// S-SEL-1, S-SEL-2 and S-SEL-3 at the size that services have by default.
    #[test]
    fn all_of_it_holds_at_full_size(
        ((old, old_shuffled), (new, new_shuffled)) in
            change().prop_flat_map(|(old, new)| (shuffled(old), shuffled(new))),
        usable in subset(),
        victim in any::<prop::sample::Index>(),
    ) {
        let size = TableSize::default();
        check_quotas(size, &old)?;
        check_moves(size, &old, &new)?;
        check_flap(size, &old, usable)?;
        check_next_failure(size, &old, usable, victim)?;
        check_order(size, &(old, new), &(old_shuffled, new_shuffled))?;
    }
}

/// S-SEL-3: these values are part of the agreement between two balancers. A change of the hash, of
/// the way slots are claimed or of the search for substitutes breaks the agreement between versions;
/// if it must be, it needs a way to tell the two apart, not just a new value here.
#[test]
fn tables_are_the_same_in_every_version() {
    let weights = |text: &[(&str, u16)]| -> Weights {
        text.iter()
            .map(|&(address, weight)| (address.parse().unwrap(), Weight(weight)))
            .collect()
    };
    let first = weights(&[
        ("10.0.1.11:8080", 1),
        ("10.0.1.12:8080", 1),
        ("10.0.1.13:8080", 2),
        ("[2001:db8::14]:8080", 4),
    ]);
    let second = weights(&[
        ("10.0.1.11:8080", 3),
        ("10.0.1.13:8080", 2),
        ("[2001:db8::14]:8080", 4),
        ("[2001:db8::15]:8080", 5),
    ]);
    let fresh = BaseTable::build(TableSize::default(), None, &first);
    let changed = BaseTable::build(TableSize::default(), Some(&fresh), &second);
    let usable =
        BTreeSet::from(["10.0.1.13:8080", "[2001:db8::15]:8080"].map(|a| a.parse().unwrap()));
    let overlaid = changed.overlay(&usable);
    let secondaries = overlaid
        .slots()
        .filter(|&(_, secondary)| secondary == Some(second[1].0))
        .count();
    assert_eq!(fresh.checksum(), 0xe295_716c_17f7_0cb9);
    assert_eq!(changed.checksum(), 0x12bf_cb3f_61c0_257e);
    assert_eq!(overlaid.checksum(), 0xaca1_584c_8d1a_38d4);
    assert_eq!(secondaries, 46_677);
}
