//! The loaded program and the model side by side.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::reason::Reason;
use lb_userspace::{
    config::{InterfaceSettings, WantedMode},
    dataplane::{MapWrite, Reader as _, ServiceRecord},
    model::{BackendIndex, Forwarding, NoBackend, Scheduler, ServiceId, Tunnel},
};

use super::{
    clock::{TICKS, tick},
    intact,
    step::{Arrival, Hex, Step},
    table::Tables,
    tally::Tally,
    world::{SLOTS, sources, timeouts},
};
use crate::{
    model::{Fate, FlowKey, Judgement, Keys, Model, State},
    packets::{Outcome, Testbed, Verdict, ip, sysctl},
};

/// Room for many more connections than a scene makes, so that none is without a place.
const FLOWS: u32 = 2_000;

/// ICMP errors that a CPU sends in a tick, less what the fuzzer's clock may be late.
const ERRORS: u64 = 900;

/// Ticks of 2^30 ns that a record has been expired for.
const LONG_AGO: u32 = 1_000;

/// How program and model differ.
#[derive(Debug)]
pub(super) struct Mismatch(pub(super) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `Err` in the inner result: they differ. In the outer: it could not be tried.
pub(super) type Tried = Result<Result<(), Mismatch>>;

/// The loaded program, in a network namespace of this thread's own.
pub(super) struct Rig {
    testbed: Testbed,
    tables: Tables,
    last_hops: LastHops,
    keys: Keys,
    /// What the maps were told last.
    model: Model,
    /// Reasons of no service in particular cannot be cleared: what they were at the start.
    before: BTreeMap<&'static str, u64>,
    /// ICMP errors that were sent in a tick.
    errors: (u32, u64),
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
        let tables = Tables::open(&testbed.maps(), keys)?;
        let last_hops = LastHops::open(&testbed)?;
        Ok(Self {
            testbed,
            tables,
            last_hops,
            keys,
            model: Model::new(keys),
            before: BTreeMap::new(),
            errors: (0, 0),
        })
    }

    /// Clears the stage, and sets a scene.
    pub(super) fn set(&mut self, scene: &[MapWrite]) -> Result<()> {
        self.tables.clear()?;
        for write in clearing(&self.model) {
            self.testbed.apply(&write);
        }
        self.last_hops.clear()?;
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
                let past = tick().wrapping_sub(LONG_AGO) & TICKS;
                self.tables.change(*key, |value| value.expiring(past))?;
                self.model.expire(*key);
            }
        }
        Ok(Ok(()))
    }

    fn frame(&mut self, arrival: &Arrival, tally: &mut Tally) -> Tried {
        let start = tick();
        let outcome = self
            .testbed
            .run_buffers(arrival.ifindex, &arrival.frame, arrival.linear);
        let end = tick();
        let tables = &mut self.tables;
        let mut failed = None;
        // Which port a connection is sent from is the program's choice.
        let mut judgement = self.model.process(arrival.input(), &mut |key| {
            tables.source(key).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        self.limit(&mut judgement, &outcome, end);
        tally.count(&judgement);
        if let Err(difference) = compare(arrival, &judgement, &outcome) {
            return Ok(Err(difference));
        }
        if let Some(source) = judgement.trace.illegal {
            return Ok(Err(Mismatch(format!(
                "{source} is not to be chosen as a source"
            ))));
        }
        for key in &judgement.trace.flows {
            if let Err(difference) = self.compare_flow(*key)? {
                return Ok(Err(difference));
            }
        }
        if let Some(key) = judgement.trace.renewed {
            if let Err(difference) = self.compare_expiry(key, start, end)? {
                return Ok(Err(difference));
            }
        }
        if judgement.trace.made.is_some() {
            self.forget_displaced()?;
        }
        Ok(Ok(()))
    }

    /// So many ICMP errors may be sent in a tick that the program may have dropped this one.
    fn limit(&mut self, judgement: &mut Judgement, outcome: &Outcome, now: u32) {
        let Some((service, Reason::IcmpSent)) = judgement.trace.answered else {
            return;
        };
        if self.errors.0 != now {
            // The limit is each tick's and each CPU's, and the thread may have changed CPUs.
            self.errors = (now, 0);
        }
        if outcome.verdict == Verdict::Drop && self.errors.1 >= ERRORS {
            self.model.limited(service);
            judgement.trace.answered = Some((service, Reason::IcmpLimited));
            judgement.fate = Fate::Drop;
        } else {
            self.errors.1 += 1;
        }
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
        Ok(same(
            || format!("record of {} with service {}", key.client, key.service.0),
            &wanted,
            &found,
        ))
    }

    /// The record's timeout has begun anew between these two ticks.
    fn compare_expiry(&mut self, key: FlowKey, start: u32, end: u32) -> Tried {
        let (Some(value), Some(record)) = (self.tables.find(key)?, self.model.record(key)) else {
            return Ok(Ok(()));
        };
        let timeout = timeout(record.state);
        let wanted = [start, end].map(|tick| (tick + timeout) & TICKS);
        if wanted.contains(&value.expires()) {
            self.model.written(key, value.expires());
            return Ok(Ok(()));
        }
        Ok(Err(Mismatch(format!(
            "expiry of {} with service {} in {:?}: the model says tick {wanted:?}, the program {}",
            key.client,
            key.service.0,
            record.state,
            value.expires()
        ))))
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
                if let Err(difference) = same(
                    || format!("counter {} of {service:?}", reason.name()),
                    &wanted,
                    &found,
                ) {
                    return Ok(Err(difference));
                }
            }
        }
        let backends: Vec<BackendIndex> = self.model.config().backends().map(|(i, _)| i).collect();
        for index in backends {
            let wanted = self.model.counters().backend(index);
            let found = self.testbed.backend_counters(index);
            if let Err(difference) = same(|| format!("counters of {index:?}"), &wanted, &found) {
                return Ok(Err(difference));
            }
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
            if let Err(difference) = same(
                || format!("record of {} with service {}", key.client, key.service.0),
                &wanted.get(key),
                &found.get(key),
            ) {
                return Ok(Err(difference));
            }
        }
        Ok(Ok(()))
    }

    fn reasons(&self, service: Option<ServiceId>) -> Result<BTreeMap<&'static str, u64>> {
        let counts = self.testbed.reader().reasons(service)?;
        Ok(counts
            .into_iter()
            .map(|count| (count.reason, count.packets))
            .collect())
    }
}

/// Ticks of a state's timeout, rounded up.
fn timeout(state: State) -> u32 {
    let timeouts = timeouts();
    let timeout = match state {
        State::SynSent | State::SynReceived | State::Refused => timeouts.half_open,
        State::Established => timeouts.established,
        State::FinWaitClient | State::FinWaitBackend => timeouts.fin_wait,
        State::Closing => timeouts.closing,
        State::TimeWait => timeouts.time_wait,
        State::Reset | State::Ended => timeouts.reset,
    };
    (timeout.as_nanos() as u64).div_ceil(1 << 30) as u32
}

fn same<T: PartialEq + fmt::Debug>(
    what: impl FnOnce() -> String,
    wanted: &T,
    found: &T,
) -> Result<(), Mismatch> {
    if wanted == found {
        return Ok(());
    }
    let what = what();
    Err(Mismatch(format!(
        "{what}: the model says {wanted:?}, the program {found:?}"
    )))
}

fn compare(arrival: &Arrival, judgement: &Judgement, outcome: &Outcome) -> Result<(), Mismatch> {
    let (verdict, frame) = match &judgement.fate {
        Fate::Pass => (Verdict::Pass, Some(&arrival.frame)),
        Fate::Drop => (Verdict::Drop, None),
        Fate::Transmit(frame) => (Verdict::Transmit, Some(frame)),
        Fate::Redirect(frame) => (Verdict::Redirect, Some(frame)),
    };
    let refused = judgement.refused;
    same(
        || format!("verdict (the model refuses: {refused:?})"),
        &verdict,
        &outcome.verdict,
    )?;
    match frame {
        Some(frame) if *frame != outcome.frame => Err(Mismatch(format!(
            "frame:\n  the model {}\nthe program {}",
            Hex(frame),
            Hex(&outcome.frame)
        ))),
        Some(_) if verdict == Verdict::Pass => Ok(()),
        Some(_) if judgement.trace.answered.is_some() => {
            intact::answer(&outcome.frame).map_err(Mismatch)
        }
        Some(_) => intact::compare(&arrival.frame, &outcome.frame).map_err(Mismatch),
        None => Ok(()),
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

/// Where replies go: the program learns places and never forgets one.
struct LastHops {
    index: HashMap<MapData, [u8; 32], u32>,
    count: Array<MapData, u64>,
}

impl LastHops {
    fn open(testbed: &Testbed) -> Result<Self> {
        let open = |name: &str| -> Result<Map> {
            let path = testbed.maps().join(name);
            let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
            Ok(Map::from_map_data(data)?)
        };
        Ok(Self {
            index: open("LAST_HOP_INDEX")?.try_into()?,
            count: open("LAST_HOP_COUNT")?.try_into()?,
        })
    }

    fn clear(&mut self) -> Result<()> {
        let keys: Vec<_> = self.index.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.index.remove(&key)?;
        }
        self.count.set(0, 0, 0)?;
        Ok(())
    }
}
