//! A backend for a connection that has no record.

use lb_common::{
    reason::Reason,
    records::{Backend, Service},
};

use super::{family::Family, maps};

/// The backend on whose slot the client falls.
#[inline(always)]
pub(crate) fn select<F: Family>(
    id: u16,
    service: &Service,
    key: F::Key,
) -> Result<(u16, &'static Backend), Reason> {
    let hash = F::selection_hash(key, service.seed);
    let slot = maps::slot(id, service, hash).ok_or(Reason::NoBackend)?;
    let backend = maps::backend(slot.primary).ok_or(Reason::NoBackend)?;
    Ok((slot.primary, backend))
}
