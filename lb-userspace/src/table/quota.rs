//! How many slots each backend is worth.

use std::cmp::Reverse;

/// A backend's claim to a part of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub weight: u64,
    /// Slots that it has in the table before.
    pub held: u32,
}

/// Divides `slots` in proportion to the weights, by the method of largest remainders: everyone has
/// the whole part of its exact share, and the slots left over go, one each, to the largest
/// fractional parts. Every quota is thereby less than one slot away from the exact share, and a
/// weight of 0 has none (S-SEL-1).
///
/// Where fractional parts are equal, whoever would otherwise have to give a slot back comes first,
/// so that no slot moves without need; then the order of `claims` decides.
///
/// The quotas are in the order of `claims` and sum up to `slots`, or to 0 where no weight is
/// positive.
pub(super) fn quotas(slots: u32, claims: &[Claim]) -> Vec<u32> {
    let total: u64 = claims.iter().map(|claim| claim.weight).sum();
    if total == 0 {
        return vec![0; claims.len()];
    }
    // Exact: at most 65 537 slots by a sum of 16-bit weights that would need 2³² of them to overflow.
    let share = |claim: &Claim| u64::from(slots) * claim.weight;
    let mut quotas: Vec<u32> = claims
        .iter()
        .map(|claim| (share(claim) / total) as u32)
        .collect();

    // Fewer are left over than there are remainders above 0, so an exact share stays exact.
    let left_over = slots - quotas.iter().sum::<u32>();
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&i| {
        let keeps_one_more = claims[i].held > quotas[i];
        Reverse((share(&claims[i]) % total, keeps_one_more))
    });
    for &i in order.iter().take(left_over as usize) {
        quotas[i] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(slots: u32, weights: &[u64]) -> Vec<u32> {
        let claims: Vec<Claim> = weights
            .iter()
            .map(|&weight| Claim { weight, held: 0 })
            .collect();
        quotas(slots, &claims)
    }

    /// S-SEL-1
    #[test]
    fn the_largest_remainders_take_what_is_left_over() {
        assert_eq!(fresh(251, &[1, 1, 2, 4]), [31, 31, 63, 126]);
        assert_eq!(fresh(251, &[1]), [251]);
        assert_eq!(fresh(251, &[1, 0, 0]), [251, 0, 0]);
        assert_eq!(fresh(251, &[65_535, 1]), [251, 0]);
        assert_eq!(fresh(65_537, &[65_536, 1]), [65_536, 1]);
    }

    #[test]
    fn nothing_is_divided_among_nobody() {
        assert_eq!(fresh(251, &[]), [0; 0]);
        assert_eq!(fresh(251, &[0, 0]), [0, 0]);
    }

    #[test]
    fn more_claims_than_slots_get_one_or_none() {
        let quotas = fresh(251, &[7; 1_000]);
        assert_eq!(quotas.iter().sum::<u32>(), 251);
        assert!(quotas.iter().all(|&quota| quota <= 1));
    }

    /// S-SEL-2: at equal remainders the odd slot stays where it is.
    #[test]
    fn a_tie_is_broken_for_whoever_holds_the_slot() {
        let quotas_after =
            |held: [u32; 3]| quotas(251, &held.map(|held| Claim { weight: 5, held }));
        assert_eq!(quotas_after([0, 0, 0]), [84, 84, 83]);
        assert_eq!(quotas_after([83, 84, 84]), [83, 84, 84]);
        assert_eq!(quotas_after([84, 83, 84]), [84, 83, 84]);
        assert_eq!(quotas_after([0, 0, 251]), [84, 83, 84]);
    }

    /// A slot held before never outweighs a larger remainder.
    #[test]
    fn a_larger_remainder_comes_before_a_slot_held() {
        let claims = [(3, 252), (2, 0)].map(|(weight, held)| Claim { weight, held });
        // Exact shares: 150.6 and 100.4.
        assert_eq!(quotas(251, &claims), [151, 100]);
        let claims = [(3, 0), (2, 251)].map(|(weight, held)| Claim { weight, held });
        assert_eq!(quotas(251, &claims), [151, 100]);
    }
}
