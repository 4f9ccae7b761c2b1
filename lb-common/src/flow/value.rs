use super::Word;
use crate::{
    records::{MAX_BACKENDS, MAX_LAST_HOPS, TICK_SHIFT},
    tcp::State,
};

/// A point in time: units of 2^30 ns (1.074 s) since boot, modulo 2^22 (52 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    const BITS: u32 = 22;
    const MASK: u32 = (1 << Self::BITS) - 1;
    /// The most by which one may come after another and still compare: 26 days.
    pub const MOST_AFTER: u32 = Self::MASK / 2;
    /// Nanoseconds in a tick.
    pub const NANOSECONDS: u64 = 1 << TICK_SHIFT;

    /// From a clock that counts nanoseconds since boot (`CLOCK_MONOTONIC`).
    #[inline(always)]
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> TICK_SHIFT) as u32 & Self::MASK)
    }

    #[inline(always)]
    #[must_use]
    pub const fn new(ticks: u32) -> Self {
        Self(ticks & Self::MASK)
    }

    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `ticks` later; at most [`Tick::MOST_AFTER`] for [`Tick::is_before`] to make sense of it.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks) & Self::MASK)
    }

    /// Ticks from `earlier` to here, if `earlier` is not later than this.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0) & Self::MASK
    }

    /// Whether this comes before `other`: the counter wraps, the nearer way round decides.
    #[inline(always)]
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) & (Self::MASK / 2 + 1) != 0
    }
}

/// The value word of a flow record: everything that changes, so that it changes at one stroke.
///
/// ```text
/// bits  0..14  backend index      26..30  state
///      14..26  last-hop index     30..34  generation: one higher each time the record changes hands
///                                 34..56  tick at which the record expires unless refreshed
///                                 56..64  0, see [`super::Word::request`]
/// ```
///
/// Whoever needs the last time a packet was seen takes the state's timeout off the expiry. It is
/// the expiry that is stored, and not the last time, because a CPU in search of a place can then
/// judge another service's record without looking up that service's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue(u64);

impl FlowValue {
    const LAST_HOP_AT: u32 = 14;
    const STATE_AT: u32 = 26;
    const GENERATION_AT: u32 = 30;
    const EXPIRES_AT: u32 = 34;

    const BACKEND: u64 = MAX_BACKENDS as u64 - 1;
    const LAST_HOP: u64 = (MAX_LAST_HOPS as u64 - 1) << Self::LAST_HOP_AT;
    const STATE: u64 = 0xf << Self::STATE_AT;
    const GENERATION: u64 = 0xf << Self::GENERATION_AT;

    /// A record's value; its generation is set when it is put in place ([`super::Bucket::take`]).
    #[inline(always)]
    #[must_use]
    pub const fn new(backend: u16, last_hop: u16, state: State, expires: Tick) -> Self {
        Self(
            backend as u64 & Self::BACKEND
                | (last_hop as u64) << Self::LAST_HOP_AT & Self::LAST_HOP
                | Self::of_state(state)
                | Self::of_expiry(expires),
        )
    }

    #[inline(always)]
    const fn of_state(state: State) -> u64 {
        (state.bits() as u64) << Self::STATE_AT
    }

    #[inline(always)]
    const fn of_expiry(expires: Tick) -> u64 {
        (expires.get() as u64) << Self::EXPIRES_AT
    }

    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 & Self::BACKEND) as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn last_hop(self) -> u16 {
        ((self.0 & Self::LAST_HOP) >> Self::LAST_HOP_AT) as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        State::from_bits((self.0 >> Self::STATE_AT) as u8)
    }

    #[inline(always)]
    #[must_use]
    pub const fn expires(self) -> Tick {
        Tick::new((self.0 >> Self::EXPIRES_AT) as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_expired(self, now: Tick) -> bool {
        self.expires().is_before(now)
    }

    /// How dear it is to give this record's place to another flow: 0 where it is free or expired,
    /// more the longer a half-open one has to live, [`FlowValue::PRICELESS`] for all others.
    ///
    /// Without a branch: what a bucket's records are is nothing that a CPU can foretell, and it would
    /// have to begin again each time it was wrong.
    #[inline(always)]
    #[must_use]
    pub fn price<W: Word>(self, now: Tick) -> u64 {
        let (live, half_open, free) = self.state().prices();
        let left = u64::from(self.expires().since(now));
        let expired = left >> (Tick::BITS - 1);
        let vacant = W::opaque(free | live & expired);
        let half_open = W::opaque(half_open);
        let alive = (left + 1) | half_open.wrapping_sub(1);
        alive & vacant.wrapping_sub(1) & Self::PRICELESS
    }

    /// More than any half-open record costs.
    pub const PRICELESS: u64 = (1 << (Tick::BITS + 1)) - 1;

    /// The same record in another state and with another expiry.
    #[inline(always)]
    #[must_use]
    pub const fn renewed(self, state: State, expires: Tick) -> Self {
        let kept = self.0 & (Self::BACKEND | Self::LAST_HOP | Self::GENERATION);
        Self(kept | Self::of_state(state) | Self::of_expiry(expires))
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | Self::of_state(state))
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_last_hop(self, last_hop: u16) -> Self {
        let last_hop = (last_hop as u64) << Self::LAST_HOP_AT & Self::LAST_HOP;
        Self(self.0 & !Self::LAST_HOP | last_hop)
    }

    /// Tells this record's flow from the one before it in the same place: 0 to 15.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.0 >> Self::GENERATION_AT) as u8 & 0xf
    }

    /// This value in the generation of `previous`: the record stays its flow's.
    #[inline(always)]
    #[must_use]
    pub const fn in_generation_of(self, previous: Self) -> Self {
        Self(self.0 & !Self::GENERATION | previous.0 & Self::GENERATION)
    }

    /// Whether the record has not changed hands between two loads of its value.
    #[inline(always)]
    pub(super) const fn same_generation(self, other: Self) -> bool {
        (self.0 ^ other.0) & Self::GENERATION == 0
    }

    /// This value in the generation after `previous`'s.
    #[inline(always)]
    pub(super) const fn succeeding(self, previous: Self) -> Self {
        let generation = previous.0.wrapping_add(1 << Self::GENERATION_AT) & Self::GENERATION;
        Self(self.0 & !Self::GENERATION | generation)
    }
}

const _: () = assert!(MAX_BACKENDS == 1 << FlowValue::LAST_HOP_AT);
const _: () = assert!(MAX_LAST_HOPS == 1 << (FlowValue::STATE_AT - FlowValue::LAST_HOP_AT));
