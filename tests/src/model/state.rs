//! Connection states (§10), stated a second time.

/// Byte 13 of the TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u8);

impl Flags {
    pub(super) fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub(super) fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub(super) fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub(super) fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// A SYN without ACK: asks for a connection.
    pub(super) fn opens(self) -> bool {
        self.syn() && !self.ack()
    }

    /// No TCP sends these.
    pub(super) fn impossible(self) -> bool {
        let with_syn = self.syn() && (self.fin() || self.rst());
        with_syn || !(self.syn() || self.ack() || self.rst())
    }
}

/// Who sent a segment, and whether the other side's segments are seen at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    /// One whose backend answers it past the balancer.
    LoneClient,
    Backend,
}

/// A living record's state; its number is the one in the record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    SynSent = 2,
    SynReceived = 3,
    Refused = 4,
    Established = 5,
    FinWaitClient = 6,
    FinWaitBackend = 7,
    Closing = 8,
    TimeWait = 9,
    Reset = 10,
    Ended = 11,
}

impl State {
    /// By its number in a record's value.
    pub fn numbered(number: u8) -> Option<Self> {
        use State::*;
        [
            SynSent,
            SynReceived,
            Refused,
            Established,
            FinWaitClient,
            FinWaitBackend,
            Closing,
            TimeWait,
            Reset,
            Ended,
        ]
        .into_iter()
        .find(|state| *state as u8 == number)
    }

    pub(super) fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Refused)
    }

    /// A SYN here is a new connection's, whoever sees it.
    pub(super) fn is_over(self) -> bool {
        matches!(
            self,
            Self::Closing | Self::TimeWait | Self::Refused | Self::Ended
        )
    }

    /// The state after a segment that belongs to the connection.
    pub(super) fn after(self, sender: Sender, flags: Flags) -> Self {
        match sender {
            Sender::Client => self.after_client(flags),
            Sender::LoneClient => self.after_lone_client(flags),
            Sender::Backend if flags.rst() => self.after_reset_of_backend(),
            Sender::Backend => self.after_backend(flags),
        }
    }

    /// A client makes nothing established on its own word; its RST only shortens the timer.
    fn after_client(self, flags: Flags) -> Self {
        use State::*;
        let established = matches!(self, Established | FinWaitClient | FinWaitBackend);
        if flags.rst() {
            return match self {
                Closing if !flags.fin() => TimeWait,
                _ if established => Reset,
                _ => self,
            };
        }
        if flags.syn() {
            return self;
        }
        match (self, flags.fin()) {
            (SynReceived | Established | Reset, true) => FinWaitClient,
            (FinWaitBackend, true) => Closing,
            (SynReceived, false) if flags.ack() => Established,
            (Reset, false) => Established,
            (Closing, false) => TimeWait,
            _ => self,
        }
    }

    /// Where only the client is seen, its ACK has to do as proof.
    fn after_lone_client(self, flags: Flags) -> Self {
        use State::*;
        match self {
            Established | FinWaitClient if flags.rst() => Reset,
            SynSent | Established | Reset if !flags.syn() && !flags.rst() => {
                if flags.fin() {
                    FinWaitClient
                } else if flags.ack() {
                    Established
                } else {
                    self
                }
            }
            _ => self,
        }
    }

    /// The backend knows of no connection; what is closed or ended stays so.
    fn after_reset_of_backend(self) -> Self {
        use State::*;
        match self {
            Closing | TimeWait | Ended => self,
            _ => Refused,
        }
    }

    fn after_backend(self, flags: Flags) -> Self {
        use State::*;
        match self {
            SynSent | Refused | Reset | SynReceived => {
                if flags.syn() {
                    // A SYN alone is a simultaneous open (RFC 9293 §3.5).
                    if flags.ack() { SynReceived } else { self }
                } else if flags.fin() {
                    FinWaitBackend
                } else {
                    Established
                }
            }
            Established if flags.fin() => FinWaitBackend,
            FinWaitClient if flags.fin() => Closing,
            _ => self,
        }
    }
}
