//! Packets from clients to a service.

use lb_common::{
    flow::Tick,
    reason::Reason,
    records::{Answer, Backend, Hop, Service, forwarding},
    tcp::{Side, State},
};

use super::{
    Program, Refusal, Stop, clock,
    emit::{Way, emit},
    family::{Family, Segment},
    fib,
    frame::Frame,
    last_hop,
    maps::{self, Direction},
    mss, rewrite,
    snat::Endpoint,
    track::{self, Record},
    tunnel,
};

/// A backend, and whether this packet begins a connection with it.
pub(crate) struct Chosen {
    pub(crate) index: u16,
    pub(crate) backend: &'static Backend,
    pub(crate) connections: u64,
}

/// A service's record, and how it is forwarded.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) id: u16,
    pub(crate) service: &'static Service,
}

impl Target {
    #[inline(always)]
    pub(crate) fn drop(self, reason: Reason) -> Stop {
        Stop::drop(self.id, reason)
    }

    /// Nobody can take the packet, for this reason: its sender is told so (S-CT-7).
    #[inline(always)]
    pub(crate) fn unserved(self, reason: Reason) -> Stop {
        let answer = Answer::from_bits(self.service.no_backend_answer);
        Stop::answer(self.id, reason, answer)
    }

    /// The load balancer sees nothing of what the backend answers.
    #[inline(always)]
    pub(crate) fn is_one_way(self) -> bool {
        forwarding::sees_one_direction(self.service.forwarding)
    }

    /// Everything that keeps a packet from being forwarded, whatever its connection.
    #[inline(always)]
    pub(crate) fn check<F: Family>(
        self,
        frame: &Frame<'_>,
        segment: &Segment<'_, F>,
    ) -> Result<(), Stop> {
        segment.check(frame).map_err(|reason| self.drop(reason))?;
        if self.service.forwarding == forwarding::DSR {
            return Ok(());
        }
        segment.check_hops().map_err(|reason| self.drop(reason))
    }
}

/// Sends a packet of a connection that has a record; everything else is for [`super::open`].
#[inline(always)]
pub(crate) fn forward<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    id: u16,
) -> Result<u32, Stop> {
    let service = maps::service(id).ok_or(Stop::Pass)?;
    if service.forwarding == forwarding::FULL_NAT {
        maps::leave_errand(|errand| errand.service = id);
        return Err(Stop::Continue(F::FULL_NAT));
    }
    let target = Target { id, service };
    let key = F::key(segment.source(), segment.tcp.source, id);
    let hash = F::hash(key);
    let open = || {
        maps::leave_errand(|errand| {
            errand.service = id;
            errand.backend = 0;
            errand.hash = hash;
        });
        Err(Stop::Continue(F::OPEN))
    };
    if segment.flags().syn() {
        track::request::<F>(hash);
        return open();
    }
    target.check(frame, segment)?;
    let Some(record) = track::find::<F>(key, hash) else {
        return open();
    };
    let chosen = follow::<F>(frame, segment, target, record, clock::now())?;
    if !forwarding::is_tunnel(service.forwarding) {
        let ready = prepare(frame, segment, target, hash, &chosen, false, None)?;
        return send(frame, id, ready);
    }
    admit(segment, target, &chosen)?;
    tunnel::send::<F>(frame, target, chosen.backend, hash)
}

/// A packet of a connection that has a record.
#[inline(always)]
pub(crate) fn follow<F: Family>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    target: Target,
    record: Record,
    now: Tick,
) -> Result<Chosen, Stop> {
    let index = record.value.backend();
    let backend = maps::backend(index).ok_or_else(|| target.unserved(Reason::NoBackend))?;
    let state = record.value.state();
    if state == State::ENDED {
        return Err(Stop::answer(target.id, Reason::Ended, Answer::Rst));
    }
    let side = if target.is_one_way() {
        Side::ClientAlone
    } else {
        Side::Client
    };
    let next = state.after(side, segment.flags());
    let mut value = record
        .value
        .renewed(next, track::expiry(target.service, next, now));
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

/// Refuses a packet that is too big for the way to its backend, and counts any other.
#[inline(always)]
fn admit<F: Family>(segment: &Segment<'_, F>, target: Target, chosen: &Chosen) -> Result<(), Stop> {
    let length = segment.length();
    let max_packet = chosen.backend.max_packet;
    if max_packet != 0 && length > usize::from(max_packet) {
        return Err(Stop::Refuse(Refusal {
            service: target.id,
            reason: Reason::TooBig,
            answer: Answer::TooBig,
            mtu: max_packet,
        }));
    }
    maps::count_packet(chosen.index, Direction::In, length, chosen.connections);
    Ok(())
}

/// A packet that is ready to be sent.
pub(crate) struct Ready {
    hop: Hop,
    /// To be clamped to, by a search for it.
    mss: Option<u16>,
    is_tunnel: bool,
}

/// Makes a packet ready for its backend; where `clamps`, with its MSS clamped, and from `source` if
/// not from the client. What is refused here has not been changed.
#[inline(always)]
pub(crate) fn prepare<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
    target: Target,
    hash: u64,
    chosen: &Chosen,
    clamps: bool,
    source: Option<Endpoint<F>>,
) -> Result<Ready, Stop> {
    let Target { id, service } = target;
    let backend = chosen.backend;
    let is_tunnel = forwarding::is_tunnel(service.forwarding);
    let hop = match backend.hop {
        hop if hop.ifindex() != 0 || is_tunnel => hop,
        _ => fib::lookup::<F>(
            frame,
            segment.length(),
            match &source {
                Some(source) => source.address,
                None => segment.source(),
            },
            F::address(&backend.address),
        )
        .ok_or(target.drop(Reason::NoNextHop))?,
    };
    admit(segment, target, chosen)?;
    let mss = match clamps && service.forwarding != forwarding::DSR {
        true => mss::clamp(segment, backend),
        false => None,
    };
    if is_tunnel {
        maps::leave_errand(|errand| {
            errand.hash = hash;
            errand.service = id;
            errand.backend = chosen.index;
        });
    } else if let Some(source) = source {
        rewrite::source(segment, source);
        rewrite::request(segment, backend);
    } else if service.forwarding == forwarding::NAT {
        rewrite::request(segment, backend);
    }
    Ok(Ready {
        hop,
        mss,
        is_tunnel,
    })
}

/// Sends a packet of this service.
#[inline(always)]
pub(crate) fn send(frame: &Frame<'_>, service: u16, ready: Ready) -> Result<u32, Stop> {
    let Ready {
        hop,
        mss,
        is_tunnel,
    } = ready;
    match mss {
        Some(limit) => Err(mss::search_later(service, &hop, limit, is_tunnel)),
        None if is_tunnel => Err(Stop::Continue(Program::Tunnel)),
        None => emit(frame, Way { service, hop }),
    }
}
