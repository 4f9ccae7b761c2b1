//! What was found, in words.

use std::fmt;

use lb_userspace::dataplane::MapWrite;

use super::{
    rig::Mismatch,
    step::{Step, display_write},
};

/// A mismatch and the shortest way to it.
pub(super) struct Finding {
    pub(super) seed: u64,
    pub(super) number: u64,
    pub(super) scene: Vec<MapWrite>,
    pub(super) steps: Vec<Step>,
    pub(super) mismatch: Mismatch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scene {} of seed {}:", self.number, self.seed)?;
        for write in &self.scene {
            display_write(f, write)?;
        }
        writeln!(f, "\nsteps:")?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        writeln!(f, "{}", self.mismatch)?;
        write!(
            f,
            "again: cargo xtask fuzz --seed {} --scene {}",
            self.seed, self.number
        )
    }
}
