//! Errors about what a backend has sent, in a service's name (S-ICMP-1, S-ICMP-2).

use lb_common::{
    reason::Reason,
    records::{Service, forwarding},
};

use super::{Endpoint, message::Messages, quote::Quote, translate::Translation};
use crate::xdp::{
    Program, Stop,
    emit::{Way, emit},
    fib,
    frame::Frame,
    maps, select, track,
};

/// Leads an error to the backend that has the client's connection with this service.
#[inline(always)]
pub(super) fn forward<F: Messages>(
    frame: &Frame<'_>,
    mut quote: Quote<'_, F>,
    id: u16,
) -> Result<u32, Stop> {
    let service = maps::service(id).ok_or(Stop::Pass)?;
    let drop = |reason| Stop::drop(id, reason);
    let client = quote.destination();
    let key = F::key(client.address, client.port, id);
    let hash = F::hash(key);
    let index = owner::<F>(id, service, key, hash).ok_or(drop(Reason::IcmpUnmatched))?;
    let backend = maps::backend(index).ok_or(drop(Reason::IcmpUnmatched))?;
    quote.check(frame).map_err(drop)?;
    if service.forwarding != forwarding::DSR {
        quote.check_hops().map_err(drop)?;
    }
    let is_tunnel = forwarding::is_tunnel(service.forwarding);
    let length = quote.length();
    let hop = match backend.hop {
        hop if hop.ifindex != 0 || is_tunnel => hop,
        _ => fib::lookup::<F>(
            frame,
            length,
            F::source(quote.message.ip),
            F::address(&backend.address),
        )
        .ok_or(drop(Reason::NoNextHop))?,
    };
    // No error about an error says how large it may be (S-ICMP-6).
    if backend.max_packet != 0 && length > usize::from(backend.max_packet) {
        return Err(drop(Reason::TooBig));
    }
    maps::count_reason(id, Reason::IcmpTranslated);
    if is_tunnel {
        maps::leave_errand(|errand| {
            errand.hop = hop;
            errand.hash = hash;
            errand.service = id;
            errand.backend = index;
        });
        return Err(Stop::Continue(Program::Tunnel));
    }
    if service.forwarding == forwarding::NAT {
        let mut translation = Translation::of(&quote);
        translation.source = Endpoint::of_backend(backend);
        translation.write(&mut quote);
    }
    emit(frame, Way { service: id, hop })
}

/// The backend that the client's record names, or, without one, whose slot the client falls on.
#[inline(always)]
fn owner<F: Messages>(id: u16, service: &Service, key: F::Key, hash: u64) -> Option<u16> {
    if service.forwarding == forwarding::FULL_NAT {
        return None;
    }
    let recorded = track::find::<F>(key, hash).map(|record| record.value.backend());
    if let Some(index) = recorded.filter(|index| maps::backend(*index).is_some()) {
        return Some(index);
    }
    select::select::<F>(id, service, key).map(|(index, _)| index)
}
