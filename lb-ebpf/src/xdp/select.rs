//! A backend for a connection that has no record.

use lb_common::records::{Backend, Service, Slot};

use super::{family::Family, maps};

/// The backend on whose slot the client falls.
#[inline(always)]
pub(crate) fn select<F: Family>(
    id: u16,
    service: &Service,
    key: F::Key,
) -> Option<(u16, &'static Backend)> {
    owner(slot::<F>(id, service, key))
}

/// The slot on which the client falls.
#[inline(always)]
pub(crate) fn slot<F: Family>(id: u16, service: &Service, key: F::Key) -> Option<Slot> {
    maps::slot(id, service, F::selection_hash(key, service.seed))
}

/// The backend that new connections of this slot go to.
#[inline(always)]
pub(crate) fn owner(slot: Option<Slot>) -> Option<(u16, &'static Backend)> {
    let index = slot?.primary;
    Some((index, maps::backend(index)?))
}
