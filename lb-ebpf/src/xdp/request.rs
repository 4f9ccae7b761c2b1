//! Packets from clients to a service.

use lb_common::{
    flow::{FlowValue, Tick},
    reason::Reason,
    records::{Backend, Service},
    tcp::{Side, State},
};

use super::{
    Stop, clock, collision,
    emit::Way,
    family::{Family, Segment},
    fib,
    frame::Frame,
    last_hop,
    maps::{self, Direction},
    rewrite, select,
    track::{self, Record},
};

/// A backend, and whether this packet begins a connection with it.
struct Chosen {
    index: u16,
    backend: &'static Backend,
    connections: u64,
}

/// Finds or picks the packet's backend and rewrites the packet; the way that it is to go.
#[inline(always)]
pub(crate) fn translate<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    id: u16,
) -> Result<Way, Stop> {
    let drop = |reason| Stop::Drop {
        service: id,
        reason,
    };
    segment.check(frame).map_err(drop)?;
    let service = maps::service(id).ok_or(Stop::Pass)?;
    let key = F::key(segment.source(), segment.tcp.source, id);
    let now = clock::now();
    let chosen = match track::find::<F>(key) {
        Some(record) if !begins_anew::<F>(segment, record.value, now) => {
            follow::<F>(frame, segment, service, record, now)
        }
        record => open::<F>(frame, segment, id, service, key, record, now),
    }
    .map_err(drop)?;
    let hop = match chosen.backend.hop {
        hop if hop.ifindex != 0 => hop,
        _ => fib::lookup::<F>(
            frame,
            segment,
            segment.source(),
            F::address(&chosen.backend.address),
        )
        .ok_or(drop(Reason::NoNextHop))?,
    };
    maps::count_packet(
        chosen.index,
        Direction::In,
        segment.length(),
        chosen.connections,
    );
    rewrite::request(segment, chosen.backend);
    Ok(Way { service: id, hop })
}

/// A packet of a connection that has a record.
#[inline(always)]
fn follow<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    service: &Service,
    record: Record,
    now: Tick,
) -> Result<Chosen, Reason> {
    let index = record.value.backend();
    let backend = maps::backend(index).ok_or(Reason::NoBackend)?;
    let next = record.value.state().after(Side::Client, segment.flags());
    let mut value = record
        .value
        .renewed(next, track::expiry(service, next, now));
    if value != record.value {
        value = last_hop::refresh(frame, value);
        record.update(value);
    }
    Ok(Chosen {
        index,
        backend,
        connections: 0,
    })
}

/// Whether this packet is a SYN that begins a new connection in place of the record's (S-NAT-7).
#[inline(always)]
fn begins_anew<F: Family>(segment: &Segment<'_, F>, value: FlowValue, now: Tick) -> bool {
    if !segment.flags().opens() {
        return false;
    }
    let state = value.state();
    if state.reopens() || value.is_expired(now) {
        return true;
    }
    // A retransmitted SYN leaves a backend that went down while the handshake was under way.
    let backend = maps::backend(value.backend());
    state.is_half_open() && backend.is_none_or(|b| b.flags & Backend::ACCEPTS_NEW == 0)
}

/// A packet that has no record, of a new connection or of one whose record was lost (S-CT-5); or
/// one that begins a new connection in place of its record's.
#[inline(always)]
fn open<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    id: u16,
    service: &Service,
    key: F::Key,
    record: Option<Record>,
    now: Tick,
) -> Result<Chosen, Reason> {
    let flags = segment.flags();
    if flags.syn() && flags.ack() {
        return Err(Reason::UnexpectedSynAck);
    }
    let (index, backend) = select::select::<F>(id, service, key)?;
    collision::clear::<F>(segment, index, backend, now)?;
    let chosen = Chosen {
        index,
        backend,
        connections: u64::from(flags.syn()),
    };
    // There is nothing to remember of a connection that ends here.
    if flags.rst() {
        return Ok(chosen);
    }
    let value = FlowValue::new(
        index,
        last_hop::learn(frame),
        State::SYN_SENT,
        track::expiry(service, State::SYN_SENT, now),
    );
    match record {
        Some(record) => record.update(value.in_generation_of(record.value)),
        None if track::insert::<F>(key, value, now) => {}
        None => {
            if flags.opens() {
                maps::count_reason(id, Reason::Untracked);
            }
            maps::expect_untracked_replies(id, track::expiry(service, State::ESTABLISHED, now));
        }
    }
    Ok(chosen)
}
