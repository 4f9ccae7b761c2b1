//! A packet from a client to a service: §5.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::BackendRecord,
    model::{BackendIndex, Forwarding},
};

use super::{
    Direction, Fate, FlowKey, Model, Record, Source, Stop, Trace, Way,
    answer::Answer,
    config::Service,
    emit::{Hop, emit},
    records::LastHop,
    rewrite::{Rewrite, tcp_error},
    segment::Segment,
    state::{Sender, State},
    tunnel::{self, Inner},
};

/// With the service's own answer.
fn no_backend(service: &Service) -> Stop {
    let answer = service.record.no_backend.into();
    Stop::Refuse(Some(service.id), Reason::NoBackend, answer)
}

/// Whether a backend can be sent a packet.
fn admit(segment: &Segment<'_>, service: &Service, backend: &BackendRecord) -> Way<()> {
    if backend.next_hop.is_none() && !service.record.forwarding.is_tunnel() {
        return Err(Stop::refuse(service.id, Reason::NoNextHop));
    }
    if backend.max_packet != 0 && segment.length > usize::from(backend.max_packet) {
        let answer = Answer::TooBig(backend.max_packet);
        return Err(Stop::Refuse(Some(service.id), Reason::TooBig, answer));
    }
    Ok(())
}

impl Model {
    pub(super) fn request(
        &mut self,
        segment: &Segment<'_>,
        service: &Service,
        source: Source<'_>,
        trace: &mut Trace,
    ) -> Way<Fate> {
        let forwarding = service.record.forwarding;
        let refuse = |reason| Stop::refuse(service.id, reason);
        segment
            .check(forwarding != Forwarding::Dsr)
            .map_err(refuse)?;
        let key = FlowKey::new(service.id, segment.source);
        let found = self
            .records
            .find(key)
            .filter(|record| !self.begins_anew(segment, service, record));
        let index = match found {
            Some(record) => self.follow(segment, service, key, record, trace)?,
            None => self.open(segment, service, key, source, trace)?,
        };
        let Some(backend) = self.config.backend(index).cloned() else {
            return Err(no_backend(service));
        };
        admit(segment, service, &backend)?;
        self.counters.request(index, segment);
        if found.is_none() && segment.flags.syn() {
            self.counters.connection(index);
        }
        let Some(next_hop) = &backend.next_hop else {
            return Err(refuse(Reason::NoNextHop));
        };
        trace.service = Some(service.id);
        trace.forwarded = Some((forwarding, Direction::ToBackend));
        let snat = self.records.find(key).and_then(|record| record.snat);
        let packet = self.to_backend(segment, service, &backend, snat);
        let ipv6 = match forwarding {
            Forwarding::Ipip | Forwarding::Gue => backend.address.is_ipv6(),
            _ => segment.ipv6,
        };
        let hop = Hop::next(next_hop);
        Ok(emit(segment.ifindex, &hop, ipv6, &packet))
    }

    /// Whether a packet on this record is a SYN of a new connection.
    fn begins_anew(&self, segment: &Segment<'_>, service: &Service, record: &Record) -> bool {
        let refuses_new = || {
            let backend = self.backend_of(service, record.backend);
            !backend.is_some_and(|backend| backend.accepts_new)
        };
        let closed_by_lone_client = || {
            let closed = matches!(record.state, State::FinWaitClient | State::Reset);
            closed && !service.record.forwarding.sees_replies()
        };
        segment.flags.opens()
            && (record.is_over()
                || (record.state.is_half_open() && refuses_new())
                || closed_by_lone_client())
    }

    /// Whose the client's slot is.
    pub(super) fn owner(&self, service: &Service, client: SocketAddr) -> Option<BackendIndex> {
        let listen = service.record.listen;
        let slot = self.keys.slot(listen, client, service.slots.len());
        service.slots.get(slot)?.primary
    }

    pub(super) fn backend_of(
        &self,
        service: &Service,
        index: BackendIndex,
    ) -> Option<&BackendRecord> {
        let backend = self.config.backend(index);
        backend.filter(|backend| backend.service == service.id)
    }

    fn follow(
        &mut self,
        segment: &Segment<'_>,
        service: &Service,
        key: FlowKey,
        record: Record,
        trace: &mut Trace,
    ) -> Way<BackendIndex> {
        if self.backend_of(service, record.backend).is_none() {
            return Err(no_backend(service));
        }
        if record.state == State::Ended {
            return Err(Stop::Refuse(Some(service.id), Reason::Ended, Answer::Reset));
        }
        let sender = if service.record.forwarding.sees_replies() {
            Sender::Client
        } else {
            Sender::LoneClient
        };
        self.records
            .renew(key, record.state.after(sender, segment.flags));
        self.records.change(key, |record| {
            record.seen = Some(LastHop::of(segment));
        });
        trace.renewed = Some(key);
        Ok(record.backend)
    }

    /// Chooses a backend, and makes a record of it.
    fn open(
        &mut self,
        segment: &Segment<'_>,
        service: &Service,
        key: FlowKey,
        source: Source<'_>,
        trace: &mut Trace,
    ) -> Way<BackendIndex> {
        let refuse = |reason| Err(Stop::refuse(service.id, reason));
        if segment.flags.syn() && segment.flags.ack() {
            return refuse(Reason::UnexpectedSynAck);
        }
        let full_nat = service.record.forwarding == Forwarding::FullNat;
        if full_nat && segment.flags.rst() {
            return refuse(Reason::NoBackend);
        }
        let owner = self.owner(service, segment.source);
        let Some((index, backend)) =
            owner.and_then(|index| Some((index, self.backend_of(service, index)?.clone())))
        else {
            return Err(no_backend(service));
        };
        if service.record.forwarding == Forwarding::Nat && backend.shares_address {
            for (other, record) in self.config.chain(backend.address) {
                if record.service == service.id || record.forwarding != Forwarding::Nat {
                    continue;
                }
                let rival = FlowKey::new(record.service, segment.source);
                trace.flows.push(rival);
                match self.records.find(rival) {
                    Some(found) if found.backend != other => {}
                    Some(found) if found.is_over() => self.records.remove(rival),
                    Some(_) => return refuse(Reason::TupleCollision),
                    None => {}
                }
            }
        }
        // A record that is made anew is that of a packet which has got through.
        let is_made = full_nat
            || self.records.find(key).is_some()
            || admit(segment, service, &backend).is_ok();
        if is_made && !segment.flags.rst() {
            let snat = match self.records.find(key) {
                Some(record) => record.snat,
                None if full_nat => {
                    let chosen = self.new_source(service, key, source, trace);
                    Some(chosen.ok_or_else(|| {
                        let answer = service.record.no_backend.into();
                        Stop::Refuse(Some(service.id), Reason::SnatExhausted, answer)
                    })?)
                }
                None => None,
            };
            let record = Record {
                state: State::SynSent,
                backend: index,
                snat,
                last_hop: LastHop::of(segment),
                seen: None,
                expires: None,
                expired: false,
            };
            self.records.put(key, record);
            trace.made = Some(key);
            trace.renewed = Some(key);
        }
        Ok(index)
    }

    /// The packet as it goes out.
    fn to_backend(
        &self,
        segment: &Segment<'_>,
        service: &Service,
        backend: &BackendRecord,
        snat: Option<SocketAddr>,
    ) -> Vec<u8> {
        let clamped = || Rewrite::new(segment).hop().clamp(backend.max_packet);
        match service.record.forwarding {
            Forwarding::Dsr => segment.packet.to_vec(),
            Forwarding::Nat | Forwarding::FullNat => clamped()
                .destination(backend.address)
                .source(snat.unwrap_or(segment.source))
                .finish(),
            Forwarding::Ipip | Forwarding::Gue => {
                let hash = self.keys.flow(service.id, segment.source);
                let packet = clamped().finish();
                let error = tcp_error(&packet, segment.ipv6, segment.tcp, segment.length);
                let inner = Inner {
                    ipv6: segment.ipv6,
                    length: segment.length,
                    traffic_class: segment.traffic_class(),
                    error: (!segment.has_extension_headers()).then_some(error),
                };
                let to = backend.address.ip();
                tunnel::wrap(&inner, &packet, &service.record, to, hash)
            }
        }
    }
}
