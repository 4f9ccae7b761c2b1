//! Slot tables: which backend a hashed connection goes to. Pure, no I/O.
//!
//! A service has a table of a prime number of slots. The packet path hashes a new connection to a
//! slot and sends it to the slot's owner, so a table decides two things: how the load is shared, and
//! how many connections find another backend after a change when their state is lost.
//!
//! ```text
//! weights ─ quota ─→ slots per backend ─┐
//! the base before ──────────────────────┴→ BaseTable ─ overlay(usable backends) ─→ OverlaidTable
//!                                          (persisted)                             (to the maps)
//! ```
//!
//! * **The base** follows what the operator wants: membership and weights. Each backend has exactly
//!   the slots that its weight is worth, to within one (`quota`), and a change moves exactly the
//!   slots that it must: what a backend has too much it gives back, what another lacks it claims
//!   along its own pseudo-random order of slots (`permutation`), as in Maglev.
//! * **The overlay** follows what is observed: health, drain. It is a function of the base and the
//!   set of usable backends and has no memory, so a backend that goes and comes back leaves no
//!   trace, and two balancers with the same base agree whatever each has seen before.
//!
//! Nothing here depends on the machine, the process or the order of input. The hash (`hash`) is
//! fixed for ever: two balancers of different versions must build the same table.

mod base;
mod hash;
mod overlay;
mod permutation;
mod quota;
#[cfg(test)]
mod tests;

pub use base::BaseTable;
pub use overlay::OverlaidTable;

/// Position of a backend in a table's sorted list of members.
type MemberIndex = u16;
