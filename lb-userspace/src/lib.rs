//! The control plane of **lb**: what `lbd` (the daemon) and `lbctl` (its command line) are made of.
//!
//! ```text
//! lb.toml ─ config ─┐
//! lbctl ─ cli ─ api ┤→ engine: desired + observed → effective → plan ─→ dataplane (aya, maps)
//! health, netlink ──┘          (pure functions, one writer)
//! ```
//!
//! Dependencies point one way: `cli → api types → model ← config`, `engine → model, table`,
//! `endings → dataplane → lb-common`, nothing → `cli`. `model` and `table` do no I/O and know no tokio.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod endings;
pub mod engine;
pub mod health;
pub mod model;
pub mod netlink;
pub mod table;
pub mod wire;
