//! A thousand services: what is wanted, what is to be done, and doing it.

use std::{hint::black_box, time::Duration};

use anyhow::ensure;
use lb_userspace::{
    config::Config,
    dataplane::Writer,
    engine::{Allocation, Bases, Effective, Inputs, Observed, Step, effective, plan, rebase},
    model::{Desired, Profile, Weight},
};

use super::{
    daemon::{Pinned, services},
    figures::{Figures, Unit, timed},
};
use crate::lab::Lab;

pub(super) const SERVICES: u16 = 1000;
pub(super) const BACKENDS: u8 = 4;

/// As the engine's thread has it.
struct State {
    desired: Desired,
    allocation: Allocation,
    bases: Bases,
    effective: Effective,
}

impl State {
    fn nothing() -> Self {
        Self {
            desired: Desired::default(),
            allocation: Allocation::default(),
            bases: Bases::default(),
            effective: Effective::default(),
        }
    }

    /// What follows when something else is wanted.
    fn change(&self, desired: Desired) -> anyhow::Result<Self> {
        let allocation = self.allocation.assign(&desired)?;
        let bases = rebase(&self.bases, &self.desired, &desired, &allocation);
        let observed = Observed::default();
        let inputs = Inputs {
            desired: &desired,
            allocation: &allocation,
            bases: &bases,
            observed: &observed,
            profile: Profile::default(),
        };
        let effective = effective(inputs, &self.effective);
        Ok(Self {
            desired,
            allocation,
            bases,
            effective,
        })
    }
}

pub(super) fn measure(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    let text = services(SERVICES, BACKENDS, "nat");
    let mut times: [Vec<Duration>; 8] = Default::default();
    for pass in 0..figures.passes {
        let (read, config) = timed(|| Config::parse(&text, "lb.toml"));
        let desired = config?.desired;
        let nothing = State::nothing();
        let (derived, all) = timed(|| nothing.change(desired.clone()));
        let all = all?;
        let (planned, steps) = timed(|| plan(&nothing.effective, &all.effective));
        let pinned = Pinned::new(lab, "plans")?;
        let mut plane = pinned.open()?;
        let mut writer = plane.take_writer()?;
        let (applied, done) = timed(|| apply(&mut writer, &steps));
        done?;

        let (unchanged, same) = timed(|| {
            let same = all.change(desired.clone())?;
            anyhow::Ok(plan(&all.effective, &same.effective))
        });
        ensure!(same?.is_empty(), "a plan without a change has steps");

        let mut wanted = desired.clone();
        let place = 500 + pass % 100;
        wanted.services[place].backends[0].weight = Weight(200);
        let (one_derived, one) = timed(|| all.change(wanted));
        let one = one?;
        let (one_planned, steps) = timed(|| plan(&all.effective, &one.effective));
        ensure!(!steps.is_empty(), "a changed weight makes no plan");
        let (one_applied, done) = timed(|| apply(&mut writer, &steps));
        done?;

        let samples = [
            read,
            derived,
            planned,
            applied,
            unchanged,
            one_derived,
            one_planned,
            one_applied,
        ];
        for (times, sample) in times.iter_mut().zip(samples) {
            times.push(sample);
        }
        black_box((plane, one));
    }
    let names = [
        "configuration read",
        "new: tables made",
        "new: planned",
        "new: applied",
        "unchanged: seen and planned",
        "one weight changed: table made",
        "one weight changed: planned",
        "one weight changed: applied",
    ];
    for (name, times) in names.iter().zip(&times) {
        let name = format!("1 000 services, {name}");
        figures.time(&name, Unit::Milliseconds, times);
    }
    Ok(())
}

fn apply(writer: &mut impl Writer, steps: &[Step]) -> anyhow::Result<()> {
    for step in steps {
        writer.apply(&step.write)?;
    }
    Ok(())
}
