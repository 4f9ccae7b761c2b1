//! A packet from a backend to a client: §6.

use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::BackendRecord,
    model::{BackendIndex, Forwarding},
};

use super::{
    Direction, Fate, FlowKey, Model, Record, Stop, Trace, Way,
    answer::Answer,
    emit::{Hop, emit},
    rewrite::Rewrite,
    segment::Segment,
    state::{Sender, State},
};

impl Model {
    pub(super) fn reply(&mut self, segment: &Segment<'_>, trace: &mut Trace) -> Way<Fate> {
        for (index, backend) in self.config.chain(segment.source) {
            let Some((key, record)) = self.replied_to(segment, index, &backend, trace) else {
                continue;
            };
            let answers_a_syn = segment.flags.syn() && segment.flags.ack();
            let closed = matches!(record.state, State::Closing | State::TimeWait);
            if backend.forwarding == Forwarding::Nat && closed && answers_a_syn {
                self.records.remove(key);
                continue;
            }
            return self.reply_of(segment, key, &record, index, &backend, trace);
        }
        Err(Stop::Pass)
    }

    /// The connection that a packet of this very backend belongs to.
    fn replied_to(
        &self,
        segment: &Segment<'_>,
        index: BackendIndex,
        backend: &BackendRecord,
        trace: &mut Trace,
    ) -> Option<(FlowKey, Record)> {
        let (key, record) = match backend.forwarding {
            Forwarding::Nat => {
                let key = FlowKey::new(backend.service, segment.destination);
                trace.flows.push(key);
                (key, self.records.find(key)?)
            }
            Forwarding::FullNat => {
                let (key, record) = self.records.sent_from(segment.destination)?;
                trace.flows.push(key);
                (key, record)
            }
            _ => return None,
        };
        let is_its = key.service == backend.service && record.backend == index;
        is_its.then_some((key, record))
    }

    fn reply_of(
        &mut self,
        segment: &Segment<'_>,
        key: FlowKey,
        record: &Record,
        index: BackendIndex,
        backend: &BackendRecord,
        trace: &mut Trace,
    ) -> Way<Fate> {
        let refuse = |reason| Stop::refuse(key.service, reason);
        segment.check(true).map_err(refuse)?;
        if record.state == State::Ended {
            let service = Some(key.service);
            return Err(Stop::Refuse(service, Reason::Ended, Answer::Reset));
        }
        let state = record.state.after(Sender::Backend, segment.flags);
        self.records.renew(key, state);
        trace.renewed = Some(key);
        trace.service = Some(key.service);
        trace.forwarded = Some((backend.forwarding, Direction::ToClient));
        self.counters.reply(index, segment);
        let packet = Rewrite::new(segment)
            .source(backend.listen)
            .destination(key.client)
            .hop()
            .clamp(backend.max_packet)
            .finish();
        let hop = Hop::last(&record.last_hop);
        Ok(emit(segment.ifindex, &hop, segment.ipv6, &packet))
    }
}
