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
    Client,
    Backend,
}

/// State of a connection's record; four bits in a [`crate::flow::FlowValue`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No record.
    Free = 0,
    /// A record is being written: nobody but the writer may look at it.
    Claimed = 1,
    /// The client has sent a SYN; or a segment of a connection that we have no record of (after
    /// state was lost), which only the backend can confirm.
    SynSent = 2,
    /// The backend has answered with a SYN-ACK.
    SynReceived = 3,
    /// The backend has answered with a RST, whatever was before.
    Refused = 4,
    Established = 5,
    /// The client has sent a FIN, the backend has not.
    FinWaitClient = 6,
    /// The backend has sent a FIN, the client has not.
    FinWaitBackend = 7,
    /// Both have sent a FIN.
    Closing = 8,
    /// The client has acknowledged after both FINs.
    TimeWait = 9,
    /// A RST of the client has passed on a connection that was established.
    Reset = 10,
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
    /// From the low four bits of `bits`; values that no record holds read as [`State::Free`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            1 => Self::Claimed,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::Refused,
            5 => Self::Established,
            6 => Self::FinWaitClient,
            7 => Self::FinWaitBackend,
            8 => Self::Closing,
            9 => Self::TimeWait,
            10 => Self::Reset,
            _ => Self::Free,
        }
    }

    /// A record that a packet may follow.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(self) -> bool {
        self as u8 >= Self::SynSent as u8
    }

    /// A record that gives way to another flow when its bucket is full (S-CT-1, S-CT-2).
    #[inline(always)]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Refused)
    }

    /// Whether a SYN starts a new connection here instead of belonging to this one (S-NAT-7).
    ///
    /// [`State::Reset`] is not among them: the RST may have been forged, so the SYN goes to the
    /// same backend, which either starts a new connection or challenges it (RFC 5961 §4).
    #[inline(always)]
    #[must_use]
    pub const fn reopens(self) -> bool {
        matches!(self, Self::Closing | Self::TimeWait | Self::Refused)
    }

    #[inline(always)]
    #[must_use]
    pub const fn timeout_class(self) -> TimeoutClass {
        match self {
            Self::Free | Self::Claimed | Self::SynSent | Self::SynReceived | Self::Refused => {
                TimeoutClass::HalfOpen
            }
            Self::Established => TimeoutClass::Established,
            Self::FinWaitClient | Self::FinWaitBackend => TimeoutClass::FinWait,
            Self::Closing => TimeoutClass::Closing,
            Self::TimeWait => TimeoutClass::TimeWait,
            Self::Reset => TimeoutClass::Reset,
        }
    }

    /// As it stands in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::Claimed => "CLAIMED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECEIVED",
            Self::Refused => "REFUSED",
            Self::Established => "ESTABLISHED",
            Self::FinWaitClient | Self::FinWaitBackend => "FIN_WAIT",
            Self::Closing => "CLOSING",
            Self::TimeWait => "TIME_WAIT",
            Self::Reset => "RESET",
        }
    }

    /// The state after a segment of a connection whose both directions are seen.
    ///
    /// A SYN that starts a new connection (see [`State::reopens`]) is not for this function: the
    /// caller makes a new record of it.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, side: Side, flags: Flags) -> Self {
        match side {
            Side::Client => self.after_client(flags),
            Side::Backend => self.after_backend(flags),
        }
    }

    #[inline(always)]
    const fn after_client(self, flags: Flags) -> Self {
        match self {
            Self::Free | Self::Claimed => self,
            // Only the backend can lift these.
            Self::SynSent | Self::Refused => self,
            Self::SynReceived if flags.rst() || flags.syn() => self,
            Self::SynReceived if flags.fin() => Self::FinWaitClient,
            Self::SynReceived => Self::Established,
            // A SYN on a living connection goes to its backend, which challenges it (RFC 5961 §4).
            Self::Established | Self::FinWaitClient | Self::FinWaitBackend if flags.rst() => {
                Self::Reset
            }
            Self::Established if flags.fin() => Self::FinWaitClient,
            Self::FinWaitBackend if flags.fin() => Self::Closing,
            Self::Established | Self::FinWaitClient | Self::FinWaitBackend => self,
            // The retransmitted FIN of a client whose last ACK was lost closes nothing yet.
            Self::Closing if flags.fin() => self,
            Self::Closing | Self::TimeWait => Self::TimeWait,
            Self::Reset if flags.rst() || flags.syn() => self,
            Self::Reset if flags.fin() => Self::FinWaitClient,
            Self::Reset => Self::Established,
        }
    }

    #[inline(always)]
    const fn after_backend(self, flags: Flags) -> Self {
        if flags.rst() {
            return match self {
                Self::Free | Self::Claimed | Self::Closing | Self::TimeWait => self,
                _ => Self::Refused,
            };
        }
        match self {
            Self::Free | Self::Claimed => self,
            // A SYN-ACK in Reset answers a SYN on the reset connection's tuple: a new one begins.
            Self::SynSent | Self::Refused | Self::Reset if flags.syn() => {
                if flags.ack() {
                    Self::SynReceived
                } else {
                    // Simultaneous open (RFC 9293 §3.5): both ACKs are still to come.
                    self
                }
            }
            Self::SynReceived if flags.syn() => self,
            Self::SynSent | Self::Refused | Self::Reset | Self::SynReceived if flags.fin() => {
                Self::FinWaitBackend
            }
            Self::SynSent | Self::Refused | Self::Reset | Self::SynReceived => Self::Established,
            Self::Established if flags.fin() => Self::FinWaitBackend,
            Self::FinWaitClient if flags.fin() => Self::Closing,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Side::{Backend, Client},
        State::*,
        *,
    };

    const SYN: u8 = Flags::SYN;
    const ACK: u8 = Flags::ACK;
    const FIN: u8 = Flags::FIN | Flags::ACK;
    const RST: u8 = Flags::RST;
    const SYN_ACK: u8 = Flags::SYN | Flags::ACK;

    const EVERY: [State; 9] = [
        SynSent,
        SynReceived,
        Refused,
        Established,
        FinWaitClient,
        FinWaitBackend,
        Closing,
        TimeWait,
        Reset,
    ];

    #[track_caller]
    fn walk(from: State, steps: &[(Side, u8, State)]) {
        let mut state = from;
        for (n, &(side, flags, expected)) in steps.iter().enumerate() {
            state = state.after(side, Flags::new(flags));
            assert_eq!(state, expected, "step {n}: {side:?} {flags:#04x}");
        }
    }

    /// S-NAT-2: handshake with retransmissions, data, close by the client.
    #[test]
    fn an_ordinary_connection() {
        walk(
            SynSent,
            &[
                (Client, SYN, SynSent),
                (Backend, SYN_ACK, SynReceived),
                (Client, SYN, SynReceived),
                (Backend, SYN_ACK, SynReceived),
                (Client, ACK, Established),
                (Backend, ACK, Established),
                (Client, FIN, FinWaitClient),
                (Backend, ACK, FinWaitClient),
                (Backend, FIN, Closing),
                (Client, ACK, TimeWait),
                (Backend, FIN, TimeWait),
                (Client, ACK, TimeWait),
            ],
        );
    }

    /// S-NAT-2: the backend closes first, the client goes on sending.
    #[test]
    fn half_close_by_the_backend() {
        walk(
            Established,
            &[
                (Backend, FIN, FinWaitBackend),
                (Client, ACK, FinWaitBackend),
                (Client, FIN, Closing),
                (Client, FIN, Closing),
                (Backend, ACK, Closing),
            ],
        );
    }

    /// S-NAT-2: simultaneous open (RFC 9293 §3.5): SYNs cross, then both send SYN-ACK.
    #[test]
    fn simultaneous_open() {
        walk(
            SynSent,
            &[
                (Backend, SYN, SynSent),
                (Backend, SYN_ACK, SynReceived),
                (Client, ACK, Established),
            ],
        );
    }

    /// S-NAT-6: a forged RST of the client ends nothing.
    #[test]
    fn a_forged_reset_of_the_client_is_forgotten() {
        for established in [Established, FinWaitClient, FinWaitBackend] {
            walk(
                established,
                &[(Client, RST, Reset), (Client, ACK, Established)],
            );
            walk(
                established,
                &[(Client, RST, Reset), (Backend, ACK, Established)],
            );
            assert!(!established.after(Client, Flags::new(RST)).is_half_open());
        }
    }

    /// S-NAT-6, S-NAT-7: a RST and then a SYN on the same tuple leave it to the backend to say
    /// which of them was forged.
    #[test]
    fn a_syn_after_a_reset_is_judged_by_the_backend() {
        walk(Reset, &[(Client, SYN, Reset), (Backend, ACK, Established)]);
        walk(
            Reset,
            &[
                (Client, SYN, Reset),
                (Backend, SYN_ACK, SynReceived),
                (Client, ACK, Established),
            ],
        );
        assert!(!Reset.reopens());
    }

    /// S-CT-1: a backend that knows of no connection takes back what a forged ACK has made.
    #[test]
    fn a_reset_of_the_backend_makes_the_record_replaceable() {
        for state in [
            SynSent,
            SynReceived,
            Established,
            FinWaitClient,
            FinWaitBackend,
            Reset,
        ] {
            let refused = state.after(Backend, Flags::new(RST | ACK));
            assert_eq!(refused, Refused);
            assert!(refused.is_half_open());
            assert_eq!(refused.after(Client, Flags::new(ACK)), Refused);
        }
    }

    /// S-CT-1: whatever a client sends on its own, it has no established record.
    #[test]
    fn a_client_alone_establishes_nothing() {
        let mut reached = vec![SynSent];
        while let Some(state) = reached.pop() {
            for flags in 0..64 {
                let next = state.after(Client, Flags::new(flags));
                assert!(next.is_half_open(), "{state:?} {flags:#04x} -> {next:?}");
                if next != state && !reached.contains(&next) {
                    reached.push(next);
                }
            }
        }
    }

    /// S-CT-5: a connection whose record was lost is established again by the backend's word.
    #[test]
    fn a_lost_connection_is_picked_up() {
        walk(
            SynSent,
            &[(Client, ACK, SynSent), (Backend, ACK, Established)],
        );
    }

    #[test]
    fn living_states_stay_living() {
        for state in EVERY {
            assert!(state.is_live());
            assert_eq!(State::from_bits(state as u8), state);
            for flags in 0..64 {
                assert!(state.after(Client, Flags::new(flags)).is_live());
                assert!(state.after(Backend, Flags::new(flags)).is_live());
            }
        }
        assert!(!Free.is_live() && !Claimed.is_live());
    }

    #[test]
    fn impossible_flags() {
        for bad in [
            0,
            Flags::FIN,
            SYN | Flags::FIN,
            SYN | RST,
            Flags::PSH | Flags::URG,
            0x3f,
        ] {
            assert!(Flags::new(bad).impossible(), "{bad:#04x}");
        }
        for good in [
            SYN,
            SYN_ACK,
            ACK,
            FIN,
            RST,
            RST | ACK,
            ACK | Flags::PSH,
            SYN | Flags::PSH,
        ] {
            assert!(!Flags::new(good).impossible(), "{good:#04x}");
        }
    }
}
