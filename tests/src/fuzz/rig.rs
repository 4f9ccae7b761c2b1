//! The loaded program and the model side by side.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Result;
use aya::maps::{DevMapHash, Map, MapData};
use lb_common::reason::Reason;
use lb_userspace::{
    config::{InterfaceSettings, WantedMode},
    dataplane::{MapWrite, Reader as _, ServiceRecord},
    model::{BackendIndex, Forwarding, NoBackend, Scheduler, ServiceId, Tunnel},
};

use super::{
    clock::{TICKS, earliest, latest},
    compare::{self, record_of, same, timeout},
    last_hops::LastHops,
    meters::Meters,
    step::{Arrival, Step},
    table::Tables,
    tally::Tally,
    world::{INTERFACES, SLOTS, sources, timeouts},
};
use crate::{
    model::{FlowKey, Keys, Model, State},
    packets::{Testbed, ip, sysctl},
};

/// Room for many more connections than a scene makes, so that none is without a place.
const FLOWS: u32 = 2_000;

/// Ticks of 2^30 ns that a record has been expired for.
const LONG_AGO: u32 = 1_000;

/// Why the run ends here.
#[derive(Debug)]
pub(super) enum Trouble {
    Mismatch(Mismatch),
    /// It could not be tried.
    Failure(anyhow::Error),
}

/// How program and model differ, in words.
#[derive(Debug)]
pub(super) struct Mismatch(pub(super) String);

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Mismatch> for Trouble {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Failure(error)
    }
}

pub(super) type Tried = Result<(), Trouble>;

/// The loaded program, in a network namespace of this thread's own.
pub(super) struct Rig {
    testbed: Testbed,
    tables: Tables,
    last_hops: LastHops,
    meters: Meters,
    keys: Keys,
    /// What the maps were told last.
    model: Model,
    /// Reasons of no service in particular cannot be cleared: what they were at the start.
    before: BTreeMap<&'static str, u64>,
}

impl Rig {
    /// Loads the program. The thread is in a namespace of its own ([`crate::packets::in_new_namespace`]).
    pub(super) fn new(keys: Keys) -> Result<Self> {
        for (name, index) in [("front", 10), ("back", 20)] {
            let peer = index + 1;
            ip(&format!(
                "link add {name} index {index} type veth peer peer{index} index {peer}"
            ));
            ip(&format!("link set {name} up"));
            ip(&format!("link set peer{index} up"));
            sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0");
        }
        let mut testbed = Testbed::with_keys(FLOWS, keys.0);
        testbed.attach(&["front", "back"].map(|name| InterfaceSettings {
            name: name.to_owned(),
            mode: WantedMode::Native,
        }));
        testbed.apply(&keeper());
        allow_redirects(&testbed)?;
        let tables = Tables::open(&testbed.maps(), keys)?;
        let last_hops = LastHops::open(&testbed)?;
        let meters = Meters::open(&testbed.maps())?;
        Ok(Self {
            testbed,
            tables,
            last_hops,
            meters,
            keys,
            model: Model::new(keys),
            before: BTreeMap::new(),
        })
    }

    /// Clears the stage, and sets a scene.
    pub(super) fn set(&mut self, scene: &[MapWrite]) -> Result<()> {
        self.tables.clear()?;
        for write in clearing(&self.model) {
            self.testbed.apply(&write);
        }
        self.last_hops.clear()?;
        self.meters.clear()?;
        self.model = Model::new(self.keys);
        for write in scene {
            self.testbed.apply(write);
            self.model.apply(write);
        }
        let services = self.model.config().services();
        let full_nat = services.filter(|(_, service)| service.forwarding == Forwarding::FullNat);
        self.tables.set_full_nat(full_nat.map(|(id, _)| id));
        self.before = self.reasons(None)?;
        Ok(())
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Lets both take a step, and compares what came of it.
    pub(super) fn perform(&mut self, step: &Step, tally: &mut Tally) -> Tried {
        match step {
            Step::Frame(arrival) => return self.frame(arrival, tally),
            Step::Write(writes) => {
                for write in writes {
                    self.testbed.apply(write);
                    self.model.apply(write);
                }
            }
            Step::End(key) => {
                self.tables
                    .change(*key, |value| value.with_state(State::Ended))?;
                self.model.end(*key);
            }
            Step::Expire(key) => {
                let past = earliest().wrapping_sub(LONG_AGO) & TICKS;
                self.tables.change(*key, |value| value.expiring(past))?;
                self.model.expire(*key);
            }
        }
        Ok(())
    }

    fn frame(&mut self, arrival: &Arrival, tally: &mut Tally) -> Tried {
        let start = earliest();
        let outcome = self.testbed.run_buffers(
            arrival.ifindex,
            &arrival.frame,
            arrival.linear,
            arrival.has_headroom,
        );
        let end = latest();
        let tables = &mut self.tables;
        let mut failed = None;
        // Which port a connection is sent from is the program's choice.
        let judgement = self.model.process(arrival.input(), &mut |key| {
            tables.source(key).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        tally.count(&judgement);
        compare::outcome(arrival, &judgement, &outcome)?;
        if let Some(source) = judgement.trace.illegal {
            let what = format!("{source} is not to be chosen as a source");
            return Err(Mismatch(what).into());
        }
        for key in &judgement.trace.flows {
            self.compare_flow(*key)?;
        }
        if let Some(key) = judgement.trace.renewed {
            self.compare_expiry(key, start, end)?;
        }
        if judgement.trace.made.is_some() {
            self.forget_displaced()?;
        }
        Ok(())
    }

    /// A new connection takes the place of an expired one if it finds it first.
    fn forget_displaced(&mut self) -> Result<()> {
        let expired: Vec<FlowKey> = self
            .model
            .records()
            .filter(|(_, record)| record.expired)
            .map(|(key, _)| key)
            .collect();
        for key in expired {
            if self.tables.find(key)?.is_none() {
                self.model.forget(key);
            }
        }
        Ok(())
    }

    fn compare_flow(&mut self, key: FlowKey) -> Tried {
        let found = self.tables.find(key)?;
        let found = found.and_then(|value| Some((value.state()?, value.backend())));
        let wanted = self.model.record(key);
        let wanted = wanted.map(|record| (record.state, record.backend));
        same(|| record_of(key), &wanted, &found)
    }

    /// The record's timeout has begun anew between these two ticks.
    fn compare_expiry(&mut self, key: FlowKey, start: u32, end: u32) -> Tried {
        let (Some(value), Some(record)) = (self.tables.find(key)?, self.model.record(key)) else {
            return Ok(());
        };
        let timeout = timeout(record.state);
        let wanted = [start, end].map(|tick| (tick + timeout) & TICKS);
        if wanted.contains(&value.expires()) {
            self.model.written(key, value.expires());
            return Ok(());
        }
        Err(Mismatch(format!(
            "expiry of {} in {:?}: the model says tick {wanted:?}, the program {}",
            record_of(key),
            record.state,
            value.expires()
        ))
        .into())
    }

    /// Compares every counter and every record.
    pub(super) fn compare_all(&mut self) -> Tried {
        let services = (1..=SLOTS.len() as u16).map(|id| Some(ServiceId(id)));
        for service in services.chain([None]) {
            let found = self.reasons(service)?;
            for reason in Reason::ALL {
                let before = match service {
                    None => self.before.get(reason.name()).copied().unwrap_or_default(),
                    Some(_) => 0,
                };
                let found = found.get(reason.name()).copied().unwrap_or_default() - before;
                let wanted = self.model.counters().reason(service, *reason);
                let what = || format!("counter {} of {service:?}", reason.name());
                same(what, &wanted, &found)?;
            }
        }
        let backends: Vec<BackendIndex> = self.model.config().backends().map(|(i, _)| i).collect();
        for index in backends {
            let wanted = self.model.counters().backend(index);
            let found = self.testbed.backend_counters(index);
            same(|| format!("counters of {index:?}"), &wanted, &found)?;
        }
        self.compare_records()
    }

    fn compare_records(&mut self) -> Tried {
        let found: BTreeMap<_, _> = self
            .tables
            .all()?
            .into_iter()
            .filter_map(|(key, value)| Some((key, (value.state()?, value.backend()))))
            .collect();
        let wanted: BTreeMap<_, _> = self
            .model
            .records()
            .map(|(key, record)| (key, (record.state, record.backend)))
            .collect();
        for key in found.keys().chain(wanted.keys()) {
            same(|| record_of(*key), &wanted.get(key), &found.get(key))?;
        }
        Ok(())
    }

    fn reasons(&self, service: Option<ServiceId>) -> Result<BTreeMap<&'static str, u64>> {
        let counts = self.testbed.reader().reasons(service)?;
        Ok(counts
            .into_iter()
            .map(|count| (count.reason, count.packets))
            .collect())
    }
}

/// A service that nobody speaks to and that keeps every address to send from: making their tables
/// anew for every scene would take long.
fn keeper() -> MapWrite {
    MapWrite::WriteService {
        service: ServiceId(SLOTS.len() as u16 + 1),
        record: ServiceRecord {
            listen: ([0, 0, 0, 0], 0).into(),
            forwarding: Forwarding::FullNat,
            scheduler: Scheduler::Maglev,
            slots: 0,
            timeouts: timeouts(),
            snat: sources(true, 3).chain(sources(false, 3)).collect(),
            tunnel: Tunnel::default(),
            no_backend: NoBackend::default(),
        },
    }
}

/// What undoes everything that the model was told. Tables stay: they are made once.
fn clearing(model: &Model) -> Vec<MapWrite> {
    let config = model.config();
    let listens: Vec<SocketAddr> = config
        .services()
        .map(|(_, service)| service.listen)
        .collect();
    let mut writes: Vec<_> = listens
        .into_iter()
        .map(|address| MapWrite::Unlisten { address })
        .collect();
    writes.extend(
        config
            .endpoints()
            .map(|address| MapWrite::UnbindEndpoint { address }),
    );
    writes.extend(
        config
            .backends()
            .map(|(backend, _)| MapWrite::ClearBackend { backend }),
    );
    writes.extend(
        config
            .services()
            .map(|(service, _)| MapWrite::ClearService { service }),
    );
    writes
}

/// Packets come in by every interface, attached or not, and may leave by it: the daemon allows it for
/// those that it is attached to, and for next hops.
fn allow_redirects(testbed: &Testbed) -> Result<()> {
    let map = MapData::from_pin(testbed.maps().join("TX_PORTS"))?;
    let mut ports: DevMapHash<_> = Map::from_map_data(map)?.try_into()?;
    for ifindex in INTERFACES {
        ports.insert(ifindex, ifindex, None, 0)?;
    }
    Ok(())
}
