//! Loads the program, with its maps pinned or taken over from an earlier life.

use std::{path::PathBuf, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError},
    programs::{ProgramError, ProgramInfo, Xdp},
};
use lb_common::{
    flow::{RECORDS, overflow_words},
    hash::HashKey,
    records,
};
use tracing::{info, warn};

use super::{
    Clock, DataPlaneError, Detached, Overflows,
    ender::Ender,
    flows::{FlowTables, Tables, buckets_for},
    links::{self, Links},
    pins::{self, FLOW_OVERFLOWS4, FLOW_OVERFLOWS6, FLOWS4, FLOWS6, Pins},
    plain::Plain,
    ports::PortTables,
    programs::{has_multi_buffer, install_continuations, load_all, prepare_load, xdp},
    reader::KernelReader,
    samples::Samples,
    sys,
    tx_ports::TxPorts,
    writer::KernelWriter,
};
use crate::config::InterfaceSettings;

/// The XDP program, built by this crate's build script; empty if that was told to skip it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb"));

/// Levels of [`aya_log::LEVEL`]: error is 1, trace is 5. What is off is not even loaded.
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

/// What the data plane is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory on a BPF file system for the pins.
    pub bpffs: PathBuf,
    /// IPv4 flows that the connection table holds.
    pub capacity: u32,
    /// IPv6 flows.
    pub capacity_ipv6: u32,
    /// SYNs without a record that one CPU records in a tick before it takes them for a flood.
    pub flood_limit: u32,
    /// Whether echo requests to service addresses are answered.
    pub answer_echo: bool,
    /// Whether the program's own log statements are compiled in.
    pub log: bool,
}

/// The loaded program and its maps. Dropping it leaves everything forwarding.
pub struct DataPlane {
    ebpf: Ebpf,
    program: &'static str,
    /// Nothing was pinned before.
    new: bool,
    pins: Pins,
    writer: Option<KernelWriter>,
    tx_ports: TxPorts,
    samples: Arc<Samples>,
    reader: Arc<KernelReader>,
    ender: Arc<Ender>,
    clock: Arc<Clock>,
    overflows: Arc<Overflows>,
    links: Links,
}

impl DataPlane {
    /// Loads the program over the maps that are pinned below `settings.bpffs`, or over new ones.
    ///
    /// # Errors
    ///
    /// Another daemon holds the pins; the pinned maps have another layout; the kernel refuses
    /// the program or a map (its verifier's log is in the error's source).
    pub fn open(settings: &Settings) -> Result<Self, DataPlaneError> {
        prepare_load(OBJECT)?;
        let pins = Pins::lock(&settings.bpffs, &pins::BALANCER)
            .map_err(|error| DataPlaneError::new("take the pins", error))?;
        pins.refuse_other_layouts()
            .map_err(|error| DataPlaneError::new("load a data plane", error))?;
        let existing = pins
            .check()
            .map_err(|error| DataPlaneError::new("check the pinned maps", error))?;
        let buckets = |name, capacity| {
            let wanted = buckets_for(capacity);
            match existing.iter().find(|(pinned, _)| *pinned == name) {
                Some((_, pinned)) => {
                    if *pinned != wanted {
                        warn!(
                            map = name,
                            pinned,
                            wanted,
                            "the connection table keeps its size until `lbctl detach`"
                        );
                    }
                    *pinned
                }
                None => wanted,
            }
        };
        let buckets4 = buckets(FLOWS4, settings.capacity);
        let buckets6 = buckets(FLOWS6, settings.capacity_ipv6);
        let overflows4 = overflow_words(buckets4);
        let overflows6 = overflow_words(buckets6);
        for wanted in [(FLOW_OVERFLOWS4, overflows4), (FLOW_OVERFLOWS6, overflows6)] {
            let other = |&&(name, words): &&(_, u32)| name == wanted.0 && words != wanted.1;
            if let Some((name, words)) = existing.iter().find(other) {
                return Err(DataPlaneError::new(
                    "take over the pinned maps",
                    format!(
                        "{name} has {words} words, which is not for the connection table that is \
                         pinned beside it: `lbctl detach`, then start again"
                    ),
                ));
            }
        }
        let keys = Keys::adopt_or_make(&pins)?;

        let multi_buffer = has_multi_buffer();
        let buffers = u32::from(multi_buffer);
        let jiffy =
            sys::jiffy().map_err(|error| DataPlaneError::new("ask how long a jiffy is", error))?;
        let jiffy = jiffy.as_nanos() as u64;
        let log_level = if settings.log { LOG_DEBUG } else { LOG_OFF };
        let paths: Vec<_> = pins::MAPS
            .iter()
            .map(|map| (map.name, pins.map(map.name)))
            .collect();
        let mut loader = EbpfLoader::new();
        loader
            // The program reads no kernel structure whose layout would have to be looked up.
            .btf(None)
            .override_global("FLOW_KEY0", &keys.0[0], true)
            .override_global("FLOW_KEY1", &keys.0[1], true)
            .override_global("SELECTION_KEY0", &keys.0[2], true)
            .override_global("SELECTION_KEY1", &keys.0[3], true)
            .override_global("BUCKETS4", &buckets4, true)
            .override_global("BUCKETS6", &buckets6, true)
            .override_global("JIFFY", &jiffy, true)
            .override_global("MULTI_BUFFER", &buffers, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries(FLOWS4, buckets4)
            .map_max_entries(FLOWS6, buckets6)
            .map_max_entries(FLOW_OVERFLOWS4, overflows4)
            .map_max_entries(FLOW_OVERFLOWS6, overflows6);
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| DataPlaneError::new("load the XDP object", error))?;

        let mut open = |name: &'static str| open_pinned(&pins, name);
        write_settings(open("SETTINGS")?, settings)?;
        let clock = Clock::new(&mut ebpf, jiffy, open("SETTINGS")?)?;
        clock.correct()?;
        let program = if multi_buffer { "lb" } else { "lb_linear" };
        load_all(&mut ebpf, program, multi_buffer)?;
        install_continuations(&mut ebpf, multi_buffer, open("PROGRAMS")?)?;

        let ports = PortTables::default();
        let tables = FlowTables::new(
            &map_data(open(FLOWS4)?)?,
            buckets4,
            &map_data(open(FLOWS6)?)?,
            buckets6,
            &pins,
            ports.clone(),
        )?;
        let tables: Tables = Arc::new(tables);
        let overflows = Overflows::new(
            tables.clone(),
            &map_data(open(FLOW_OVERFLOWS4)?)?,
            &map_data(open(FLOW_OVERFLOWS6)?)?,
            HashKey {
                k0: keys.0[0],
                k1: keys.0[1],
            },
        )?;
        let samples = Samples::new(open("SAMPLES")?)
            .map_err(|error| DataPlaneError::new("open the samples", error))?;
        let samples = Arc::new(samples);
        let reader = KernelReader::new(&mut open, tables.clone(), samples.clone())?;
        let reader = Arc::new(reader);
        let ender = Arc::new(Ender::new(&mut open, tables)?);
        let writer = KernelWriter::new(&mut open, ports, samples.clone())?;
        let tx_ports = TxPorts::new(open(TxPorts::NAME)?)?;
        sys::give_back_memory(OBJECT);
        info!(
            program,
            adopted = !existing.is_empty(),
            flows_ipv4 = u64::from(buckets4) * RECORDS as u64,
            flows_ipv6 = u64::from(buckets6) * RECORDS as u64,
            "data plane loaded"
        );
        Ok(Self {
            ebpf,
            program,
            new: existing.is_empty(),
            pins,
            writer: Some(writer),
            tx_ports,
            samples,
            reader,
            ender,
            clock: Arc::new(clock),
            overflows: Arc::new(overflows),
            links: Links::default(),
        })
    }

    /// Whether there was no data plane before this one, so that nothing depends on it yet.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// The engine's end.
    ///
    /// # Errors
    ///
    /// It has been taken before.
    pub fn take_writer(&mut self) -> Result<KernelWriter, DataPlaneError> {
        self.writer
            .take()
            .ok_or_else(|| DataPlaneError::new("take the maps", "they have been taken before"))
    }

    pub fn reader(&self) -> Arc<KernelReader> {
        self.reader.clone()
    }

    /// Ends connections.
    pub fn ender(&self) -> Arc<Ender> {
        self.ender.clone()
    }

    /// To be corrected every [`Clock::INTERVAL`].
    pub fn clock(&self) -> Arc<Clock> {
        self.clock.clone()
    }

    /// To be refreshed every now and then.
    pub fn overflows(&self) -> Arc<Overflows> {
        self.overflows.clone()
    }

    /// Attaches the program to these interfaces and to no others: replaces it at once where an
    /// earlier life has attached it, so that no packet is lost.
    ///
    /// # Errors
    ///
    /// An interface does not exist, or takes the program in no wanted mode.
    pub fn attach(&mut self, wanted: &[InterfaceSettings]) -> Result<(), DataPlaneError> {
        // Replies leave where their requests came in.
        for interface in wanted {
            self.tx_ports.allow(links::index(interface)?)?;
        }
        let xdp = xdp(&mut self.ebpf, self.program)?;
        self.links.attach(xdp, &self.pins, wanted)?;
        self.reader.set_interfaces(self.links.attached().to_vec());
        Ok(())
    }

    /// Keeps the last samples of refused packets at hand until the task is ended.
    ///
    /// # Errors
    ///
    /// The ring buffer cannot be read, or this is not a tokio runtime.
    pub fn collect_samples(&self) -> Result<tokio::task::JoinHandle<()>, DataPlaneError> {
        let failed = || "collect the samples";
        let descriptor = self
            .samples
            .descriptor()
            .map_err(|error| DataPlaneError::new(failed(), error))?;
        // SAFETY: the descriptor is owned, and is the same for as long as it is registered.
        let ring = unsafe { tokio::io::unix::AsyncFd::register(descriptor) }
            .map_err(|error| DataPlaneError::new(failed(), error))?;
        let samples = self.samples.clone();
        Ok(tokio::spawn(async move {
            while let Ok(mut ready) = ring.readable().await {
                samples.collect();
                ready.clear_ready();
            }
        }))
    }

    /// Forwards the program's log statements to `tracing` until the task is ended.
    ///
    /// # Errors
    ///
    /// The ring buffer cannot be read, or this is not a tokio runtime.
    pub fn forward_program_log(&mut self) -> Result<tokio::task::JoinHandle<()>, DataPlaneError> {
        let failed = || "read the program's log";
        let logger = aya_log::EbpfLogger::init(&mut self.ebpf)
            .map_err(|error| DataPlaneError::new(failed(), error))?;
        // SAFETY: the logger owns its file descriptor and returns the same one for as long as it
        // lives, which is as long as it is registered.
        let mut logger = unsafe { tokio::io::unix::AsyncFd::register(logger) }
            .map_err(|error| DataPlaneError::new(failed(), error))?;
        Ok(tokio::spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }))
    }

    /// Takes the data plane down: packets pass to the host from now on.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn detach(self) -> Result<Detached, DataPlaneError> {
        self.pins
            .remove()
            .map_err(|error| DataPlaneError::new("detach", error))
    }

    /// The loaded program, for [`aya::programs::TestRun`].
    ///
    /// # Errors
    ///
    /// None after [`DataPlane::open`] has succeeded.
    pub fn program(&mut self) -> Result<&mut Xdp, DataPlaneError> {
        xdp(&mut self.ebpf, self.program)
    }

    /// What the kernel says of every program that is loaded, by its name.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn programs(&self) -> Result<Vec<(String, ProgramInfo)>, DataPlaneError> {
        let mut programs = Vec::new();
        for (name, program) in self.ebpf.programs() {
            match program.info() {
                Ok(info) => programs.push((name.to_owned(), info)),
                // The object also has those for older or for newer kernels.
                Err(ProgramError::NotLoaded) => {}
                Err(error) => {
                    return Err(DataPlaneError::new(format!("examine {name}"), error));
                }
            }
        }
        Ok(programs)
    }
}

/// Secrets of the hashes, kept with the pins: flows are found by them after a restart.
struct Keys([u64; 4]);

impl Keys {
    fn adopt_or_make(pins: &Pins) -> Result<Self, DataPlaneError> {
        let path = pins.map("KEYS");
        if path.exists() {
            let read = |error| DataPlaneError::new("read the pinned hash keys", error);
            let data = MapData::from_pin(&path).map_err(read)?;
            let map: Array<_, [u64; 4]> = Map::Array(data).try_into().map_err(read)?;
            return Ok(Self(map.get(&0, 0).map_err(read)?));
        }
        let mut bytes = [0; 32];
        random(&mut bytes).map_err(|error| DataPlaneError::new("draw the hash keys", error))?;
        let keys = std::array::from_fn(|n| {
            let word = std::array::from_fn(|byte| bytes[8 * n + byte]);
            u64::from_ne_bytes(word)
        });
        let pin = |error| DataPlaneError::new("pin the hash keys", error);
        let mut map = Array::<MapData, [u64; 4]>::create(1, 0).map_err(pin)?;
        map.set(0, keys, 0).map_err(pin)?;
        map.pin(&path)
            .map_err(|error| DataPlaneError::new("pin the hash keys", error))?;
        Ok(Self(keys))
    }
}

fn random(bytes: &mut [u8; 32]) -> std::io::Result<()> {
    use std::io::Read as _;
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

fn write_settings(map: Map, settings: &Settings) -> Result<(), DataPlaneError> {
    let failed = |error: MapError| DataPlaneError::new("write the settings", error);
    let mut map: Array<_, Plain<records::Settings>> = map.try_into().map_err(failed)?;
    let Plain(earlier) = map.get(&0, 0).map_err(failed)?;
    let record = records::Settings {
        flood_limit: settings.flood_limit,
        answer_echo: u32::from(settings.answer_echo),
        ..earlier
    };
    map.set(0, Plain(record), 0).map_err(failed)
}

/// A handle of its own to a pinned map.
pub(super) fn open_pinned(pins: &Pins, name: &'static str) -> Result<Map, DataPlaneError> {
    let failed = |error| DataPlaneError::new(format!("open map {name}"), error);
    Map::from_map_data(MapData::from_pin(pins.map(name)).map_err(failed)?).map_err(failed)
}

pub(super) fn map_data(map: Map) -> Result<MapData, DataPlaneError> {
    match map {
        Map::Array(data) | Map::ArrayOfMaps(data) => Ok(data),
        _ => Err(DataPlaneError::new(
            "open a map",
            "the object has it as another type",
        )),
    }
}
