//! Network address translation: destination of requests, source of replies (RFC 3022).

use lb_common::{
    checksum,
    records::{Backend, Service},
};

use super::family::{Family, Segment};

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

#[inline(always)]
fn finish<F: Family>(segment: &mut Segment<'_, F>, difference: u16) {
    segment.update_checksum(difference);
    F::decrement_hop_limit(segment.ip);
}
