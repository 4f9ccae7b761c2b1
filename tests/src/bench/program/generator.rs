//! The generator and the floors, loaded; one measured run of a program behind the generator.

use std::{collections::BTreeMap, fs::File, time::Duration};

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, DevMap, MapData, PerCpuArray, ProgramArray},
    programs::{ProgramFd, TestRunAttrs, Xdp},
};
use lb_common::lab;

use super::{dispatcher, frame::Template};
use crate::bench::machine;

/// XDP verdicts (`include/uapi/linux/bpf.h`).
pub(in crate::bench) const DROP: u32 = 1;
pub(in crate::bench) const PASS: u32 = 2;
pub(in crate::bench) const TX: u32 = 3;

/// What does nothing with a packet: behind the generator, it measures the generator.
pub(in crate::bench) const NOTHING: &str = "floor_drop";
/// Sends live frames out of the interface that they are said to have come in by.
pub(in crate::bench) const SEND: &str = "send";
/// What can stand behind the generator, or be attached.
const FLOORS: [&str; 7] = [
    NOTHING,
    "floor_pass",
    "floor_swap_tx",
    "floor_dnat",
    "floor_redirect",
    SEND,
    "sink",
];
/// Live frames that are made before the first of them leaves: as many as a network driver takes
/// in at once.
const BATCH: u32 = 64;

/// Which flows a run's packets belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bench) enum Flows {
    /// Each packet of one of so many, a power of two, at random.
    Random(u32),
    /// One after another, from this one on.
    From(u32),
}

impl Flows {
    fn settings(self) -> Settings {
        match self {
            // Knuth's constants (MMIX), whose upper bits are as random as is needed.
            Self::Random(count) => Settings {
                state: 0x9e37_79b9_7f4a_7c15,
                multiplier: 6_364_136_223_846_793_005,
                increment: 1_442_695_040_888_963_407,
                mask: u64::from(count - 1),
            },
            Self::From(first) => Settings {
                state: (u64::from(first) << 32).wrapping_sub(1 << 32),
                multiplier: 1,
                increment: 1 << 32,
                mask: u64::from(u32::MAX),
            },
        }
    }
}

struct Settings {
    state: u64,
    multiplier: u64,
    increment: u64,
    mask: u64,
}

/// What a run came to.
pub(in crate::bench) struct Run {
    /// CPU time of all packets.
    pub(in crate::bench) time: Duration,
    /// Verdict on the last packet.
    pub(in crate::bench) verdict: u32,
    /// The last packet as the program left it.
    pub(in crate::bench) frame: Vec<u8>,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Entry(lab::Generator);

// SAFETY: words only.
unsafe impl aya::Pod for Entry {}

/// The programs of `lb-lab`.
pub(in crate::bench) struct Generator {
    ebpf: Ebpf,
    settings: Array<MapData, Entry>,
    list: Array<MapData, u32>,
    under_test: ProgramArray<MapData>,
    sink: PerCpuArray<MapData, u64>,
    out: DevMap<MapData>,
    floors: BTreeMap<&'static str, ProgramFd>,
    /// For as long as these are open, the programs are in the kernel's XDP dispatcher.
    _kept: Vec<File>,
}

impl Generator {
    pub(in crate::bench) fn load() -> anyhow::Result<Self> {
        ensure!(
            !lb_userspace::dataplane::LAB_OBJECT.is_empty(),
            "built without the XDP programs (AYA_BUILD_SKIP): build again without"
        );
        let mut ebpf = EbpfLoader::new()
            .load(lb_userspace::dataplane::LAB_OBJECT)
            .context("load lb-lab")?;
        let mut map = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let settings = map("GENERATOR")?.try_into()?;
        let list = map("LIST")?.try_into()?;
        let under_test = map("UNDER_TEST")?.try_into()?;
        let sink = map("SINK")?.try_into()?;
        let out = map("OUT")?.try_into()?;
        let mut floors = BTreeMap::new();
        let mut kept = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
            if let Some(&floor) = FLOORS.iter().find(|&&floor| floor == name) {
                floors.insert(floor, program.fd()?.try_clone()?);
            } else {
                kept.push(dispatcher::keep(program).with_context(|| format!("keep {name}"))?);
            }
        }
        Ok(Self {
            ebpf,
            settings,
            list,
            under_test,
            sink,
            out,
            floors,
            _kept: kept,
        })
    }

    /// Puts a floor behind the generator.
    pub(in crate::bench) fn test_floor(&mut self, name: &str) -> anyhow::Result<()> {
        let floor = self.floors.get(name).context("no such floor")?;
        self.under_test.set(0, floor, 0)?;
        Ok(())
    }

    /// Puts another program behind the generator.
    pub(in crate::bench) fn test(&mut self, program: &ProgramFd) -> anyhow::Result<()> {
        self.under_test
            .set(0, program, 0)
            .context("put the program behind the generator")
    }

    /// What the programs that have a list find there. Flows are then numbered by their place.
    pub(in crate::bench) fn list(&mut self, flows: &[u32]) -> anyhow::Result<()> {
        for (place, &flow) in (0..).zip(flows) {
            self.list.set(place, flow, 0).context("write the list")?;
        }
        Ok(())
    }

    /// Gives `packets` frames to the program under test, each restored and of one of `flows`.
    pub(in crate::bench) fn run(
        &mut self,
        template: &Template,
        flows: Flows,
        packets: u32,
    ) -> anyhow::Result<Run> {
        self.start(template, flows)?;
        let run = self.go_on(template, packets)?;
        self.expect_made(packets)?;
        Ok(run)
    }

    /// The same, frame by frame: `see` gets to see each that comes back.
    pub(in crate::bench) fn run_one_by_one(
        &mut self,
        template: &Template,
        flows: Flows,
        count: u32,
        mut see: impl FnMut(&Run) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.start(template, flows)?;
        for _ in 0..count {
            see(&self.go_on(template, 1)?)?;
        }
        self.expect_made(count)
    }

    /// Gives frames to the program under test that are real: it may send them. They come in by an
    /// interface of the caller's network namespace, whose index is given, and which has an XDP
    /// program. Returns the time that a frame takes, slice by slice of `packets`, by the kernel's
    /// clock: without setting a slice up, and with what this CPU does with the frames elsewhere.
    pub(in crate::bench) fn run_live(
        &mut self,
        template: &Template,
        flows: Flows,
        slices: u32,
        packets: u32,
        ingress: u32,
    ) -> anyhow::Result<Vec<Duration>> {
        self.start(template, flows)?;
        let program = self.prelude(template)?;
        let packet = vec![0; template.length()];
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex; the first three as offsets.
        let context = [0, packet.len() as u32, 0, ingress, 0, 0];
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let slice = |_| {
            let result = program.test_run(TestRunOptions {
                data_in: Some(&packet),
                ctx_in: Some(&context),
                repeat: packets,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            });
            let result = result.context("send live frames (Linux 5.18 or newer)")?;
            Ok(result.duration)
        };
        let times = (0..slices).map(slice).collect();
        self.expect_made(slices * packets)?;
        times
    }

    /// One of the programs of `lb-lab`, for attaching it.
    pub(in crate::bench) fn xdp(&mut self, name: &str) -> anyhow::Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program
            .with_context(|| format!("lb-lab has no program {name}"))?
            .try_into()?)
    }

    /// From now on the redirecting floor sends to this interface of the caller's namespace.
    pub(in crate::bench) fn redirect_to(&mut self, interface: u32) -> anyhow::Result<()> {
        Ok(self.out.set(0, interface, None, 0)?)
    }

    /// Frames of the generator that have come to the sinks so far.
    pub(in crate::bench) fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.sink.get(&lab::ARRIVED, 0)?.iter().sum())
    }

    fn start(&mut self, template: &Template, flows: Flows) -> anyhow::Result<()> {
        let Settings {
            state,
            multiplier,
            increment,
            mask,
        } = flows.settings();
        let entry = lab::Generator {
            frame: template.words(),
            state,
            multiplier,
            increment,
            mask,
            packets: 0,
        };
        self.settings.set(0, Entry(entry), 0)?;
        Ok(())
    }

    fn go_on(&self, template: &Template, packets: u32) -> anyhow::Result<Run> {
        let program = self.prelude(template)?;
        let packet = vec![0; template.length()];
        let mut frame = vec![0; template.length() + MOST_IN_FRONT];
        let before = machine::cpu_time()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut frame),
            repeat: packets,
            ..TestRunOptions::default()
        })?;
        let time = machine::cpu_time()?.saturating_sub(before);
        frame.truncate(result.data_size_out as usize);
        Ok(Run {
            time,
            verdict: result.return_value,
            frame,
        })
    }

    /// The program that makes such frames.
    fn prelude(&self, template: &Template) -> anyhow::Result<&Xdp> {
        let name = template.generator();
        match self.ebpf.program(name) {
            Some(program) => Ok(program.try_into()?),
            None => bail!("lb-lab has no program {name}"),
        }
    }

    fn expect_made(&self, packets: u32) -> anyhow::Result<()> {
        let Entry(entry) = self.settings.get(&0, 0)?;
        ensure!(
            entry.packets == u64::from(packets),
            "the generator made {} packets instead of {packets}",
            entry.packets
        );
        Ok(())
    }
}

/// Bytes that a program may put in front of a frame.
const MOST_IN_FRONT: usize = 64;
