//! Packets from clients to a service.

use lb_common::{
    flow::{FlowValue, Tick},
    reason::Reason,
    tcp::State,
};

use crate::xdp::{
    Stop, clock,
    family::{Family, Segment},
    frame::Frame,
    last_hop, maps, open,
    request::{self, Chosen, Target},
    select,
    snat::{self, Endpoint, Lease},
    track,
};

#[inline(always)]
pub(super) fn forward<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    id: u16,
) -> Result<u32, Stop> {
    let service = maps::service(id).ok_or(Stop::Pass)?;
    let target = Target { id, service };
    target.check(frame, segment)?;
    let now = clock::now();
    let key = F::key(segment.source(), segment.tcp.source, id);
    let hash = F::hash(key);
    let pool = maps::snat_pool(id).ok_or(Stop::Pass)?;
    let (chosen, source) = match snat::find_by_client::<F>(pool, key, hash) {
        Some(lease) if !open::begins_anew::<F>(segment, target, lease.record.value, now) => {
            let chosen = request::follow::<F>(frame, segment, target, lease.record, now)?;
            (chosen, lease.source)
        }
        lease => begin::<F>(frame, segment, target, key, hash, lease, now)?,
    };
    let ready = request::prepare(frame, segment, target, hash, &chosen, true, Some(source))?;
    request::send(frame, id, ready)
}

/// A packet that has no record, or one that begins a new connection in place of its record's,
/// from the same port.
#[inline(always)]
fn begin<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    target: Target,
    key: F::Key,
    hash: u64,
    lease: Option<Lease<F>>,
    now: Tick,
) -> Result<(Chosen, Endpoint<F>), Stop> {
    let Target { id, service } = target;
    let flags = segment.flags();
    if flags.syn() && flags.ack() {
        return Err(target.drop(Reason::UnexpectedSynAck));
    }
    // Whichever connection it ends, no backend knows it by a port that would be new.
    if flags.rst() {
        return Err(target.drop(Reason::NoBackend));
    }
    let (index, backend) =
        select::select::<F>(id, service, key).ok_or_else(|| target.unserved(Reason::NoBackend))?;
    let chosen = Chosen {
        index,
        backend,
        connections: u64::from(flags.syn()),
    };
    let value = FlowValue::new(
        index,
        last_hop::learn(frame),
        State::SYN_SENT,
        track::expiry(service, State::SYN_SENT, now),
    );
    if let Some(Lease { record, source }) = lease
        && record.update(value.in_generation_of(record.value))
    {
        return Ok((chosen, source));
    }
    let pool = maps::snat_pool(id).ok_or(Stop::Pass)?;
    match snat::lease::<F>(pool, key, hash, value, now) {
        Some(source) => Ok((chosen, source)),
        None => Err(target.unserved(Reason::SnatExhausted)),
    }
}
