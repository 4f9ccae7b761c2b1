//! Packets from backends to clients.

use lb_common::{
    flow::{FlowValue, Tick},
    reason::Reason,
    records::{Answer, Backend, Hop, MAX_SHARED_ENDPOINT, Service},
    tcp::{Side, State},
};

use super::{
    Stop, clock,
    emit::{Way, emit},
    family::{Family, Segment},
    fib,
    frame::Frame,
    full_nat,
    maps::{self, Direction},
    mss, rewrite, select,
    track::{self, Record},
};

/// Finds the connection that the packet replies to, rewrites the packet and sends it.
///
/// A backend's address may stand in several services, each with a record of its own: the chain of
/// [`Backend::next_with_same_address`] leads through them. A packet of no connection of ours (the
/// answer to a health check, or to somebody who reaches the backend directly) passes untouched.
#[inline(always)]
pub(crate) fn forward<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    first: u16,
) -> Result<u32, Stop> {
    if !segment.flags().syn() {
        for (index, backend) in chain(first) {
            if let Some(record) = find::<F>(segment, index, backend)? {
                return follow::<F>(frame, segment, index, backend, record, false);
            }
        }
    }
    maps::leave_errand(|errand| {
        errand.service = 0;
        errand.backend = first;
    });
    Err(Stop::Continue(F::OPEN))
}

/// The same for segments with SYN, and for those without a record.
#[inline(always)]
pub(crate) fn open<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    first: u16,
) -> Result<u32, Stop> {
    for (index, backend) in chain(first) {
        if let Some(record) = find::<F>(segment, index, backend)? {
            if !record.value.state().is_succeeded(segment.flags()) {
                return follow::<F>(frame, segment, index, backend, record, true);
            }
            // The client speaks with the backend itself now, and is to see the backend's address.
            record.update(record.value.with_state(State::FREE));
        }
    }
    untracked::<F>(frame, segment, first)
}

/// The backends that share an address, from `first` on.
#[inline(always)]
pub(crate) fn chain(first: u16) -> impl Iterator<Item = (u16, &'static Backend)> {
    let mut index = first;
    (0..MAX_SHARED_ENDPOINT).map_while(move |_| {
        let backend = maps::backend(index)?;
        let this = index;
        index = backend.next_with_same_address;
        Some((this, backend))
    })
}

/// The record of the client's connection with this very backend.
#[inline(always)]
fn find<F: Family>(
    segment: &Segment<'_, F>,
    index: u16,
    backend: &Backend,
) -> Result<Option<Record>, Stop> {
    if backend.flags & Backend::FULL_NAT != 0 {
        if !full_nat::is_reply::<F>(segment, index, backend) {
            return Ok(None);
        }
        maps::leave_errand(|errand| errand.service = 0);
        return Err(Stop::Continue(F::FULL_NAT));
    }
    let key = F::key(
        segment.destination(),
        segment.tcp.destination,
        backend.service,
    );
    let record = track::find::<F>(key, F::hash(key));
    Ok(record.filter(|record| record.value.backend() == index))
}

#[inline(always)]
fn follow<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    index: u16,
    backend: &Backend,
    record: Record,
    clamps: bool,
) -> Result<u32, Stop> {
    let (service, hop) = accept(frame, segment, backend, record, segment.destination())?;
    send(frame, segment, index, backend, service, hop, clamps)
}

/// Everything that keeps a reply from being forwarded, and what it tells of its connection. The
/// service that it is from, and the way to its client.
#[inline(always)]
pub(crate) fn accept<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    backend: &Backend,
    record: Record,
    client: F::Address,
) -> Result<(&'static Service, Hop), Stop> {
    let drop = |reason| Stop::drop(backend.service, reason);
    segment.check(frame).map_err(drop)?;
    segment.check_hops().map_err(drop)?;
    if record.value.state() == State::ENDED {
        return Err(Stop::answer(backend.service, Reason::Ended, Answer::Rst));
    }
    let service = maps::service(backend.service).ok_or(Stop::Pass)?;
    let hop = match maps::last_hop(record.value.last_hop()) {
        Some(hop) => *hop,
        None => fib::lookup::<F>(
            frame,
            segment.length(),
            F::address(&service.address),
            client,
        )
        .ok_or(drop(Reason::NoNextHop))?,
    };
    renew(service, segment, record, clock::now());
    Ok((service, hop))
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
) -> Result<u32, Stop> {
    let (index, backend, service) = owner::<F>(segment, first).ok_or(Stop::Pass)?;
    segment.check(frame).map_err(|_| Stop::Pass)?;
    segment.check_hops().map_err(|_| Stop::Pass)?;
    let hop = fib::lookup::<F>(
        frame,
        segment.length(),
        F::address(&service.address),
        segment.destination(),
    )
    .ok_or(Stop::Pass)?;
    maps::count_reason(backend.service, Reason::UntrackedReply);
    send(frame, segment, index, backend, service, hop, true)
}

/// Sends a reply to its client; where `clamps`, with its MSS clamped. Before this, nothing has
/// been changed.
#[inline(always)]
pub(crate) fn send<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    index: u16,
    backend: &Backend,
    service: &Service,
    hop: Hop,
    clamps: bool,
) -> Result<u32, Stop> {
    let id = backend.service;
    maps::count_packet(index, Direction::Out, segment.length(), 0);
    let mss = match clamps {
        true => mss::clamp(segment, backend),
        false => None,
    };
    rewrite::reply(segment, service, backend);
    match mss {
        Some(limit) => Err(mss::search_later(id, &hop, limit, false)),
        None => emit(frame, Way { service: id, hop }),
    }
}

/// The first backend with this address and port, from `first` on, whose slot the client falls on
/// in a service that has untracked connections.
#[inline(always)]
fn owner<F: Family>(
    segment: &Segment<'_, F>,
    first: u16,
) -> Option<(u16, &'static Backend, &'static Service)> {
    let now = clock::now();
    for (index, backend) in chain(first) {
        let service = maps::service(backend.service)?;
        let until = service.untracked_until;
        if until != 0 && !Tick::new(until).is_before(now) {
            let key = F::key(
                segment.destination(),
                segment.tcp.destination,
                backend.service,
            );
            let owner = select::select::<F>(backend.service, service, key);
            if matches!(owner, Some((owner, _)) if owner == index) {
                return Some((index, backend, service));
            }
        }
    }
    None
}
