//! The table as the operator's weights want it, before health has a say.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::{TableSize, Weight};

use super::{
    MemberIndex, hash,
    permutation::Permutation,
    quota::{Claim, quotas},
};

/// Which backend owns each slot of a service's table by membership and weight alone.
///
/// Its serialised form names the size, the members and the owner of each slot as an index into the
/// members; reading it back checks that it is a table that [`build`](Self::build) could have made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct BaseTable {
    size: TableSize,
    /// Backends that own at least one slot, ascending.
    members: Vec<SocketAddr>,
    /// The owner of each slot; empty where there are no members.
    slots: Vec<MemberIndex>,
}

/// Why a stored table is not a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum TableError {
    #[error("a slot table's members must ascend: {0} is out of order")]
    MemberOrder(SocketAddr),
    #[error("{0} is a member of a slot table but owns no slot")]
    MemberWithoutSlot(SocketAddr),
    #[error("a slot table of this size and membership has {expected} slots, not {found}")]
    SlotCount { expected: usize, found: usize },
    #[error("slot {slot} belongs to member {owner}, but there are only {members}")]
    NoSuchMember {
        slot: usize,
        owner: u16,
        members: usize,
    },
}

impl BaseTable {
    /// Backends past this many, in the order of their addresses, own no slot: an owner is 16 bits.
    const MAX_MEMBERS: usize = 1 << MemberIndex::BITS;

    /// The table for these weights, made from the one before by moving as few slots as possible.
    ///
    /// Every backend is less than one slot away from its exact share, and a weight of 0 has none
    /// (S-SEL-1). Exactly the sum of `max(0, slots before − slots now)` over all backends moves
    /// (S-SEL-2). The order of `weights` is of no consequence (S-SEL-3); an address that occurs
    /// twice counts with the sum of its weights.
    ///
    /// A `previous` table of another size is ignored. Without a positive weight the table is empty:
    /// no slot has an owner.
    pub fn build(
        size: TableSize,
        previous: Option<&Self>,
        weights: &[(SocketAddr, Weight)],
    ) -> Self {
        let previous = previous.filter(|table| table.size == size);
        let members = entitled(size, previous, weights);
        if let Some(table) = previous.filter(|table| table.is_of(&members)) {
            return table.clone();
        }
        let mut owners = match previous {
            Some(table) => keep(table, &members),
            None => vec![None; size.slots() as usize],
        };
        claim(&mut owners, &members);
        Self {
            size,
            members: members.iter().map(|member| member.address).collect(),
            // Quotas sum up to the number of slots, so either all of them are owned or none is.
            slots: owners.into_iter().flatten().collect(),
        }
    }

    /// A number that two tables share if and only if every slot has the same owner in both (but for
    /// a chance of 2⁻⁶⁴), on any machine and however their members are numbered.
    pub fn checksum(&self) -> u64 {
        let identities: Vec<u64> = self.members.iter().copied().map(hash::identity).collect();
        hash::checksum(
            self.owners()
                .map(|owner| Some(identities[usize::from(owner?)])),
        )
    }

    /// How many slots each backend owns; one without slots is not listed.
    pub fn slot_counts(&self) -> BTreeMap<SocketAddr, u32> {
        let mut counts = vec![0; self.members.len()];
        for &owner in &self.slots {
            counts[usize::from(owner)] += 1;
        }
        self.members.iter().copied().zip(counts).collect()
    }

    pub(super) fn size(&self) -> TableSize {
        self.size
    }

    /// Whether each of these owns as much as it is to, and nobody else anything.
    fn is_of(&self, members: &[Member]) -> bool {
        let wanted = members.iter().map(|member| (member.address, member.quota));
        self.slot_counts().into_iter().eq(wanted)
    }

    pub(super) fn members(&self) -> &[SocketAddr] {
        &self.members
    }

    /// The owner of each slot, in order; as many as the size says also where nobody owns any.
    pub(super) fn owners(&self) -> impl Iterator<Item = Option<MemberIndex>> {
        (0..self.size.slots() as usize).map(|slot| self.slots.get(slot).copied())
    }
}

/// A backend that owns, or is about to own, slots.
struct Member {
    address: SocketAddr,
    quota: u32,
    preference: Permutation,
}

/// The backends that are worth at least one slot, in the order of their addresses.
fn entitled(
    size: TableSize,
    previous: Option<&BaseTable>,
    weights: &[(SocketAddr, Weight)],
) -> Vec<Member> {
    let mut summed: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for &(address, Weight(weight)) in weights {
        *summed.entry(address).or_default() += u64::from(weight);
    }
    let held = previous.map(BaseTable::slot_counts).unwrap_or_default();
    let (addresses, claims): (Vec<SocketAddr>, Vec<Claim>) = summed
        .into_iter()
        .take(BaseTable::MAX_MEMBERS)
        .map(|(address, weight)| {
            let held = held.get(&address).copied().unwrap_or(0);
            (address, Claim { weight, held })
        })
        .unzip();
    addresses
        .into_iter()
        .zip(quotas(size.slots(), &claims))
        .filter(|&(_, quota)| quota > 0)
        .map(|(address, quota)| Member {
            address,
            quota,
            preference: Permutation::new(hash::identity(address), size),
        })
        .collect()
}

/// What remains of the table before: everyone keeps what it has, up to its quota, and gives back the
/// slots that it prefers least.
fn keep(previous: &BaseTable, members: &[Member]) -> Vec<Option<MemberIndex>> {
    let renumbered: Vec<Option<usize>> = previous
        .members
        .iter()
        .map(|address| {
            members
                .binary_search_by_key(address, |member| member.address)
                .ok()
        })
        .collect();
    let mut held: Vec<Vec<u32>> = vec![Vec::new(); members.len()];
    for (slot, &owner) in (0..).zip(&previous.slots) {
        if let Some(member) = renumbered[usize::from(owner)] {
            held[member].push(slot);
        }
    }

    let mut owners = vec![None; previous.size.slots() as usize];
    for ((index, member), mut slots) in indices().zip(members).zip(held) {
        if slots.len() > member.quota as usize {
            let rank = member.preference.rank();
            slots.sort_unstable_by_key(|&slot| rank(slot));
            slots.truncate(member.quota as usize);
        }
        for slot in slots {
            owners[slot as usize] = Some(index);
        }
    }
    owners
}

/// Gives the slots without an owner to the members that lack some. They take turns; at its turn a
/// member claims the free slot that it prefers most.
///
/// No slot becomes free while this goes on, so a member never has to look again at one that it has
/// passed, and as many slots are free as are lacking in all: the walks end with every slot owned.
fn claim(owners: &mut [Option<MemberIndex>], members: &[Member]) {
    let mut lacking: Vec<u32> = members.iter().map(|member| member.quota).collect();
    for &owner in owners.iter().flatten() {
        lacking[usize::from(owner)] -= 1;
    }
    let mut claimants: Vec<_> = indices()
        .zip(members)
        .zip(lacking)
        .filter(|&(_, lacking)| lacking > 0)
        .map(|((index, member), lacking)| (index, member.preference.walk(), lacking))
        .collect();
    while !claimants.is_empty() {
        claimants.retain_mut(|(index, walk, lacking)| {
            let Some(slot) = walk.find(|&slot| owners[slot as usize].is_none()) else {
                return false;
            };
            owners[slot as usize] = Some(*index);
            *lacking -= 1;
            *lacking > 0
        });
    }
}

/// Every index that a member can have; unlike `0..` it ends after the last without an overflow.
fn indices() -> impl Iterator<Item = MemberIndex> {
    0..=MemberIndex::MAX
}

/// The serialised form of a [`BaseTable`], not yet checked.
#[derive(Deserialize)]
struct Stored {
    size: TableSize,
    members: Vec<SocketAddr>,
    slots: Vec<MemberIndex>,
}

impl TryFrom<Stored> for BaseTable {
    type Error = TableError;

    fn try_from(stored: Stored) -> Result<Self, TableError> {
        let Stored {
            size,
            members,
            slots,
        } = stored;
        if let Some(pair) = members.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(TableError::MemberOrder(pair[1]));
        }
        let expected = match members.len() {
            0 => 0,
            _ => size.slots() as usize,
        };
        if slots.len() != expected {
            return Err(TableError::SlotCount {
                expected,
                found: slots.len(),
            });
        }
        let mut owns_some = vec![false; members.len()];
        for (slot, &owner) in slots.iter().enumerate() {
            match owns_some.get_mut(usize::from(owner)) {
                Some(owns_some) => *owns_some = true,
                None => {
                    return Err(TableError::NoSuchMember {
                        slot,
                        owner,
                        members: members.len(),
                    });
                }
            }
        }
        if let Some(idle) = owns_some.iter().position(|&owns_some| !owns_some) {
            return Err(TableError::MemberWithoutSlot(members[idle]));
        }
        Ok(Self {
            size,
            members,
            slots,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn table() -> BaseTable {
        let weights: Vec<(SocketAddr, Weight)> = ["10.0.0.1:80", "[2001:db8::1]:80"]
            .iter()
            .map(|text| (text.parse().unwrap(), Weight(1)))
            .collect();
        BaseTable::build(TableSize::try_from(251).unwrap(), None, &weights)
    }

    #[test]
    fn is_read_back_as_it_was_written() {
        let empty = BaseTable::build(TableSize::default(), None, &[]);
        for table in [table(), empty] {
            let text = serde_json::to_string(&table).unwrap();
            assert_eq!(serde_json::from_str::<BaseTable>(&text).unwrap(), table);
        }
    }

    #[test]
    fn a_stored_table_that_could_not_have_been_built_is_refused() {
        let refusal = |key: &str, value: Value| {
            let mut stored = serde_json::to_value(table()).unwrap();
            stored[key] = value;
            serde_json::from_value::<BaseTable>(stored)
                .unwrap_err()
                .to_string()
        };
        let (a, b) = ("10.0.0.1:80", "[2001:db8::1]:80");
        for (key, value, reason) in [
            ("size", json!(250), "a table has 251 to 65537 slots"),
            ("size", json!(257), "has 257 slots, not 251"),
            ("slots", json!(vec![0; 250]), "has 251 slots, not 250"),
            ("slots", json!([]), "has 251 slots, not 0"),
            ("slots", json!(vec![2; 251]), "only 2"),
            ("slots", json!(vec![0; 251]), "[2001:db8::1]:80 is a member"),
            ("slots", json!(vec![65_536; 251]), "expected u16"),
            ("members", json!([b, a]), "10.0.0.1:80 is out of order"),
            ("members", json!([a, a]), "10.0.0.1:80 is out of order"),
            ("members", json!([a]), "only 1"),
            ("members", json!([]), "has 0 slots, not 251"),
        ] {
            let refusal = refusal(key, value);
            assert!(refusal.contains(reason), "{key}: {refusal}");
        }
    }

    #[test]
    fn a_base_of_another_size_is_ignored() {
        let weights = [("10.0.0.1:80".parse().unwrap(), Weight(1))];
        let size = TableSize::try_from(509).unwrap();
        assert_eq!(
            BaseTable::build(size, Some(&table()), &weights),
            BaseTable::build(size, None, &weights)
        );
    }

    #[test]
    fn an_address_given_twice_counts_with_both_weights() {
        let (a, b) = (
            "10.0.0.1:80".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
        );
        let size = TableSize::default();
        assert_eq!(
            BaseTable::build(
                size,
                None,
                &[(a, Weight(65_535)), (b, Weight(1)), (a, Weight(3))]
            ),
            BaseTable::build(
                size,
                None,
                &[(a, Weight(32_769)), (b, Weight(1)), (a, Weight(32_769))]
            ),
        );
    }

    #[test]
    fn more_backends_than_a_slot_can_name_still_fill_the_table() {
        let weights: Vec<(SocketAddr, Weight)> = (0..70_000_u32)
            .map(|n| (SocketAddr::from((n.to_be_bytes(), 80)), Weight(1)))
            .collect();
        let counts = BaseTable::build(TableSize::default(), None, &weights).slot_counts();
        assert_eq!(counts.len(), BaseTable::MAX_MEMBERS);
        assert_eq!(counts.values().sum::<u32>(), TableSize::MAX);
    }
}
