//! The single writer: it alone decides what stands in the kernel's maps.
//!
//! ```text
//! Change ──→ desired ─ allocation, bases ─┐
//!            (state.json first)           ├→ effective ─ plan ─→ maps, step by step
//! Observation ──→ observed ───────────────┘   (pure)     (pure)
//! ```
//!
//! * `change`: what the operator asks for, as a pure function of the desired state.
//! * `ids`: indices of services and backends, stable for as long as a connection names them.
//! * `effective`: what the maps should hold, and why. Pure.
//! * `plan`: the writes from what they hold to what they should, in an order that is safe at every
//!   step, with `reason`s. Pure.
//! * `maps`: what the maps hold, as far as written.
//! * `state`: what outlives the daemon, and why a SIGKILL between any two steps does no harm.
//! * `core`: all of these together, without concurrency; `handle`: its thread, and the way to it.
//! * `settings`: those of a service, by the keys of the file.
//! * `snapshot`: what readers see.

mod change;
mod core;
mod effective;
mod handle;
mod ids;
mod maps;
mod plan;
mod reason;
mod settings;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    change::{Change, ChangeError, Edit, edits},
    core::{EngineError, EngineSettings},
    effective::{
        Bases, Effective, EffectiveBackend, EffectiveService, Inputs, Observed, Resolution,
        Standing, TableInUse, Verdict, effective, rebase,
    },
    handle::{Engine, Handle, Observation},
    ids::{Allocation, AllocationError},
    maps::{Maps, Table},
    plan::{Step, adopt, plan, summary},
    snapshot::{
        BackendView, LingeringBackend, ServiceView, Snapshot, endings, targets, wanted_addresses,
    },
    state::{Retired, State, StateError},
};
