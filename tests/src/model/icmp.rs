//! Echo requests to services, and errors about balanced connections: §8.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::BackendRecord,
    model::{BackendIndex, Forwarding},
};

use super::{
    Direction, Fate, FlowKey, Model, Record, Stop, Trace, Way,
    answer::is_one_host,
    config::Service,
    emit::{Hop, emit},
    message::{Message, Quote},
    tunnel::{self, Inner},
};

impl Model {
    pub(super) fn icmp(&mut self, message: &Message<'_>, trace: &mut Trace) -> Way<Fate> {
        if message.is_echo_request() {
            return self.echo(message);
        }
        let quote = message.quote().ok_or(Stop::Pass)?;
        match self.config.service_at(quote.source) {
            Some(service) if message.destination == quote.source.ip() => {
                self.error_to_backend(message, &quote, &service, trace)
            }
            _ => self.error_to_client(message, &quote, trace),
        }
    }

    fn echo(&mut self, message: &Message<'_>) -> Way<Fate> {
        if !self.config.listens_on(message.destination) || !is_one_host(message.source) {
            return Err(Stop::Pass);
        }
        message.check(8).map_err(Stop::refuse_for_nobody)?;
        self.counters.count(None, Reason::EchoAnswered);
        let reply = message.echo_reply();
        Ok(emit(
            message.ifindex,
            &Hop::back(&message.link, message.ifindex),
            message.ipv6,
            &reply,
        ))
    }

    /// From a router on the way to a client, or from the client: its backend is to hear of it.
    fn error_to_backend(
        &mut self,
        message: &Message<'_>,
        quote: &Quote,
        service: &Service,
        trace: &mut Trace,
    ) -> Way<Fate> {
        let refuse = |reason| Stop::refuse(service.id, reason);
        let client = quote.destination;
        let forwarding = service.record.forwarding;
        let record = self.records.find(FlowKey::new(service.id, client));
        let recorded = record.map(|record| record.backend);
        let index = recorded
            .filter(|index| self.backend_of(service, *index).is_some())
            .or_else(|| match forwarding {
                Forwarding::FullNat => None,
                _ => self.owner(service, client),
            })
            .ok_or_else(|| refuse(Reason::IcmpUnmatched))?;
        let backend = self.backend_of(service, index).cloned();
        let backend = backend.ok_or_else(|| refuse(Reason::IcmpUnmatched))?;
        message.check(quote.reach()).map_err(refuse)?;
        if forwarding != Forwarding::Dsr && message.hops <= 1 {
            return Err(refuse(Reason::TtlExpired));
        }
        if backend.next_hop.is_none() && !forwarding.is_tunnel() {
            return Err(refuse(Reason::NoNextHop));
        }
        if backend.max_packet != 0 && message.length > usize::from(backend.max_packet) {
            return Err(refuse(Reason::TooBig));
        }
        let mut inside = *quote;
        let (mut source, mut destination) = (message.source, message.destination);
        if forwarding.sees_replies() {
            destination = backend.address.ip();
            inside.source = backend.address;
        }
        if let Some(snat) = record.and_then(|record| record.snat) {
            inside.destination = snat;
            if source == client.ip() {
                source = snat.ip();
            }
        }
        self.counters
            .count(Some(service.id), Reason::IcmpTranslated);
        let hop = backend.next_hop.as_ref().map(Hop::next);
        let hop = hop.ok_or_else(|| refuse(Reason::NoNextHop))?;
        trace.service = Some(service.id);
        trace.translated = Some((forwarding, Direction::ToBackend));
        let packet = match forwarding {
            Forwarding::Dsr => message.packet.to_vec(),
            _ => message.rewritten(source, destination, quote, &inside),
        };
        if !forwarding.is_tunnel() {
            return Ok(emit(message.ifindex, &hop, message.ipv6, &packet));
        }
        let inner = Inner {
            ipv6: message.ipv6,
            length: message.length,
            traffic_class: message.traffic_class(),
            error: Some(message.checksum_error()),
        };
        let hash = self.keys.flow(service.id, client);
        let to = backend.address.ip();
        let packet = tunnel::wrap(&inner, &packet, &service.record, to, hash);
        Ok(emit(message.ifindex, &hop, to.is_ipv6(), &packet))
    }

    /// From a router on the way to a backend, or from the backend: the client is to hear of it.
    fn error_to_client(
        &mut self,
        message: &Message<'_>,
        quote: &Quote,
        trace: &mut Trace,
    ) -> Way<Fate> {
        let owner = self.quoted_owner(message, quote);
        let (backend, client, record) = owner.ok_or(Stop::Pass)?;
        // Without a record it may be about a packet of the host's own.
        let refuse = |reason| match record {
            Some(_) => Stop::refuse(backend.service, reason),
            None => Stop::Pass,
        };
        message.check(quote.reach()).map_err(refuse)?;
        if message.hops <= 1 {
            return Err(refuse(Reason::TtlExpired));
        }
        let hop = record.map(|record| Hop::last(&record.last_hop));
        let hop = hop.ok_or_else(|| refuse(Reason::NoNextHop))?;
        let inside = Quote {
            source: client,
            destination: backend.listen,
            ..*quote
        };
        let source = if message.source == backend.address.ip() {
            backend.listen.ip()
        } else {
            message.source
        };
        let service = backend.service;
        self.counters.count(Some(service), Reason::IcmpTranslated);
        trace.service = Some(service);
        trace.translated = Some((backend.forwarding, Direction::ToClient));
        let packet = message.rewritten(source, client.ip(), quote, &inside);
        Ok(emit(message.ifindex, &hop, message.ipv6, &packet))
    }

    /// The backend that the quoted packet was sent to, the client that it is of, and the record of
    /// their connection if there is one.
    fn quoted_owner(
        &self,
        message: &Message<'_>,
        quote: &Quote,
    ) -> Option<(BackendRecord, SocketAddr, Option<Record>)> {
        if message.destination != quote.source.ip() {
            return None;
        }
        let chain = self.config.chain(quote.destination);
        let recorded = |key: FlowKey, record: &Record| {
            let mut backends = chain.iter();
            let of = backends.find(|(index, _)| *index == record.backend)?;
            Some(of.1.clone()).filter(|backend| backend.service == key.service)
        };
        if let Some((key, record)) = self.records.sent_from(quote.source) {
            return Some((recorded(key, &record)?, key.client, Some(record)));
        }
        let nat = |backend: &BackendRecord| backend.forwarding == Forwarding::Nat;
        for (index, backend) in chain.iter().filter(|(_, backend)| nat(backend)) {
            let key = FlowKey::new(backend.service, quote.source);
            let record = self.records.find(key);
            if let Some(record) = record.filter(|record| record.backend == *index) {
                return Some((backend.clone(), quote.source, Some(record)));
            }
        }
        let owned = |(index, backend): &&(BackendIndex, BackendRecord)| {
            let service = self.config.service(backend.service);
            nat(backend)
                && service.is_some_and(|service| self.owner(&service, quote.source) == Some(*index))
        };
        let (_, backend) = chain.iter().find(owned)?;
        Some((backend.clone(), quote.source, None))
    }
}
