use crate::{records::TICK_SHIFT, tcp::State};

/// A point in time: units of 2^30 ns (1.074 s) since boot, modulo 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    const MASK: u32 = 0x00ff_ffff;
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

    /// `ticks` later; at most 2^23 for [`Tick::is_before`] to make sense of it.
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
/// bits  0..16  backend index      32..36  state
///      16..32  last-hop index     36..40  generation: one higher each time the record changes hands
///                                 40..64  tick at which the record expires unless refreshed
/// ```
///
/// Whoever needs the last time a packet was seen takes the state's timeout off the expiry. It is
/// the expiry that is stored, and not the last time, because a CPU in search of a place can then
/// judge another service's record without looking up that service's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue(u64);

impl FlowValue {
    const GENERATION: u64 = 0xf << 36;
    const STATE: u64 = 0xf << 32;

    /// A record's value; its generation is set when it is put in place ([`super::Bucket::claim`]).
    #[inline(always)]
    #[must_use]
    pub const fn new(backend: u16, last_hop: u16, state: State, expires: Tick) -> Self {
        Self(
            backend as u64
                | (last_hop as u64) << 16
                | (state.bits() as u64) << 32
                | (expires.get() as u64) << 40,
        )
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
        self.0 as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn last_hop(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        State::from_bits((self.0 >> 32) as u8)
    }

    #[inline(always)]
    #[must_use]
    pub const fn expires(self) -> Tick {
        Tick::new((self.0 >> 40) as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_expired(self, now: Tick) -> bool {
        self.expires().is_before(now)
    }

    /// How dear it is to give this record's place to another flow: 0 where it is free or expired,
    /// more the longer a half-open one has to live, [`FlowValue::PRICELESS`] for all others.
    #[inline(always)]
    #[must_use]
    pub const fn price(self, now: Tick) -> u32 {
        let state = self.state();
        let expired = self.is_expired(now) && state.is_live();
        if expired || state.bits() == State::FREE.bits() {
            0
        } else if state.is_half_open() {
            1 + self.expires().since(now)
        } else {
            Self::PRICELESS
        }
    }

    pub const PRICELESS: u32 = u32::MAX;

    /// The same record in another state and with another expiry.
    #[inline(always)]
    #[must_use]
    pub const fn renewed(self, state: State, expires: Tick) -> Self {
        Self(
            self.0 & (0xffff_ffff | Self::GENERATION)
                | (state.bits() as u64) << 32
                | (expires.get() as u64) << 40,
        )
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | (state.bits() as u64) << 32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_last_hop(self, last_hop: u16) -> Self {
        Self(self.0 & !(0xffff << 16) | (last_hop as u64) << 16)
    }

    /// Tells this record's flow from the one before it in the same place: 0 to 15.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.0 >> 36) as u8 & 0xf
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
        let generation = previous.0.wrapping_add(1 << 36) & Self::GENERATION;
        Self(self.0 & !Self::GENERATION | generation)
    }
}
