//! A backend for a connection that has no record.

use lb_common::records::{Backend, Service};

use super::{family::Family, maps};

/// The backend on whose slot the client falls.
#[inline(always)]
pub(crate) fn select<F: Family>(
    id: u16,
    service: &Service,
    key: F::Key,
) -> Option<(u16, &'static Backend)> {
    let hash = F::selection_hash(key, service.seed);
    let slot = maps::slot(id, service, hash)?;
    Some((slot.primary, maps::backend(slot.primary)?))
}
