//! What has been counted.

use std::collections::BTreeMap;

use lb_common::{reason::Reason, records::BackendCounters};
use lb_userspace::model::{BackendIndex, ServiceId};

use super::segment::Segment;

/// Reasons by service (`None`: no service in particular), and packets and bytes by backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    reasons: BTreeMap<(Option<ServiceId>, u8), u64>,
    backends: BTreeMap<BackendIndex, BackendCounters>,
}

impl Counters {
    pub(super) fn count(&mut self, service: Option<ServiceId>, reason: Reason) {
        *self.reasons.entry((service, reason as u8)).or_default() += 1;
    }

    pub(super) fn connection(&mut self, backend: BackendIndex) {
        self.backends.entry(backend).or_default().connections += 1;
    }

    pub(super) fn request(&mut self, backend: BackendIndex, segment: &Segment<'_>) {
        let counters = self.backends.entry(backend).or_default();
        counters.packets_in += 1;
        counters.bytes_in += segment.length as u64;
    }

    pub(super) fn reply(&mut self, backend: BackendIndex, segment: &Segment<'_>) {
        let counters = self.backends.entry(backend).or_default();
        counters.packets_out += 1;
        counters.bytes_out += segment.length as u64;
    }

    pub(super) fn forget_service(&mut self, service: ServiceId) {
        self.reasons.retain(|(of, _), _| *of != Some(service));
    }

    pub(super) fn forget_backend(&mut self, backend: BackendIndex) {
        self.backends.remove(&backend);
    }

    pub fn reason(&self, service: Option<ServiceId>, reason: Reason) -> u64 {
        let counted = self.reasons.get(&(service, reason as u8));
        counted.copied().unwrap_or_default()
    }

    /// How often each reason was counted, by its number, for whatever service.
    pub fn reasons(&self) -> impl Iterator<Item = (u8, u64)> {
        self.reasons
            .iter()
            .map(|((_, reason), count)| (*reason, *count))
    }

    pub fn backend(&self, backend: BackendIndex) -> BackendCounters {
        self.backends.get(&backend).copied().unwrap_or_default()
    }
}
