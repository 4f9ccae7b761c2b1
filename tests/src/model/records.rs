//! Connections: one record for both directions.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_userspace::model::{BackendIndex, ServiceId};

use super::{
    segment::{Link, Segment},
    state::State,
};

/// Whose connection it is. The service stands for the virtual address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    pub service: ServiceId,
    pub client: SocketAddr,
}

impl FlowKey {
    pub fn new(service: ServiceId, client: SocketAddr) -> Self {
        Self { service, client }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    pub backend: BackendIndex,
    /// Address and port that the backend knows the client by (`full-nat`).
    pub snat: Option<SocketAddr>,
    /// Where replies go: where a packet of the client came from.
    pub last_hop: LastHop,
    /// Where the last one came from. It takes the other's place when the record is written, which
    /// is when the state or the tick is another one.
    pub seen: Option<LastHop>,
    /// Tick at which the record expires, as it was last written; `None`: it is written anew.
    pub expires: Option<u32>,
    /// Idle for longer than its timeout.
    pub expired: bool,
}

/// The Ethernet header of a packet that came in, and by which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastHop {
    pub link: Link,
    pub ifindex: u32,
}

impl LastHop {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        Self {
            link: segment.link,
            ifindex: segment.ifindex,
        }
    }
}

impl Record {
    /// A SYN would begin a new connection, and another service may have the tuple.
    pub(super) fn is_over(&self) -> bool {
        self.expired || self.state.is_over()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Records(BTreeMap<FlowKey, Record>);

impl Records {
    pub(super) fn find(&self, key: FlowKey) -> Option<Record> {
        self.0.get(&key).copied()
    }

    pub(super) fn put(&mut self, key: FlowKey, record: Record) {
        self.0.insert(key, record);
    }

    pub(super) fn remove(&mut self, key: FlowKey) {
        self.0.remove(&key);
    }

    pub(super) fn change(&mut self, key: FlowKey, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.0.get_mut(&key) {
            change(record);
        }
    }

    /// A packet has moved the connection on: it is in this state now, and not expired.
    pub(super) fn renew(&mut self, key: FlowKey, state: State) {
        self.change(key, |record| {
            if record.state != state || record.expired {
                record.expires = None;
            }
            record.state = state;
            record.expired = false;
        });
    }

    /// Whose connection is sent from this address and port.
    pub(super) fn sent_from(&self, source: SocketAddr) -> Option<(FlowKey, Record)> {
        self.iter().find(|(_, record)| record.snat == Some(source))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FlowKey, Record)> {
        self.0.iter().map(|(key, record)| (*key, *record))
    }
}
