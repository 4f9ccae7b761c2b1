//! What a cache line costs that the CPU has to wait for, on this machine at this time: a floor for
//! whatever looks at one line in a large table. On a shared machine it depends on how much of the
//! shared cache the neighbours leave.

use std::hint::black_box;

use crate::bench::machine::cpu_time;

/// As many bytes as an IPv4 connection table of default size has, or nearly.
const MEGABYTES: usize = 23;
const LINES: usize = (MEGABYTES << 20) / size_of::<Line>();
/// Loads that are measured, behind as many as fill the caches.
const LOADS: usize = LINES;

/// Of the figure.
pub(super) fn name() -> String {
    format!("memory: loads one after another, all over {MEGABYTES} MB")
}

/// One round through all lines, in an order that no prefetcher foresees: each names the next.
pub(super) struct Chain(Box<[Line]>);

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    next: usize,
}

impl Chain {
    pub(super) fn new() -> Self {
        let mut lines: Box<[Line]> = (0..LINES).map(|next| Line { next }).collect();
        // Sattolo's shuffle makes one round of them; Knuth's constants (MMIX).
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..LINES).rev() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let other = (random >> 32) as usize % last;
            let next = lines[last].next;
            lines[last].next = lines[other].next;
            lines[other].next = next;
        }
        Self(lines)
    }

    /// Nanoseconds a load.
    pub(super) fn cost(&self) -> anyhow::Result<f64> {
        let follow = |first| (0..LOADS).fold(first, |line: usize, _| self.0[line].next);
        let last = black_box(follow(0));
        let start = cpu_time()?;
        black_box(follow(last));
        Ok((cpu_time()? - start).as_secs_f64() * 1e9 / LOADS as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_leads_through_every_line() {
        let Chain(lines) = Chain::new();
        let mut seen = vec![false; LINES];
        let mut line = 0;
        while !seen[line] {
            seen[line] = true;
            line = lines[line].next;
        }
        assert!(line == 0 && seen.iter().all(|seen| *seen));
    }
}
