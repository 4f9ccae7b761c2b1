//! Errors about what a backend has sent, in a service's name (S-ICMP-1, S-ICMP-2).

use lb_common::{reason::Reason, records::forwarding};

use super::{message::Messages, quote::Quote, translate::Translation};
use crate::xdp::{
    Program, Stop,
    emit::{Way, emit},
    fib,
    frame::Frame,
    maps,
    request::Target,
    select,
    snat::{self, Endpoint},
    track,
};

/// Leads an error to the backend that has the client's connection with this service.
#[inline(always)]
pub(super) fn forward<F: Messages>(
    frame: &Frame<'_>,
    quote: Quote<'_, F>,
    id: u16,
) -> Result<u32, Stop> {
    let service = maps::service(id).ok_or(Stop::Pass)?;
    let target = Target { id, service };
    let unmatched = || target.drop(Reason::IcmpUnmatched);
    let client = quote.destination();
    let key = F::key(client.address, client.port, id);
    let hash = F::hash(key);
    if service.forwarding == forwarding::FULL_NAT {
        // Nobody but the record knows the port that the client has there.
        let pool = maps::snat_pool(id).ok_or_else(unmatched)?;
        let lease = snat::find_by_client::<F>(pool, key, hash).ok_or_else(unmatched)?;
        let index = lease.record.value.backend();
        return lead(frame, quote, target, hash, index, lease.source);
    }
    let index = owner::<F>(target, key, hash).ok_or_else(unmatched)?;
    lead(frame, quote, target, hash, index, client)
}

/// The backend that the client's record names, or, without one, whose slot the client falls on.
#[inline(always)]
fn owner<F: Messages>(target: Target, key: F::Key, hash: u64) -> Option<u16> {
    let recorded = track::find::<F>(key, hash).map(|record| record.value.backend());
    if let Some(index) = recorded.filter(|index| maps::backend(*index).is_some()) {
        return Some(index);
    }
    select::select::<F>(target.id, target.service, key).map(|(index, _)| index)
}

/// Sends the error to the backend with this index, which takes the client to be `peer`.
#[inline(always)]
fn lead<F: Messages>(
    frame: &Frame<'_>,
    mut quote: Quote<'_, F>,
    target: Target,
    hash: u64,
    index: u16,
    peer: Endpoint<F>,
) -> Result<u32, Stop> {
    let Target { id, service } = target;
    let drop = |reason| target.drop(reason);
    let backend = maps::backend(index).ok_or(drop(Reason::IcmpUnmatched))?;
    quote.check(frame).map_err(drop)?;
    if service.forwarding != forwarding::DSR {
        quote.check_hops().map_err(drop)?;
    }
    let is_tunnel = forwarding::is_tunnel(service.forwarding);
    let length = quote.length();
    let sender = F::source(quote.message.ip);
    let hop = match backend.hop {
        hop if hop.ifindex() != 0 || is_tunnel => hop,
        _ => fib::lookup::<F>(frame, length, sender, F::address(&backend.address))
            .ok_or(drop(Reason::NoNextHop))?,
    };
    // No error about an error says how large it may be (S-ICMP-6).
    if backend.max_packet != 0 && length > usize::from(backend.max_packet) {
        return Err(drop(Reason::TooBig));
    }
    maps::count_reason(id, Reason::IcmpTranslated);
    if is_tunnel {
        maps::leave_errand(|errand| {
            errand.hash = hash;
            errand.service = id;
            errand.backend = index;
        });
        return Err(Stop::Continue(Program::Tunnel));
    }
    if service.forwarding != forwarding::DSR {
        let mut translation = Translation::of(&quote);
        // Routers between here and the client send errors, too, and keep their names.
        if sender == translation.destination.address {
            translation.sender = peer.address;
        }
        translation.source = Endpoint::of_backend(backend);
        translation.destination = peer;
        translation.write(&mut quote);
    }
    emit(frame, Way { service: id, hop })
}
