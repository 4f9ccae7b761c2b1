//! The engine without its thread: one call for each thing that happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{
    change::{Change, ChangeError, Edit, edits},
    effective::{Effective, Inputs, Observed, Verdict, effective, rebase},
    handle::Observation,
    ids::Farewell,
    plan::{Step, adopt, plan, summary},
    snapshot::Snapshot,
    state::{State, StateDir, StateError},
};
use crate::{
    dataplane::{DataPlaneError, Reader, Writer},
    model::{BackendIndex, CheckKind, Desired, Profile, ServiceId},
};

/// What the engine needs to know beside what it reads from its state.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub state_dir: PathBuf,
    pub profile: Profile,
    /// What the configuration file says.
    pub file_desired: Desired,
}

/// Why the engine could not be started. Whatever an earlier life has set up goes on forwarding.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "the data plane carries {connections} connections, and {path} does not exist, which says whose they are: restore it from a backup, or take the data plane down (`lbctl detach`, which ends the connections) and start again",
        path = path.display()
    )]
    UnknownConnections { connections: u64, path: PathBuf },
    #[error("cannot take over the data plane")]
    DataPlane(#[from] DataPlaneError),
    #[error("cannot bring what the configuration file says into effect")]
    Change(#[from] ChangeError),
}

/// Everything that the engine owns.
pub(super) struct Core {
    writer: Box<dyn Writer>,
    reader: Arc<dyn Reader>,
    directory: StateDir,
    profile: Profile,
    state: State,
    observed: Observed,
    /// `observed` differs from what was written of it.
    observed_unsaved: bool,
    /// What the maps should hold.
    target: Arc<Effective>,
    /// What they really hold.
    applied: Arc<Effective>,
    farewell: Farewell,
    last_reading: Option<Instant>,
    publish: Box<dyn Fn(Snapshot) + Send>,
}

impl Core {
    /// Takes over what an earlier life has left, then brings the file's wishes into effect if they
    /// have changed since. `publish` is given each new snapshot.
    pub(super) fn start(
        writer: Box<dyn Writer>,
        reader: Arc<dyn Reader>,
        settings: EngineSettings,
        publish: Box<dyn Fn(Snapshot) + Send>,
    ) -> Result<Self, EngineError> {
        let directory = StateDir::open(&settings.state_dir)?;
        let state = match directory.load()? {
            Some(state) => state,
            None => {
                let connections: u64 = reader.connection_totals().by_backend.values().sum();
                if connections > 0 {
                    let path = directory.state_file();
                    return Err(EngineError::UnknownConnections { connections, path });
                }
                State::default()
            }
        };
        let mut core = Self {
            writer,
            reader,
            observed: directory.load_observed(),
            directory,
            profile: settings.profile,
            state,
            observed_unsaved: false,
            target: Arc::default(),
            applied: Arc::default(),
            farewell: Farewell::default(),
            last_reading: None,
            publish,
        };
        core.forget_strangers();
        core.target = Arc::new(core.effective());
        core.adopt()?;
        if core.state.file == settings.file_desired {
            for edit in edits(&core.state.file, &core.state.desired) {
                info!("kept, though the configuration file does not say so: {edit}");
            }
        } else {
            core.change(Change::Replace(settings.file_desired))?;
        }
        core.publish();
        Ok(core)
    }

    /// Writes everything that is known again, whatever the maps hold.
    fn adopt(&mut self) -> Result<(), DataPlaneError> {
        for Step { write, .. } in adopt(&self.target) {
            self.writer.apply(&write)?;
        }
        self.applied = self.target.clone();
        Ok(())
    }

    /// Makes a change of the desired state, and returns what it has changed: in the maps, or, where
    /// these stay as they are, in what is wanted.
    ///
    /// # Errors
    ///
    /// Refused, and nothing has changed; or, with [`ChangeError::DataPlane`], recorded but not
    /// in effect: [`Self::tick`] goes on trying.
    pub(super) fn change(&mut self, change: Change) -> Result<Vec<String>, ChangeError> {
        let from_file = match &change {
            Change::Replace(wanted) => Some(wanted.clone()),
            _ => None,
        };
        let desired = change.apply_to(&self.state.desired)?;
        let allocation = self.state.allocation.assign(&desired)?;
        let bases = rebase(
            &self.state.bases,
            &self.state.desired,
            &desired,
            &allocation,
        );
        let next = State {
            file: from_file.unwrap_or_else(|| self.state.file.clone()),
            retired: self.state.retired.clone(),
            desired,
            allocation,
            bases,
        };
        let edits = edits(&self.state.desired, &next.desired);
        if next != self.state {
            self.directory.save(&next).map_err(ChangeError::State)?;
            self.log_dropped_edits(&next);
            self.state = next;
            self.forget_strangers();
        }
        let done = self.converge();
        self.publish();
        let mut lines = done.map_err(ChangeError::DataPlane)?;
        // Not everything that is wanted shows in the maps at once, and some of it never does.
        let says_nothing = lines.is_empty();
        let untold = edits
            .iter()
            .filter(|edit| says_nothing || edit.is_beside_the_maps());
        lines.extend(untold.map(Edit::to_string));
        Ok(lines)
    }

    /// What `lbctl` had changed since the file was loaded, and a newly loaded file does not say.
    fn log_dropped_edits(&self, next: &State) {
        if next.file == self.state.file {
            return;
        }
        for edit in edits(&self.state.file, &self.state.desired) {
            if !edit.is_in_both(&self.state.desired, &next.file) {
                warn!("dropped, as the configuration file has changed and does not say so: {edit}");
            }
        }
    }

    /// Takes observations that arrived together into account, with one plan for all.
    pub(super) fn observe(&mut self, observations: impl IntoIterator<Item = Observation>) {
        let before = self.observed.clone();
        for observation in observations {
            self.note(observation);
        }
        if self.observed == before {
            return;
        }
        self.observed_unsaved = true;
        self.save_observed();
        self.converge_or_warn();
        self.publish();
    }

    fn note(&mut self, observation: Observation) {
        match observation {
            Observation::Health {
                service,
                backend,
                health,
                reason,
            } => {
                // A probe may report after its backend was removed.
                let desired = &self.state.desired;
                let known = desired.service(service.as_str()).and_then(|service| {
                    let address = service.backend(backend.as_str())?.address;
                    let id = self.state.allocation.service_id(service)?;
                    self.state.allocation.backend_index(id, address)
                });
                if let Some(index) = known {
                    let verdict = Verdict { health, reason };
                    self.observed.health.insert(index, verdict);
                }
            }
            Observation::NextHop {
                address,
                resolution,
            } => {
                self.observed.next_hops.insert(address, resolution);
            }
            Observation::Attached { all_native } => self.observed.all_native = all_native,
        }
    }

    /// What has to be done from time to time: tries again what has failed, and frees the indices
    /// that no connection names any more.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.observed_unsaved {
            self.save_observed();
        }
        if self.applied.maps != self.target.maps {
            self.converge_or_warn();
        }
        if self.applied.maps == self.target.maps {
            self.release(now);
        }
    }

    fn release(&mut self, now: Instant) {
        let lingering = self.state.allocation.lingering(&self.state.desired);
        let idle = self.state.allocation.idle_services(&self.state.desired);
        let too_soon = |last| now.saturating_duration_since(last) < Farewell::PAUSE;
        if lingering.is_empty() && idle.is_empty() || self.last_reading.is_some_and(too_soon) {
            return;
        }
        self.last_reading = Some(now);
        let connections = self.reader.connection_totals().by_backend;
        let unused = self.farewell.read(now, &lingering, &connections);
        let next = self.without(&unused, &lingering);
        if next == self.state {
            return;
        }
        if let Err(error) = self.directory.save(&next) {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot free indices"
            );
            return;
        }
        self.state = next;
        self.forget_strangers();
        self.target = Arc::new(self.effective());
        // Before the counters are cleared: whoever adds them up has to know that they are retired.
        self.publish();
        self.converge_or_warn();
    }

    /// The state without these backends, and without the services that nothing is left of.
    fn without(
        &self,
        unused: &[BackendIndex],
        lingering: &BTreeMap<BackendIndex, ServiceId>,
    ) -> State {
        let mut next = self.state.clone();
        for index in unused {
            let Some(&service) = lingering.get(index) else {
                continue;
            };
            match self.reader.backend_counters(*index) {
                Ok(counters) => {
                    next.retired.entry(service).or_default().0 += counters;
                    next.allocation.release_backend(service, *index);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(error, "cannot free backend index {}", index.0);
                }
            }
        }
        for service in next.allocation.idle_services(&next.desired) {
            next.allocation.release_service(service);
            next.retired.remove(&service);
        }
        next
    }

    /// Writes what the maps lack; the plan's reasons.
    fn converge(&mut self) -> Result<Vec<String>, DataPlaneError> {
        self.target = Arc::new(self.effective());
        let steps = plan(&self.applied, &self.target);
        for line in summary(&steps) {
            info!("{line}");
        }
        for (done, step) in steps.iter().enumerate() {
            debug!(?step.write, "{}", step.reason);
            if let Err(error) = self.writer.apply(&step.write) {
                let applied = Arc::make_mut(&mut self.applied);
                for Step { write, .. } in &steps[..done] {
                    applied.maps.apply(write);
                }
                return Err(error);
            }
        }
        self.applied = self.target.clone();
        Ok(summary(&steps))
    }

    fn converge_or_warn(&mut self) {
        if let Err(error) = self.converge() {
            let error: &dyn std::error::Error = &error;
            warn!(error, "the data plane does not follow; trying again");
        }
    }

    fn save_observed(&mut self) {
        match self.directory.save_observed(&self.observed) {
            Ok(()) => self.observed_unsaved = false,
            // Forwarding must follow what was observed also where the disk is full.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "health would not be known after a restart");
            }
        }
    }

    /// Drops what is known of what is no longer wanted, or no longer probed: an index may get a new
    /// owner, and who comes back has to be judged afresh. Next hops are needed to the last
    /// connection.
    fn forget_strangers(&mut self) {
        let State {
            desired,
            allocation,
            ..
        } = &self.state;
        self.farewell.retain(&allocation.lingering(desired));
        let before = (self.observed.health.len(), self.observed.next_hops.len());
        let probed: BTreeSet<BackendIndex> = allocation
            .wanted(desired)
            .into_iter()
            .filter(|(_, service)| service.check.kind != CheckKind::None)
            .flat_map(|(id, service)| service.backends.iter().map(move |b| (id, b.address)))
            .filter_map(|(id, address)| allocation.backend_index(id, address))
            .collect();
        let addresses = allocation
            .services()
            .values()
            .flat_map(|s| s.backends.keys());
        let addresses: BTreeSet<IpAddr> = addresses.map(SocketAddr::ip).collect();
        let observed = &mut self.observed;
        observed.health.retain(|index, _| probed.contains(index));
        observed
            .next_hops
            .retain(|address, _| addresses.contains(address));
        self.observed_unsaved |= before != (observed.health.len(), observed.next_hops.len());
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            desired: &self.state.desired,
            allocation: &self.state.allocation,
            bases: &self.state.bases,
            observed: &self.observed,
            profile: self.profile,
        }
    }

    pub(super) fn effective(&self) -> Effective {
        effective(self.inputs(), &self.target)
    }

    fn publish(&self) {
        let retired = |id| self.state.retired.get(&id).copied().unwrap_or_default();
        let snapshot = Snapshot::new(self.inputs(), &self.target, retired);
        (self.publish)(snapshot);
    }
}

/// From one tick to the next.
pub(super) const TICK: Duration = Duration::from_secs(1);
