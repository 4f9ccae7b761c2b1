//! Slot tables: made, and put in the place of the one in use.

use std::{
    collections::BTreeSet,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_userspace::{
    dataplane::{MapWrite, Slot, Writer as _},
    model::{BackendIndex, ServiceId, TableSize, Weight},
    table::BaseTable,
};

use super::{
    daemon::Pinned,
    figures::{Figures, Unit, timed},
};
use crate::lab::Lab;

const SERVICE: ServiceId = ServiceId(1);
/// Changes of a pass: each is over in microseconds.
const SWAPS: u32 = 100;

pub(super) fn measure(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    for backends in [10, 100, 1000] {
        build(figures, backends);
    }
    swap(figures, lab)
}

/// With the weights 1, 2 and 3 in turn.
fn build(figures: &mut Figures, backends: u16) {
    let size = TableSize::default();
    let mut weights: Vec<_> = (0..backends)
        .map(|n| (address(n), Weight(1 + n % 3)))
        .collect();
    let usable: BTreeSet<_> = weights.iter().map(|&(address, _)| address).collect();
    let without_first: BTreeSet<_> = usable.iter().skip(1).copied().collect();
    let (mut new, mut changed, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for pass in 0..figures.passes {
        let (time, base) = timed(|| BaseTable::build(size, None, &weights));
        let (overlay, table) = timed(|| base.overlay(&usable));
        black_box(table);
        new.push(time + overlay);
        let (time, table) = timed(|| base.overlay(&without_first));
        black_box(table);
        down.push(time);
        weights[0].1 = Weight(4 + pass as u16 % 2);
        let (time, table) = timed(|| BaseTable::build(size, Some(&base), &weights));
        black_box(table);
        changed.push(time);
        weights[0].1 = Weight(1);
    }
    let slots = size.slots();
    let mut add = |what: &str, times: &[Duration]| {
        let name = format!("{slots} slots for {backends} backends, {what}");
        figures.time(&name, Unit::Milliseconds, times);
    };
    add("new", &new);
    add("one weight changed", &changed);
    add("one backend down", &down);
}

fn address(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    (Ipv4Addr::new(10, 0, high, low), 8080).into()
}

fn swap(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    let pinned = Pinned::new(lab, "swap")?;
    let mut plane = pinned.open()?;
    let mut writer = plane.take_writer()?;
    let slots = TableSize::default().slots();
    let create = MapWrite::CreateTable {
        service: SERVICE,
        slots,
    };
    let (mut created, mut swapped, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..figures.passes {
        writer.apply(&MapWrite::RemoveTable { service: SERVICE })?;
        let tables = [0, 1].map(|first| MapWrite::WriteTable {
            service: SERVICE,
            slots: (first..slots + first)
                .map(|n| Slot {
                    primary: Some(BackendIndex(1 + (n % 8) as u16)),
                    secondary: Some(BackendIndex(1 + ((n + 1) % 8) as u16)),
                })
                .collect::<Arc<[_]>>(),
        });
        let (time, done) = timed(|| {
            // The second step is what installs it.
            writer.apply(&create)?;
            writer.apply(&tables[0])
        });
        done?;
        created.push(time);
        let mut turns = tables.iter().cycle();
        let (time, done) = timed(|| {
            (0..SWAPS).try_for_each(|_| turns.next().map_or(Ok(()), |write| writer.apply(write)))
        });
        done?;
        swapped.push(time / SWAPS);
        let from = vec![1_u32; slots as usize];
        let mut to = vec![0_u32; slots as usize];
        let (time, ()) = timed(|| {
            for _ in 0..SWAPS {
                black_box(&mut to).copy_from_slice(black_box(&from));
            }
        });
        copied.push(time / SWAPS);
    }
    figures.time(
        "slot table made (waits for RCU)",
        Unit::Milliseconds,
        &created,
    );
    figures.time("slot table swapped", Unit::Microseconds, &swapped);
    figures.time("the same bytes copied", Unit::Microseconds, &copied);
    Ok(())
}
