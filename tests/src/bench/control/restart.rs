//! From the start of `lbd` until it is ready.

use super::{
    daemon::{Daemon, services},
    figures::{Figures, Unit, timed},
    memory::Memory,
    plans::{BACKENDS, SERVICES},
};
use crate::lab::Lab;

/// Daemon and maps at start, with defaults.
const MOST_MEGABYTES: f64 = 64.0;

pub(super) fn measure(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    one_service(figures, lab)?;
    a_thousand_services(figures, lab)
}

fn one_service(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    let text = services(1, BACKENDS, "nat");
    let (mut first, mut again, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for pass in 0..figures.passes {
        let mut lbd = Daemon::new(lab, &format!("one-{pass}"), &text)?;
        first.push(lbd.start()?);
        memory.push(Memory::of(&lbd)?);
        lbd.kill()?;
        again.push(lbd.start()?);
    }
    figures.time("first start, 1 service", Unit::Milliseconds, &first);
    figures.time(
        "restart until adopted, 1 service",
        Unit::Milliseconds,
        &again,
    );
    let mut add = |name: &str, goal, part: fn(&Memory) -> u64| {
        let samples: Vec<_> = memory.iter().map(part).collect();
        figures.megabytes(name, &samples, goal);
    };
    add(
        "daemon + maps at start, defaults",
        Some(MOST_MEGABYTES),
        Memory::total,
    );
    add("  connection tables", None, |memory| memory.flow_tables);
    add("  other maps", None, |memory| memory.other_maps);
    add("  programs", None, |memory| memory.programs);
    add("  lbd: data", None, |memory| memory.anonymous);
    add("  lbd: code", None, |memory| memory.files);
    Ok(())
}

fn a_thousand_services(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    let text = services(SERVICES, BACKENDS, "nat");
    let mut lbd = Daemon::new(lab, "thousand", &text)?;
    let first = lbd.start()?;
    let (mut again, mut stats, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..figures.passes {
        lbd.kill()?;
        again.push(lbd.start()?);
        let (time, answer) = timed(|| lbd.get("/services"));
        answer?;
        stats.push(time);
        memory.push(Memory::of(&lbd)?);
    }
    figures.time("first start, 1 000 services", Unit::Milliseconds, &[first]);
    figures.time(
        "restart until adopted, 1 000 services",
        Unit::Milliseconds,
        &again,
    );
    figures.time("1 000 services listed", Unit::Milliseconds, &stats);
    let samples: Vec<_> = memory.iter().map(Memory::total).collect();
    figures.megabytes("daemon + maps, 1 000 services", &samples, None);
    Ok(())
}
