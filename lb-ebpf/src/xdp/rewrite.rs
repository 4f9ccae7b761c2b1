//! Network address translation: destination of requests, source of replies (RFC 3022), and in
//! `full-nat` the other ends too.

use lb_common::{
    checksum,
    records::{Backend, Service},
};

use super::{
    family::{Family, Segment},
    snat::Endpoint,
};

/// Towards the backend: listen address and port become the backend's.
#[inline(always)]
pub(crate) fn request<F: Family>(segment: &mut Segment<'_, F>, backend: &Backend) {
    F::set_destination(
        segment.ip,
        F::address(&backend.address),
        backend.address_difference,
    );
    segment.tcp.destination = backend.port;
    finish(segment, backend.tuple_difference);
}

/// Towards the client: the backend's address and port become the service's.
#[inline(always)]
pub(crate) fn reply<F: Family>(segment: &mut Segment<'_, F>, service: &Service, backend: &Backend) {
    F::set_source(
        segment.ip,
        F::address(&service.address),
        checksum::reverse(backend.address_difference),
    );
    segment.tcp.source = service.port;
    finish(segment, checksum::reverse(backend.tuple_difference));
}

/// The client's address and port become those that the backend is to answer.
#[inline(always)]
pub(crate) fn source<F: Family>(segment: &mut Segment<'_, F>, new: Endpoint<F>) {
    let address = difference::<F>(segment.source(), new.address);
    let port = port_difference(segment.tcp.source, new.port);
    F::set_source(segment.ip, new.address, address);
    segment.tcp.source = new.port;
    segment.update_checksum(checksum::combine(address, port));
}

/// The other way round.
#[inline(always)]
pub(crate) fn destination<F: Family>(segment: &mut Segment<'_, F>, new: Endpoint<F>) {
    let address = difference::<F>(segment.destination(), new.address);
    let port = port_difference(segment.tcp.destination, new.port);
    F::set_destination(segment.ip, new.address, address);
    segment.tcp.destination = new.port;
    segment.update_checksum(checksum::combine(address, port));
}

/// [`checksum::difference`] of two addresses.
#[inline(always)]
fn difference<F: Family>(old: F::Address, new: F::Address) -> u16 {
    checksum::fold(u32::from(!checksum::fold(F::sum(old))) + F::sum(new))
}

#[inline(always)]
fn port_difference(old: [u8; 2], new: [u8; 2]) -> u16 {
    checksum::fold(u32::from(!u16::from_ne_bytes(old)) + u32::from(u16::from_ne_bytes(new)))
}

#[inline(always)]
fn finish<F: Family>(segment: &mut Segment<'_, F>, difference: u16) {
    segment.update_checksum(difference);
    F::decrement_hop_limit(segment.ip);
}
