//! A second implementation of the data plane, in plain Rust, simple and slow.
//!
//! It is written from `docs/packets.md` and the RFCs named there, and shares no code with the XDP
//! program: it parses, keeps its connections, hashes and computes checksums in its own way, every
//! one in full. `cargo xtask fuzz` (`crate::fuzz`) holds the loaded program against it.
//!
//! A [`Model`] learns its services and backends by the same [`MapWrite`]s as the program's maps. It
//! is given a frame and says what must become of it: [`Model::process`]. Time does not pass in it:
//! whoever uses it keeps the timeouts longer than the test, and says which connection has expired
//! ([`Model::expire`]).

mod answer;
mod checksum;
mod config;
mod counters;
mod emit;
mod hash;
mod header;
mod icmp;
mod message;
mod mss;
mod parse;
mod records;
mod reply;
mod request;
mod rewrite;
mod segment;
mod snat;
mod state;
mod tunnel;

use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::MapWrite,
    model::{Forwarding, ServiceId},
};

use answer::Answer;
pub use checksum::verifies;
pub use config::Config;
pub use counters::Counters;
pub use hash::Keys;
use parse::Parsed;
use records::Records;
pub use records::{FlowKey, Record};
use segment::Segment;
pub use state::State;

/// A frame as the program gets it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'f> {
    /// The whole of it, of all buffers.
    pub frame: &'f [u8],
    /// Bytes in the first buffer.
    pub linear: usize,
    /// Interface that it came in by.
    pub ifindex: u32,
    /// Whether there is room in front of it for more headers.
    pub has_headroom: bool,
}

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To the host's stack, as it came.
    Pass,
    Drop,
    /// Out through the interface it came in by, as these bytes.
    Transmit(Vec<u8>),
    /// Out through another interface.
    Redirect(Vec<u8>),
}

/// What the model says of a frame.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub fate: Fate,
    /// Why it is dropped, and whose packet it is; `None`: of no service in particular.
    pub refused: Option<(Option<ServiceId>, Reason)>,
    pub trace: Trace,
}

/// What a packet did on its way.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Connections that it may have touched.
    pub flows: Vec<FlowKey>,
    /// The one whose record was made.
    pub made: Option<FlowKey>,
    /// The one whose record was made or followed, so that its time begins anew.
    pub renewed: Option<FlowKey>,
    /// It was answered with what is counted like this for this service.
    pub answered: Option<(Option<ServiceId>, Reason)>,
    /// The program's choice of a source is not one of the allowed ones.
    pub illegal: Option<SocketAddr>,
    /// It was an ICMP error, led on to a backend or a client.
    pub translated: Option<(Forwarding, Direction)>,
    /// Whose packet it is that goes out.
    pub service: Option<ServiceId>,
    /// How it went out.
    pub forwarded: Option<(Forwarding, Direction)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    ToBackend,
    ToClient,
}

/// Why a packet is not forwarded: ends the way through the model early.
enum Stop {
    Pass,
    /// Refused, and the sender of the packet is told.
    Refuse(Option<ServiceId>, Reason, Answer),
}

impl Stop {
    fn refuse(service: ServiceId, reason: Reason) -> Self {
        Self::Refuse(Some(service), reason, Answer::Nothing)
    }

    fn refuse_for_nobody(reason: Reason) -> Self {
        Self::Refuse(None, reason, Answer::Nothing)
    }
}

/// Asked for a choice of the program's.
pub type Source<'s> = &'s mut dyn FnMut(FlowKey) -> Option<SocketAddr>;

type Way<T> = Result<T, Stop>;

/// The data plane's configuration and state.
#[derive(Clone, Debug)]
pub struct Model {
    keys: Keys,
    config: Config,
    records: Records,
    counters: Counters,
}

impl Model {
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            config: Config::default(),
            records: Records::default(),
            counters: Counters::default(),
        }
    }

    /// Learns one change of services and backends.
    pub fn apply(&mut self, write: &MapWrite) {
        match write {
            MapWrite::ClearService { service } => self.counters.forget_service(*service),
            MapWrite::ClearBackend { backend } => self.counters.forget_backend(*backend),
            _ => {}
        }
        self.config.apply(write);
    }

    /// Says what must become of a frame, and moves the connections and counters on.
    ///
    /// `source` says from which address and port the program sends a new `full-nat` connection: a
    /// free choice, which has only to be one of the allowed ones.
    pub fn process(&mut self, input: Input<'_>, source: Source<'_>) -> Judgement {
        let mut trace = Trace::default();
        let judged = self
            .judge(input, source, &mut trace)
            .and_then(|fate| with_room(input, fate, &trace));
        let (fate, refused) = match judged {
            Ok(fate) => (fate, None),
            Err(Stop::Pass) => (Fate::Pass, None),
            Err(Stop::Refuse(service, reason, answer)) => {
                self.counters.count(service, reason);
                let fate = self.answer(input, service, answer, &mut trace);
                (fate, Some((service, reason)))
            }
        };
        Judgement {
            fate,
            refused,
            trace,
        }
    }

    /// §9: what the sender of a refused packet is told.
    fn answer(
        &mut self,
        input: Input<'_>,
        service: Option<ServiceId>,
        answer: Answer,
        trace: &mut Trace,
    ) -> Fate {
        let Parsed::Tcp(segment) = parse::frame(input) else {
            return Fate::Drop;
        };
        match answer::build(&segment, answer) {
            // A quote goes behind headers that were not there; a reset is never longer.
            Some((_, Reason::IcmpSent)) if !input.has_headroom => Fate::Drop,
            Some((frame, counted)) => {
                self.counters.count(service, counted);
                trace.answered = Some((service, counted));
                Fate::Transmit(frame)
            }
            None => Fate::Drop,
        }
    }

    /// §4: whose packet is it?
    fn judge(&mut self, input: Input<'_>, source: Source<'_>, trace: &mut Trace) -> Way<Fate> {
        match parse::frame(input) {
            Parsed::Foreign => Err(Stop::Pass),
            Parsed::Suspect(destination, reason) => Err(self.suspect(destination, reason)),
            Parsed::Icmp(message) => self.icmp(&message, trace),
            Parsed::Tcp(segment) => self.segment(&segment, source, trace),
        }
    }

    fn segment(
        &mut self,
        segment: &Segment<'_>,
        source: Source<'_>,
        trace: &mut Trace,
    ) -> Way<Fate> {
        if let Some(service) = self.config.service_at(segment.destination) {
            let (id, service) = (service.id, service.clone());
            trace.flows.push(FlowKey::new(id, segment.source));
            return self.request(segment, &service, source, trace);
        }
        self.reply(segment, trace)
    }

    fn suspect(&self, destination: IpAddr, reason: Reason) -> Stop {
        if self.config.listens_on(destination) {
            Stop::refuse_for_nobody(reason)
        } else {
            Stop::Pass
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn keys(&self) -> Keys {
        self.keys
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn records(&self) -> impl Iterator<Item = (FlowKey, Record)> {
        self.records.iter()
    }

    /// How many records there are.
    pub fn connections(&self) -> usize {
        self.records.len()
    }

    pub fn record(&self, key: FlowKey) -> Option<Record> {
        self.records.find(key)
    }

    /// The connection has been idle for longer than its timeout.
    pub fn expire(&mut self, key: FlowKey) {
        self.records.change(key, |record| record.expired = true);
    }

    /// The connection's record has been written, or left alone because nothing has changed, and
    /// expires at this tick now. That the tick is another one says that it has been written.
    pub fn written(&mut self, key: FlowKey, expires: u32) {
        self.records.change(key, |record| {
            let seen = record.seen.take();
            if record.expires != Some(expires) {
                record.expires = Some(expires);
                record.last_hop = seen.unwrap_or(record.last_hop);
            }
        });
    }

    /// The daemon has ended the connection.
    pub fn end(&mut self, key: FlowKey) {
        self.records
            .change(key, |record| record.state = State::Ended);
    }

    /// An expired record's place has been given away.
    pub fn forget(&mut self, key: FlowKey) {
        self.records.remove(key);
    }
}

/// Refuses what goes out behind more headers than there is room for in front of the frame.
fn with_room(input: Input<'_>, fate: Fate, trace: &Trace) -> Way<Fate> {
    match (&fate, trace.service) {
        (Fate::Transmit(frame) | Fate::Redirect(frame), Some(service))
            if !input.has_headroom && frame.len() > input.frame.len() =>
        {
            Err(Stop::refuse(service, Reason::NoHeadroom))
        }
        _ => Ok(fate),
    }
}

#[cfg(test)]
mod tests;
