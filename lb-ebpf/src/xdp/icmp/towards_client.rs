//! Errors about what a client has sent, as its backend has seen it (S-ICMP-1).

use lb_common::{reason::Reason, records::Backend};

use super::{message::Messages, quote::Quote, translate::Translation};
use crate::xdp::{
    Stop,
    emit::{Way, emit},
    fib,
    frame::Frame,
    maps, reply, select,
    snat::{self, Endpoint, Holder},
    track,
};

/// Whose connection the quoted packet is of. Words: the compiler would put less at odd places on the
/// stack.
struct Owner {
    /// Index of the backend.
    backend: u64,
    /// Not 0 if a record says so, and not the client's slot alone.
    is_recorded: u64,
    /// Index of the way back to the client; 0: not known.
    last_hop: u64,
}

/// Leads an error to the client of a connection with one of the backends that share an address and
/// port, from `first` on.
#[inline(always)]
pub(super) fn forward<F: Messages>(
    frame: &Frame<'_>,
    quote: Quote<'_, F>,
    first: u16,
) -> Result<u32, Stop> {
    let source = quote.source();
    if let Some(holder) = snat::find_by_port::<F>(source.address, source.port) {
        let owner = leaser(&quote, &holder).ok_or(Stop::Pass)?;
        return lead(frame, quote, owner, holder.client);
    }
    let owner = by_record(first, source)
        .or_else(|| by_slot(first, source))
        .ok_or(Stop::Pass)?;
    lead(frame, quote, owner, source)
}

/// Sends the error to this client.
#[inline(always)]
fn lead<F: Messages>(
    frame: &Frame<'_>,
    mut quote: Quote<'_, F>,
    owner: Owner,
    client: Endpoint<F>,
) -> Result<u32, Stop> {
    let backend = maps::backend(owner.backend as u16).ok_or(Stop::Pass)?;
    let id = backend.service;
    let service = maps::service(id).ok_or(Stop::Pass)?;
    // Without a record it may be about a packet of this host's own, such as a health check.
    let refuse = |reason| match owner.is_recorded {
        0 => Stop::Pass,
        _ => Stop::drop(id, reason),
    };
    quote.check(frame).map_err(refuse)?;
    quote.check_hops().map_err(refuse)?;

    let listen = Endpoint::of_service(service);
    let mut translation = Translation::of(&quote);
    translation.source = client;
    translation.destination = listen;
    // Routers between here and the backend send errors, too, and keep their names.
    if translation.sender == F::address(&backend.address) {
        translation.sender = listen.address;
    }
    let hop = match maps::last_hop(owner.last_hop as u16) {
        Some(hop) => *hop,
        None => fib::lookup::<F>(frame, quote.length(), translation.sender, client.address)
            .ok_or(refuse(Reason::NoNextHop))?,
    };
    maps::count_reason(id, Reason::IcmpTranslated);
    translation.write(&mut quote);
    emit(frame, Way { service: id, hop })
}

/// The backend of a connection of mode `full-nat`, by its port, if the quoted packet is for that one.
#[inline(always)]
fn leaser<F: Messages>(quote: &Quote<'_, F>, holder: &Holder<F>) -> Option<Owner> {
    let value = holder.record.value;
    let backend = maps::backend(value.backend())?;
    let receiver = quote.destination();
    let is_receiver = backend.service == holder.service
        && F::address(&backend.address) == receiver.address
        && backend.port == receiver.port;
    is_receiver.then_some(Owner {
        backend: value.backend().into(),
        is_recorded: 1,
        last_hop: value.last_hop().into(),
    })
}

/// The first backend that a record of the client names.
#[inline(always)]
fn by_record<F: Messages>(first: u16, client: Endpoint<F>) -> Option<Owner> {
    for (index, backend) in reply::chain(first) {
        if backend.flags & Backend::FULL_NAT != 0 {
            continue;
        }
        let key = F::key(client.address, client.port, backend.service);
        if let Some(record) = track::find::<F>(key, F::hash(key))
            && record.value.backend() == index
        {
            return Some(Owner {
                backend: index.into(),
                is_recorded: 1,
                last_hop: record.value.last_hop().into(),
            });
        }
    }
    None
}

/// The first backend whose slot the client falls on.
#[inline(always)]
fn by_slot<F: Messages>(first: u16, client: Endpoint<F>) -> Option<Owner> {
    for (index, backend) in reply::chain(first) {
        if backend.flags & Backend::FULL_NAT != 0 {
            continue;
        }
        let Some(service) = maps::service(backend.service) else {
            continue;
        };
        let key = F::key(client.address, client.port, backend.service);
        let owner = select::select::<F>(backend.service, service, key);
        if matches!(owner, Some((owner, _)) if owner == index) {
            return Some(Owner {
                backend: index.into(),
                is_recorded: 0,
                last_hop: 0,
            });
        }
    }
    None
}
