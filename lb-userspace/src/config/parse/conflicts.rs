//! The rules among services, mapped back to where the file breaks them.

use super::{super::source::Span, report::Report};
use crate::model::{ConflictKind, Desired};

/// Where a service stands in the file.
pub(super) struct ServiceSpans {
    pub(super) header: Span,
    pub(super) name: Span,
    pub(super) listen: Span,
    /// As many as the service has addresses to send from.
    pub(super) snat: Vec<Span>,
    pub(super) backends: Vec<BackendSpans>,
}

pub(super) struct BackendSpans {
    /// The address where the backend is called by that.
    pub(super) name: Span,
    pub(super) address: Span,
}

/// Reports every rule that `desired` breaks; `spans` has an element for each service.
pub(super) fn report(desired: &Desired, spans: Vec<ServiceSpans>, report: &mut Report) {
    let span = |service: usize, backend: Option<usize>, kind: &ConflictKind| {
        let wanted = &desired.services[service];
        let service = &spans[service];
        let of_snat = kind.snat_address().and_then(|address| {
            let at = wanted.snat.iter().position(|&known| known == address)?;
            service.snat.get(at)
        });
        if let Some(span) = of_snat.filter(|_| backend.is_none()) {
            return span.clone();
        }
        match (backend.map(|index| &service.backends[index]), kind) {
            (Some(backend), ConflictKind::BackendName { .. }) => backend.name.clone(),
            (Some(backend), _) => backend.address.clone(),
            (None, ConflictKind::ServiceName(_)) => service.name.clone(),
            (None, ConflictKind::TooManyServices) => service.header.clone(),
            (None, _) => service.listen.clone(),
        }
    };
    for conflict in desired.conflicts() {
        let kind = &conflict.kind;
        let other = conflict
            .other
            .map(|(service, backend)| span(service, backend, kind));
        let place = span(conflict.service, conflict.backend, kind);
        report.collision(place, kind.to_string(), other);
    }
}
