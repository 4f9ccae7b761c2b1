//! The ports that `full-nat` sends from, as the packet path uses them: a connection's record stands
//! at the place that is its port ([`lb_common::snat`]).

use lb_common::{
    flow::{Bucket as _, FlowValue, Tick, insert_vacant},
    records::{Backend, Service},
    snat::{self, CANDIDATES, Candidate, SnatPool},
};

use super::{family::Family, maps, track::Record};

/// An address and port.
pub(crate) struct Endpoint<F: Family> {
    pub(crate) address: F::Address,
    pub(crate) port: [u8; 2],
}

// Derived, they would ask the same of the family, which has no values.
impl<F: Family> Clone for Endpoint<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Endpoint<F> {}

impl<F: Family> Endpoint<F> {
    #[inline(always)]
    pub(crate) fn of_service(service: &Service) -> Self {
        Self {
            address: F::address(&service.address),
            port: service.port,
        }
    }

    #[inline(always)]
    pub(crate) fn of_backend(backend: &Backend) -> Self {
        Self {
            address: F::address(&backend.address),
            port: backend.port,
        }
    }
}

/// The record of a client's connection, and where its packets are sent from.
pub(crate) struct Lease<F: Family> {
    pub(crate) record: Record,
    pub(crate) source: Endpoint<F>,
}

/// The record of a port in use, and whose it is.
pub(crate) struct Holder<F: Family> {
    pub(crate) record: Record,
    pub(crate) client: Endpoint<F>,
    /// Service id.
    pub(crate) service: u16,
}

/// The living record of a client's connection with a service, by its key and the key's hash.
#[inline(always)]
pub(crate) fn find_by_client<F: Family>(
    pool: &SnatPool,
    key: F::Key,
    hash: u64,
) -> Option<Lease<F>> {
    // Where new connections go first; then, where those of an earlier pool are.
    for n in 0..2 * CANDIDATES {
        let (slots, n) = match n.checked_sub(CANDIDATES) {
            None => (&pool.slots, n),
            Some(n) => (&pool.before, n),
        };
        let Candidate { pool_slot, bucket } = snat::candidate(hash, n);
        let index = *slots.get(pool_slot)?;
        if index == 0 {
            continue;
        }
        let Some(records) = F::snat_bucket(index, bucket) else {
            continue;
        };
        if let Some(found) = records.find(key) {
            let record = Record::new(records.value(found.slot)?, found.value);
            let source = source(index, bucket, found.slot)?;
            return Some(Lease { record, source });
        }
    }
    None
}

/// Leases a free port to a client's connection with a service; `None` where none of those that it
/// may have is free.
#[inline(always)]
pub(crate) fn lease<F: Family>(
    pool: &SnatPool,
    key: F::Key,
    hash: u64,
    value: FlowValue,
    now: Tick,
) -> Option<Endpoint<F>> {
    for n in 0..CANDIDATES {
        let Candidate { pool_slot, bucket } = snat::candidate(hash, n);
        let index = *pool.slots.get(pool_slot)?;
        if index == 0 {
            continue;
        }
        let Some(records) = F::snat_bucket(index, bucket) else {
            continue;
        };
        if let Some(slot) = insert_vacant(records, key, value, now) {
            return source(index, bucket, slot);
        }
    }
    None
}

/// The living record of whoever is sent from this address and port.
#[inline(always)]
pub(crate) fn find_by_port<F: Family>(address: F::Address, port: [u8; 2]) -> Option<Holder<F>> {
    let index = maps::snat_address_index::<F>(address)?;
    let (bucket, slot) = snat::place(u16::from_be_bytes(port));
    let records = F::snat_bucket(index, bucket)?;
    let (key, value) = records.at(slot)?;
    let (address, port, service) = F::client(key);
    Some(Holder {
        record: Record::new(records.value(slot)?, value),
        client: Endpoint { address, port },
        service,
    })
}

#[inline(always)]
fn source<F: Family>(index: u16, bucket: u32, slot: usize) -> Option<Endpoint<F>> {
    Some(Endpoint {
        address: F::address(maps::snat_address(index)?),
        port: snat::port(bucket, slot).to_be_bytes(),
    })
}
