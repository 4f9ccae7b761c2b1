//! Services that share a backend's address and port.
//!
//! A backend tells connections apart by the client's address and port alone. If one port of a
//! client is in use with it through one service, a connection from that port through another
//! service would be the same connection to it, and its replies could not be told apart here
//! (S-NAT-8).
//!
//! The search for such a rival is a program of its own: most backends have an address to themselves,
//! and the verifier would walk the search once for every way through [`super::open`].

use aya_ebpf::programs::XdpContext;
use lb_common::{
    reason::Reason,
    records::{Backend, MAX_SHARED_ENDPOINT},
    tcp::State,
};

use super::{
    Stop, clock,
    family::{Family, Parsed, Segment},
    frame::Frame,
    maps,
    track::{self, Record},
};

/// Goes on with a packet only if the sender has no connection with its backend through another
/// service: one that is over is forgotten, one that lives keeps its port.
#[inline(always)]
pub(crate) fn clear<F: Family>(ctx: &XdpContext) -> Result<u32, Stop> {
    let errand = maps::errand().ok_or(Stop::Pass)?;
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    let Parsed::Segment(segment) = F::parse(&frame) else {
        return Err(Stop::Pass);
    };
    let index = errand.backend;
    if let Some(backend) = maps::backend(index)
        && let Some(rival) = rival::<F>(&segment, index, backend)
    {
        let value = rival.value;
        if !value.state().reopens() && !value.is_expired(clock::now()) {
            return Err(Stop::drop(errand.service, Reason::TupleCollision));
        }
        rival.update(value.with_state(State::FREE));
    }
    Err(Stop::Continue(F::OPEN))
}

/// The record of the sender's connection with this backend through another service. There is one
/// at most, because it had to be cleared of others itself.
#[inline(always)]
fn rival<F: Family>(segment: &Segment<'_, F>, index: u16, backend: &Backend) -> Option<Record> {
    let mut other = maps::backend_at::<F>(F::address(&backend.address), backend.port)?;
    for _ in 0..MAX_SHARED_ENDPOINT {
        let sharer = maps::backend(other)?;
        if other != index {
            let key = F::key(segment.source(), segment.tcp.source, sharer.service);
            if let Some(record) = track::find::<F>(key, F::hash(key))
                && record.value.backend() == other
            {
                return Some(record);
            }
        }
        other = sharer.next_with_same_address;
    }
    None
}
