//! The life of a TCP connection as a load balancer sees it.
//!
//! A middlebox holds no sequence numbers, so its states are coarser than those of RFC 9293 §3.3.2
//! and every transition must be safe against a segment that is not what it seems. The rules:
//!
//! * Only the backend makes a connection established: by its SYN-ACK and the client's ACK after
//!   it, or by a segment of its own that only an established connection sends. A client alone
//!   (or whoever forges its address) makes at most a half-open record, which any other may replace.
//! * A RST of the client only shortens the timer, and a later segment that shows the connection
//!   alive restores it: a forged RST ends nothing (S-NAT-6, RFC 7857 §2).
//! * A RST of the backend says that there is no connection. It makes the record as good as
//!   half-open, so that forged ACKs cannot fill the table either.
//! * Where only the client is seen, its ACK after its SYN has to do as proof: whoever forges both
//!   gets a record.

/// The flag byte of a TCP header (RFC 9293 §3.1), without CWR and ECE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;

    /// From byte 13 of the TCP header.
    #[inline(always)]
    #[must_use]
    pub const fn new(byte: u8) -> Self {
        Self(byte & 0x3f)
    }

    #[inline(always)]
    #[must_use]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    #[inline(always)]
    #[must_use]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    #[inline(always)]
    #[must_use]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    #[inline(always)]
    #[must_use]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// A SYN that asks for a connection: no ACK beside it.
    #[inline(always)]
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Combinations of the four flags that decide about a connection's state.
    const DECIDING: usize = 16;

    /// FIN, SYN, RST and ACK as an index.
    #[inline(always)]
    const fn deciding(self) -> usize {
        (self.0 & (Self::FIN | Self::SYN | Self::RST) | (self.0 & Self::ACK) >> 1) as usize
    }

    const fn decided(index: u8) -> Self {
        Self(index & (Self::FIN | Self::SYN | Self::RST) | (index << 1) & Self::ACK)
    }

    /// Combinations that no TCP sends: SYN with FIN or RST, or none of SYN, ACK and RST
    /// (RFC 9293 §3.10.7.4, fifth: a segment without ACK is dropped).
    #[inline(always)]
    #[must_use]
    pub const fn impossible(self) -> bool {
        (self.syn() && self.0 & (Self::FIN | Self::RST) != 0)
            || self.0 & (Self::SYN | Self::ACK | Self::RST) == 0
    }
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client = 0,
    Backend = 1,
    /// A client whose backend answers it past the load balancer (`dsr` and tunnels).
    ClientAlone = 2,
}

impl Side {
    const COUNT: usize = 3;
}

/// State of a connection's record; four bits in a [`crate::flow::FlowValue`].
///
/// A number and not an enum: the packet path looks transitions and sets up instead of branching,
/// which is both faster and fewer paths for the kernel's verifier to walk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u8);

/// A set of states, one bit each.
#[derive(Clone, Copy)]
struct Set(u16);

impl Set {
    const fn of(states: &[State]) -> Self {
        let mut set = 0;
        let mut n = 0;
        while n < states.len() {
            set |= 1 << states[n].0;
            n += 1;
        }
        Self(set)
    }

    const fn without(states: &[State]) -> Self {
        Self(!Self::of(states).0)
    }

    #[inline(always)]
    const fn has(self, state: State) -> bool {
        self.bit(state) != 0
    }

    /// 1 for a state that it has, 0 for others.
    #[inline(always)]
    const fn bit(self, state: State) -> u64 {
        (self.0 as u64 >> state.0) & 1
    }
}

/// Which idle timeout applies to a state; also the index in
/// [`crate::records::Service::timeouts`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutClass {
    HalfOpen = 0,
    Established = 1,
    FinWait = 2,
    Closing = 3,
    TimeWait = 4,
    Reset = 5,
}

impl TimeoutClass {
    pub const COUNT: usize = 6;
}

impl State {
    /// No record.
    pub const FREE: Self = Self(0);
    /// A record is being written: nobody but the writer may look at it.
    pub const CLAIMED: Self = Self(1);
    /// The client has sent a SYN; or a segment of a connection that we have no record of (after
    /// state was lost), which only the backend can confirm.
    pub const SYN_SENT: Self = Self(2);
    /// The backend has answered with a SYN-ACK.
    pub const SYN_RECEIVED: Self = Self(3);
    /// The backend has answered with a RST, whatever was before.
    pub const REFUSED: Self = Self(4);
    pub const ESTABLISHED: Self = Self(5);
    /// The client has sent a FIN, the backend has not.
    pub const FIN_WAIT_CLIENT: Self = Self(6);
    /// The backend has sent a FIN, the client has not.
    pub const FIN_WAIT_BACKEND: Self = Self(7);
    /// Both have sent a FIN.
    pub const CLOSING: Self = Self(8);
    /// The client has acknowledged after both FINs.
    pub const TIME_WAIT: Self = Self(9);
    /// A RST of the client has passed on a connection that was established.
    pub const RESET: Self = Self(10);
    /// The load balancer has ended the connection: either side is answered with a RST.
    pub const ENDED: Self = Self(11);

    /// Numbers that four bits hold.
    const COUNT: usize = 16;

    const NONE: Set = Set::of(&[Self::FREE]);
    const LIVE: Set = Set::without(&[Self::FREE, Self::CLAIMED]);
    const HALF_OPEN: Set = Set::of(&[Self::SYN_SENT, Self::SYN_RECEIVED, Self::REFUSED]);
    /// Both sides have sent a FIN.
    const CLOSED: Set = Set::of(&[Self::CLOSING, Self::TIME_WAIT]);

    const ACTIVE: Set = Set::of(&[
        Self::ESTABLISHED,
        Self::FIN_WAIT_CLIENT,
        Self::FIN_WAIT_BACKEND,
    ]);
    const REOPENS: Set = Set::of(&[Self::CLOSING, Self::TIME_WAIT, Self::REFUSED, Self::ENDED]);
    /// States that say, where only the client is seen, that a SYN is of a new connection: the
    /// client has closed or reset the one before.
    const REOPENS_ALONE: Set = Set::of(&[
        Self::CLOSING,
        Self::TIME_WAIT,
        Self::REFUSED,
        Self::ENDED,
        Self::FIN_WAIT_CLIENT,
        Self::RESET,
    ]);

    /// From the low four bits of `bits`.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0xf)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// A record that a packet may follow.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(self) -> bool {
        self.0 >= Self::SYN_SENT.0
    }

    /// For [`crate::flow::FlowValue::price`], 1 or 0 each: whether the record is live, is half-open,
    /// and is none.
    #[inline(always)]
    pub(crate) const fn prices(self) -> (u64, u64, u64) {
        (
            Self::LIVE.bit(self),
            Self::HALF_OPEN.bit(self),
            Self::NONE.bit(self),
        )
    }

    /// A record that gives way to another flow when its bucket is full (S-CT-1, S-CT-2).
    #[inline(always)]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        // SYN sent, SYN received and refused stand side by side.
        self.0.wrapping_sub(Self::SYN_SENT.0) <= Self::REFUSED.0 - Self::SYN_SENT.0
    }

    /// A connection on which data can flow: both sides have agreed to it, and not both have closed.
    #[inline(always)]
    #[must_use]
    pub const fn is_active(self) -> bool {
        Self::ACTIVE.has(self)
    }

    /// Whether a SYN starts a new connection here instead of belonging to this one (S-NAT-7).
    ///
    /// [`State::RESET`] is not among them: the RST may have been forged, so the SYN goes to the
    /// same backend, which either starts a new connection or challenges it (RFC 5961 §4).
    #[inline(always)]
    #[must_use]
    pub const fn reopens(self) -> bool {
        Self::REOPENS.has(self)
    }

    /// The same where only the client's direction is seen.
    #[inline(always)]
    #[must_use]
    pub const fn reopens_alone(self) -> bool {
        Self::REOPENS_ALONE.has(self)
    }

    /// Whether a segment of the backend shows that it knows this connection no more: after both
    /// FINs it answers with a SYN-ACK only a SYN that has not come through here, from the same
    /// client and port straight to the backend. (Through here it would have made a new record.)
    #[inline(always)]
    #[must_use]
    pub const fn is_succeeded(self, flags: Flags) -> bool {
        Self::CLOSED.has(self) && flags.syn() && flags.ack()
    }

    /// Index of the state's idle timeout, a [`TimeoutClass`].
    #[inline(always)]
    #[must_use]
    pub fn timeout_class(self) -> usize {
        static CLASSES: [u8; State::COUNT] = {
            let mut classes = [0; State::COUNT];
            let mut n = 0;
            while n < State::COUNT {
                classes[n] = State(n as u8).class() as u8;
                n += 1;
            }
            classes
        };
        CLASSES[usize::from(self.0 & 0xf)] as usize
    }

    const fn class(self) -> TimeoutClass {
        match self {
            Self::ESTABLISHED => TimeoutClass::Established,
            Self::FIN_WAIT_CLIENT | Self::FIN_WAIT_BACKEND => TimeoutClass::FinWait,
            Self::CLOSING => TimeoutClass::Closing,
            Self::TIME_WAIT => TimeoutClass::TimeWait,
            Self::RESET | Self::ENDED => TimeoutClass::Reset,
            _ => TimeoutClass::HalfOpen,
        }
    }

    /// As it stands in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FREE => "FREE",
            Self::CLAIMED => "CLAIMED",
            Self::SYN_SENT => "SYN_SENT",
            Self::SYN_RECEIVED => "SYN_RECEIVED",
            Self::REFUSED => "REFUSED",
            Self::ESTABLISHED => "ESTABLISHED",
            Self::FIN_WAIT_CLIENT | Self::FIN_WAIT_BACKEND => "FIN_WAIT",
            Self::CLOSING => "CLOSING",
            Self::TIME_WAIT => "TIME_WAIT",
            Self::RESET => "RESET",
            Self::ENDED => "ENDED",
            _ => "UNKNOWN",
        }
    }

    /// The state after a segment.
    ///
    /// A SYN that starts a new connection (see [`State::reopens`]) is not for this function: the
    /// caller makes a new record of it.
    #[inline(always)]
    #[must_use]
    pub fn after(self, side: Side, flags: Flags) -> Self {
        let row = (side as usize) << 4 | usize::from(self.0 & 0xf);
        Self(TRANSITIONS[row << 4 | flags.deciding()])
    }

    const fn after_client(self, flags: Flags) -> Self {
        match self {
            // Only the backend can lift these.
            Self::SYN_SENT | Self::REFUSED => self,
            Self::SYN_RECEIVED if flags.rst() || flags.syn() => self,
            Self::SYN_RECEIVED if flags.fin() => Self::FIN_WAIT_CLIENT,
            Self::SYN_RECEIVED if flags.ack() => Self::ESTABLISHED,
            Self::ESTABLISHED | Self::FIN_WAIT_CLIENT | Self::FIN_WAIT_BACKEND if flags.rst() => {
                Self::RESET
            }
            Self::ESTABLISHED if flags.fin() => Self::FIN_WAIT_CLIENT,
            Self::FIN_WAIT_BACKEND if flags.fin() => Self::CLOSING,
            // The retransmitted FIN of a client whose last ACK was lost closes nothing yet.
            Self::CLOSING if flags.fin() || flags.syn() => self,
            Self::CLOSING => Self::TIME_WAIT,
            Self::RESET if flags.rst() || flags.syn() => self,
            Self::RESET if flags.fin() => Self::FIN_WAIT_CLIENT,
            Self::RESET => Self::ESTABLISHED,
            // A SYN on a living connection goes to its backend, which challenges it (RFC 5961 §4).
            _ => self,
        }
    }

    const fn after_client_alone(self, flags: Flags) -> Self {
        match self {
            Self::ESTABLISHED | Self::FIN_WAIT_CLIENT if flags.rst() => Self::RESET,
            Self::SYN_SENT | Self::RESET | Self::ESTABLISHED if flags.rst() || flags.syn() => self,
            Self::SYN_SENT | Self::RESET | Self::ESTABLISHED if flags.fin() => {
                Self::FIN_WAIT_CLIENT
            }
            Self::SYN_SENT | Self::RESET if flags.ack() => Self::ESTABLISHED,
            _ => self,
        }
    }

    const fn after_backend(self, flags: Flags) -> Self {
        if flags.rst() {
            return match self {
                Self::CLOSING | Self::TIME_WAIT | Self::ENDED => self,
                _ if self.is_live() => Self::REFUSED,
                _ => self,
            };
        }
        match self {
            // A SYN-ACK in RESET answers a SYN on the reset connection's tuple: a new one begins.
            Self::SYN_SENT | Self::REFUSED | Self::RESET if flags.syn() && flags.ack() => {
                Self::SYN_RECEIVED
            }
            // Simultaneous open (RFC 9293 §3.5): both ACKs are still to come.
            Self::SYN_SENT | Self::REFUSED | Self::RESET if flags.syn() => self,
            Self::SYN_RECEIVED if flags.syn() => self,
            Self::SYN_SENT | Self::REFUSED | Self::RESET | Self::SYN_RECEIVED if flags.fin() => {
                Self::FIN_WAIT_BACKEND
            }
            Self::SYN_SENT | Self::REFUSED | Self::RESET | Self::SYN_RECEIVED => Self::ESTABLISHED,
            Self::ESTABLISHED if flags.fin() => Self::FIN_WAIT_BACKEND,
            Self::FIN_WAIT_CLIENT if flags.fin() => Self::CLOSING,
            _ => self,
        }
    }
}

/// Next states by side, state and [`Flags::deciding`].
static TRANSITIONS: [u8; Side::COUNT * State::COUNT * Flags::DECIDING] = {
    let mut table = [0; Side::COUNT * State::COUNT * Flags::DECIDING];
    let mut n = 0;
    while n < table.len() {
        let state = State(((n >> 4) % State::COUNT) as u8);
        let flags = Flags::decided((n % Flags::DECIDING) as u8);
        let after = match n / (State::COUNT * Flags::DECIDING) {
            0 => state.after_client(flags),
            1 => state.after_backend(flags),
            _ => state.after_client_alone(flags),
        };
        table[n] = after.0;
        n += 1;
    }
    table
};

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

// The sets say the same as the ranges that packets are judged by.
const _: () = {
    let mut bits = 0;
    while bits < State::COUNT as u8 {
        let state = State(bits);
        assert!(State::LIVE.has(state) == state.is_live());
        assert!(State::HALF_OPEN.has(state) == state.is_half_open());
        bits += 1;
    }
};

#[cfg(test)]
mod tests;
