//! Packets from backends to clients.

use lb_common::{
    flow::{FlowValue, Tick},
    reason::Reason,
    records::{Backend, MAX_SHARED_ENDPOINT, Service},
    tcp::{Side, State},
};

use super::{
    Stop, clock,
    emit::Way,
    family::{Family, Segment},
    fib,
    frame::Frame,
    maps::{self, Direction},
    rewrite, select,
    track::{self, Record},
};

/// Finds the connection that the packet replies to and rewrites the packet; the way that it is to go.
///
/// A backend's address may stand in several services, each with a record of its own: the chain of
/// [`Backend::next_with_same_address`] leads through them. A packet of no connection of ours (the
/// answer to a health check, or to somebody who reaches the backend directly) passes untouched.
#[inline(always)]
pub(crate) fn translate<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    first: u16,
) -> Result<Way, Stop> {
    let mut index = first;
    for _ in 0..MAX_SHARED_ENDPOINT {
        let Some(backend) = maps::backend(index) else {
            break;
        };
        let key = F::key(
            segment.destination(),
            segment.tcp.destination,
            backend.service,
        );
        if let Some(record) = track::find::<F>(key)
            && record.value.backend() == index
        {
            if !record.value.state().is_succeeded(segment.flags()) {
                return follow::<F>(frame, segment, index, backend, record);
            }
            // The client speaks with the backend itself now, and is to see the backend's address.
            record.update(record.value.with_state(State::FREE));
        }
        index = backend.next_with_same_address;
    }
    untracked::<F>(frame, segment, first)
}

#[inline(always)]
fn follow<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    index: u16,
    backend: &Backend,
    record: Record,
) -> Result<Way, Stop> {
    let drop = |reason| Stop::Drop {
        service: backend.service,
        reason,
    };
    segment.check(frame).map_err(drop)?;
    let service = maps::service(backend.service).ok_or(Stop::Pass)?;
    let hop = match maps::last_hop(record.value.last_hop()) {
        Some(hop) => *hop,
        None => fib::lookup::<F>(
            frame,
            segment,
            F::address(&service.address),
            segment.destination(),
        )
        .ok_or(drop(Reason::NoNextHop))?,
    };
    renew(service, segment, record, clock::now());
    maps::count_packet(index, Direction::Out, segment.length(), 0);
    rewrite::reply(segment, service, backend);
    Ok(Way {
        service: backend.service,
        hop,
    })
}

#[inline(always)]
fn renew<F: Family>(service: &Service, segment: &Segment<'_, F>, record: Record, now: Tick) {
    let next = record.value.state().after(Side::Backend, segment.flags());
    let value: FlowValue = record
        .value
        .renewed(next, track::expiry(service, next, now));
    record.update(value);
}

/// A reply without a record: while connections have recently found no place in the table, it may
/// belong to one of them. It does if the client is somewhere else than on this host and its slot
/// is this backend's.
#[inline(always)]
fn untracked<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    first: u16,
) -> Result<Way, Stop> {
    let (index, backend, service) = owner::<F>(segment, first).ok_or(Stop::Pass)?;
    segment.check(frame).map_err(|_| Stop::Pass)?;
    let hop = fib::lookup::<F>(
        frame,
        segment,
        F::address(&service.address),
        segment.destination(),
    )
    .ok_or(Stop::Pass)?;
    maps::count_reason(backend.service, Reason::UntrackedReply);
    maps::count_packet(index, Direction::Out, segment.length(), 0);
    rewrite::reply(segment, service, backend);
    Ok(Way {
        service: backend.service,
        hop,
    })
}

/// The first backend with this address and port, from `first` on, whose slot the client falls on
/// in a service that has untracked connections.
#[inline(always)]
fn owner<F: Family>(
    segment: &Segment<'_, F>,
    first: u16,
) -> Option<(u16, &'static Backend, &'static Service)> {
    let now = clock::now();
    let mut index = first;
    for _ in 0..MAX_SHARED_ENDPOINT {
        let backend = maps::backend(index)?;
        let service = maps::service(backend.service)?;
        let until = service.untracked_until;
        if until != 0 && !Tick::new(until).is_before(now) {
            let key = F::key(
                segment.destination(),
                segment.tcp.destination,
                backend.service,
            );
            let owner = select::select::<F>(backend.service, service, key);
            if matches!(owner, Ok((owner, _)) if owner == index) {
                return Some((index, backend, service));
            }
        }
        index = backend.next_with_same_address;
    }
    None
}
