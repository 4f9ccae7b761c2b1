//! What `full-nat` sends connections from: §7.

use std::net::SocketAddr;

use super::{FlowKey, Model, Source, Trace, config::Service};

/// Ports below are never used.
const FIRST_PORT: u16 = 1024;

impl Model {
    /// The source that the program has chosen for a new connection, held against the rules: one of
    /// the pool's addresses, and a port that no living connection has (S-NAT-4).
    pub(super) fn new_source(
        &mut self,
        service: &Service,
        key: FlowKey,
        source: Source<'_>,
        trace: &mut Trace,
    ) -> Option<SocketAddr> {
        let chosen = source(key)?;
        if let Some((other, record)) = self.records.sent_from(chosen) {
            if record.expired {
                self.records.remove(other);
            } else {
                trace.illegal = Some(chosen);
            }
        }
        let pool = &service.record.snat;
        if chosen.port() < FIRST_PORT || !pool.contains(&chosen.ip()) {
            trace.illegal = Some(chosen);
        }
        Some(chosen)
    }
}
