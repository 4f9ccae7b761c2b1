//! Handshakes, and packets whose connection has no record: everything that may make one.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    flow::{FlowValue, Tick},
    reason::Reason,
    records::{Backend, Slot},
    tcp::{Flags, State},
};

use super::{
    Stop, clock,
    errand::Errand,
    family::{Family, Parsed, Segment},
    frame::Frame,
    last_hop, maps, reply,
    request::{self, Chosen, Target, follow},
    select,
    track::{self, Record},
};

/// Goes on with a packet of which the program before this one knows whose it is.
#[inline(always)]
pub(crate) fn balance<F: Family>(ctx: &XdpContext) -> Result<u32, Stop> {
    let errand = maps::errand().ok_or(Stop::Pass)?;
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    let Parsed::Segment(mut segment) = F::parse(&frame) else {
        return Err(Stop::Pass);
    };
    if errand.service != 0 {
        from_client::<F>(&frame, &mut segment, errand)
    } else {
        reply::open(&frame, &mut segment, errand.backend)
    }
}

#[inline(always)]
fn from_client<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    errand: &Errand,
) -> Result<u32, Stop> {
    let (id, hash, cleared) = (errand.service, errand.hash, errand.backend);
    let service = maps::service(id).ok_or(Stop::Pass)?;
    let target = Target { id, service };
    target.check(frame, segment)?;
    let key = F::key(segment.source(), segment.tcp.source, id);
    let now = clock::now();
    // Slot and record are most often in nobody's cache: both are asked for before either is looked
    // at, so that the CPU fetches them at the same time.
    let slot = select::slot::<F>(id, service, key);
    let (chosen, new) = match track::find::<F>(key, hash) {
        Some(record) if !begins_anew::<F>(segment, target, record.value, now) => {
            let chosen = follow::<F>(frame, segment, target, record, now)?;
            (chosen, NOTHING)
        }
        record => open(frame, segment, target, slot, record, cleared, now)?,
    };
    let flags = segment.flags();
    let ready = request::prepare(frame, segment, target, hash, &chosen, true, None)?;
    let verdict = request::send(frame, id, ready);
    // Last, because whatever comes behind the swap of a record has to wait for its line to arrive.
    if new != NOTHING {
        remember::<F>(target, flags, key, hash, new, now);
    }
    verdict
}

/// Whether this packet is a SYN that begins a new connection in place of the record's (S-NAT-7).
#[inline(always)]
pub(crate) fn begins_anew<F: Family>(
    segment: &Segment<'_, F>,
    target: Target,
    value: FlowValue,
    now: Tick,
) -> bool {
    if !segment.flags().opens() {
        return false;
    }
    let state = value.state();
    let closed = if target.is_one_way() {
        state.reopens_alone()
    } else {
        state.reopens()
    };
    if closed || value.is_expired(now) {
        return true;
    }
    // A retransmitted SYN leaves a backend that went down while the handshake was under way.
    let backend = maps::backend(value.backend());
    state.is_half_open() && backend.is_none_or(|b| b.flags & Backend::ACCEPTS_NEW == 0)
}

/// Of a connection that needs no new record.
const NOTHING: FlowValue = FlowValue::from_bits(0);

/// A packet that has no record, of a new connection or of one whose record was lost (S-CT-5); or
/// one that begins a new connection in place of its record's. Whom it goes to, and what is to be
/// remembered. With the backend `cleared` the sender is known to have no other connection.
#[inline(always)]
fn open<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    target: Target,
    slot: Option<Slot>,
    record: Option<Record>,
    cleared: u16,
    now: Tick,
) -> Result<(Chosen, FlowValue), Stop> {
    let flags = segment.flags();
    if flags.syn() && flags.ack() {
        return Err(target.drop(Reason::UnexpectedSynAck));
    }
    let (index, backend) = select::owner(slot).ok_or_else(|| target.unserved(Reason::NoBackend))?;
    let may_have_rivals = !target.is_one_way() && backend.flags & Backend::SHARES_ADDRESS != 0;
    if may_have_rivals && cleared != index {
        maps::leave_errand(|errand| errand.backend = index);
        return Err(Stop::Continue(F::RIVALS));
    }
    let chosen = Chosen {
        index,
        backend,
        connections: u64::from(flags.syn()),
    };
    // There is nothing to remember of a connection that ends here.
    if flags.rst() {
        return Ok((chosen, NOTHING));
    }
    let value = FlowValue::new(
        index,
        last_hop::learn(frame),
        State::SYN_SENT,
        track::expiry(target.service, State::SYN_SENT, now),
    );
    let Some(record) = record else {
        return Ok((chosen, value));
    };
    record.update(value.in_generation_of(record.value));
    Ok((chosen, NOTHING))
}

/// Makes a record, unless this is one SYN of too many, or there is no room.
#[inline(always)]
fn remember<F: Family>(
    target: Target,
    flags: Flags,
    key: F::Key,
    hash: u64,
    value: FlowValue,
    now: Tick,
) {
    let Target { id, service } = target;
    let unrecorded = match flags.opens() && is_flood(now) {
        true => Some(Reason::FloodUnrecorded),
        false if track::insert::<F>(key, hash, value, now) => None,
        false => Some(Reason::Untracked),
    };
    if let Some(reason) = unrecorded {
        if flags.opens() {
            maps::count_reason(id, reason);
        }
        if !target.is_one_way() {
            maps::expect_untracked_replies(id, track::expiry(service, State::ESTABLISHED, now));
        }
    }
}

/// Counts a SYN that would make a record; whether this CPU sees too many of them, and shall not
/// spend inserts and room in the table on them (S-CT-1).
#[inline(always)]
fn is_flood(now: Tick) -> bool {
    match (maps::flood_meter(), maps::settings()) {
        (Some(meter), Some(settings)) => meter.count(now, settings.flood_limit),
        _ => false,
    }
}
