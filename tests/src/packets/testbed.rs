//! The loaded program, with services and backends, and frames run through it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aya::{
    maps::{Array, Map, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use lb_common::{
    flow::{FlowValue, RECORDS},
    reason::Reason,
    records::LAYOUT_VERSION,
    tcp::State,
};
use lb_userspace::{
    config::InterfaceSettings,
    dataplane::{
        BackendCounters, Connection, ConnectionTotals, DataPlane, KernelReader, KernelWriter,
        MapWrite, Reader as _, Settings, Writer as _,
    },
    model::{BackendIndex, ServiceId},
};

use crate::model::{Keys, Model};

use super::{
    dissect::Dissection,
    expect::Reasons,
    packet::{Packet, flags},
};

/// Index of the loopback interface.
pub(super) const LOOPBACK: u32 = 1;

/// What the program says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Aborted,
    Drop,
    Pass,
    /// Out through the interface it came in by.
    Transmit,
    /// Out through another.
    Redirect,
}

/// A verdict, and the frame as the program has left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
}

/// The data plane over pins of its own, which go when it is dropped.
pub struct Testbed {
    plane: DataPlane,
    writer: KernelWriter,
    reader: Arc<KernelReader>,
    directory: PathBuf,
    /// Says what must become of a frame that is checked.
    pub(super) model: Option<Model>,
}

impl Testbed {
    /// With room for the flows that most tests make.
    pub fn new() -> Self {
        Self::with_settings(|_| {})
    }

    /// With connection tables of `flows` each for IPv4 and IPv6.
    pub fn with_capacity(flows: u32) -> Self {
        Self::with_settings(|settings| {
            settings.capacity = flows;
            settings.capacity_ipv6 = flows;
        })
    }

    /// [`Testbed::with_capacity`], with hash keys that are not drawn at random.
    ///
    /// # Panics
    ///
    /// As everything here, when the kernel refuses.
    pub fn with_keys(flows: u32, keys: [u64; 4]) -> Self {
        Self::with_settings(|settings| {
            settings.capacity = flows;
            settings.capacity_ipv6 = flows;
            let maps = maps_below(&settings.bpffs);
            fs::create_dir_all(&maps).expect("there is a BPF file system");
            let mut map = Array::<MapData, [u64; 4]>::create(1, 0).expect("the kernel makes maps");
            map.set(0, keys, 0).expect("the keys are written");
            map.pin(maps.join("KEYS")).expect("the keys are pinned");
        })
    }

    /// With settings that differ from the tests' own as `change` says.
    ///
    /// # Panics
    ///
    /// As everything here, when the kernel refuses.
    pub fn with_settings(change: impl FnOnce(&mut Settings)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-packets-{}-{number}", process::id());
        let directory = PathBuf::from("/sys/fs/bpf").join(name);
        let mut settings = Settings {
            bpffs: directory.clone(),
            capacity: 2_000,
            capacity_ipv6: 2_000,
            // No test is a flood unless it says so.
            flood_limit: u32::MAX,
            answer_echo: true,
            log: false,
        };
        change(&mut settings);
        let mut plane = DataPlane::open(&settings)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
        let writer = plane.take_writer().expect("nobody has taken it");
        Self {
            reader: plane.reader(),
            plane,
            writer,
            directory,
            model: None,
        }
    }

    /// One for frames that do not depend on what came before them, and services with one backend:
    /// [`Testbed::check`] then holds what a test expects against the model, too.
    pub fn with_model() -> Self {
        let mut testbed = Self::new();
        // Every slot is the one backend's, by whatever hash.
        testbed.model = Some(Model::new(Keys([0; 4])));
        testbed
    }

    /// As the daemon does once in a while.
    pub fn refresh_overflows(&self) {
        let overflows = self.plane.overflows();
        overflows.refresh().expect("the kernel has membarrier(2)");
    }

    /// How many IPv4 buckets are known to have overflowed.
    pub fn overflowed(&self) -> u32 {
        let words: Vec<u64> = self
            .table::<1>("FLOW_OVERFLOWS4")
            .iter()
            .map(|word| word.expect("a word is read")[0])
            .collect();
        let (half, bits) = words.split_first().expect("one says which half is read");
        let read = bits.chunks(bits.len() / 2).nth(*half as usize);
        read.expect("there are two")
            .iter()
            .map(|word| word.count_ones())
            .sum()
    }

    pub fn attach(&mut self, interfaces: &[InterfaceSettings]) {
        self.plane
            .attach(interfaces)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    }

    pub fn apply(&mut self, write: &MapWrite) {
        if let Some(model) = &mut self.model {
            model.apply(write);
        }
        self.writer
            .apply(write)
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    }

    /// Runs a frame that came in through the loopback interface (index 1).
    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        self.run_with(frame, None)
    }

    /// Runs a frame that came in through this interface, which must be up and have an XDP program.
    pub fn run_from(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let context = Context {
            data_end: frame.len() as u32,
            ingress_ifindex: ifindex,
            ..Context::default()
        };
        self.run_with(frame, Some(context))
    }

    /// Runs a frame whose first buffer ends after `linear` bytes; the rest is in further ones.
    pub fn run_split(&mut self, frame: &[u8], linear: usize) -> Outcome {
        self.run_with(frame, Some(Context::split(linear)))
    }

    /// Runs a frame that has no more than a few bytes of headroom, because a driver's metadata
    /// stands in front of it.
    pub fn run_without_headroom(&mut self, frame: &[u8]) -> Outcome {
        self.run_buffers(LOOPBACK, frame, frame.len(), false)
    }

    /// Runs a frame that came in through this interface (as for [`Testbed::run_from`], or the
    /// loopback), with `linear` bytes in the first buffer, and with headroom or, as by
    /// [`Testbed::run_without_headroom`], without.
    pub fn run_buffers(
        &mut self,
        ifindex: u32,
        frame: &[u8],
        linear: usize,
        has_headroom: bool,
    ) -> Outcome {
        // The kernel leaves 256 bytes, of which it keeps 40 for itself.
        let metadata = if has_headroom { 0 } else { 216 };
        let context = Context {
            data: metadata as u32,
            data_end: (metadata + linear) as u32,
            // The loopback is what the kernel takes if none is named, and cannot be named.
            ingress_ifindex: if ifindex == LOOPBACK { 0 } else { ifindex },
        };
        if has_headroom {
            return self.run_with(frame, Some(context));
        }
        let input = [&vec![0xff; metadata], frame].concat();
        let mut outcome = self.run_with(&input, Some(context));
        outcome.frame.drain(..metadata);
        outcome
    }

    fn run_with(&mut self, frame: &[u8], context: Option<Context>) -> Outcome {
        let program = self.plane.program().expect("it is loaded");
        run_program(program, frame, context)
    }

    /// Runs a packet that is to be sent on; how it looks then.
    #[track_caller]
    pub fn forward(&mut self, packet: &Packet) -> Dissection {
        let outcome = self.run(&packet.build());
        assert_eq!(outcome.verdict, Verdict::Transmit, "{packet:?}");
        let dissection = Dissection::of(&outcome.frame).expect("TCP in, TCP out");
        assert!(dissection.ip_checksum_verifies, "{dissection:?}");
        assert!(dissection.tcp_checksum_verifies, "{dissection:?}");
        dissection
    }

    /// Sends one segment from a client; the backend that gets it.
    #[track_caller]
    pub fn request(&mut self, client: SocketAddr, listen: SocketAddr, flags: u8) -> SocketAddr {
        self.forward(&Packet::new(client, listen).flags(flags))
            .destination
    }

    /// Sends one segment from a backend; whom the client takes it to be from.
    #[track_caller]
    pub fn reply(&mut self, backend: SocketAddr, client: SocketAddr, flags: u8) -> SocketAddr {
        self.forward(&Packet::new(backend, client).flags(flags))
            .source
    }

    /// Opens a connection; the backend that has it.
    #[track_caller]
    pub fn connect(&mut self, client: SocketAddr, listen: SocketAddr) -> SocketAddr {
        let backend = self.request(client, listen, flags::SYN);
        assert_eq!(self.reply(backend, client, flags::SYN_ACK), listen);
        assert_eq!(self.request(client, listen, flags::ACK), backend);
        backend
    }

    /// Opens a connection if its SYN finds a place in the connection table; whether it does. There
    /// must be no route to the client: a reply is then translated only by a record.
    #[track_caller]
    pub fn connect_if_tracked(&mut self, client: SocketAddr, listen: SocketAddr) -> bool {
        let backend = self.request(client, listen, flags::SYN);
        let reply = Packet::new(backend, client).flags(flags::SYN_ACK).build();
        match self.run(&reply).verdict {
            Verdict::Transmit => {
                assert_eq!(self.request(client, listen, flags::ACK), backend);
                true
            }
            verdict => {
                assert_eq!(verdict, Verdict::Pass);
                false
            }
        }
    }

    /// Every reason counted so far, of the first few services and of none.
    pub fn reasons(&self) -> Reasons {
        let services = (1..=4).map(|id| Some(ServiceId(id)));
        let mut reasons = BTreeMap::new();
        for service in services.chain([None]) {
            let counts = self.reader.reasons(service).expect("the counters are read");
            for count in counts {
                reasons.insert((service, count.reason), count.packets);
            }
        }
        reasons
    }

    pub fn reader(&self) -> &KernelReader {
        &self.reader
    }

    pub fn reason(&self, service: ServiceId, reason: Reason) -> u64 {
        let key = (Some(service), reason.name());
        self.reasons().get(&key).copied().unwrap_or(0)
    }

    pub fn backend_counters(&self, backend: BackendIndex) -> BackendCounters {
        self.reader
            .backend_counters(backend)
            .expect("the counters are read")
    }

    pub fn connections(&self) -> Vec<Connection> {
        let mut connections = Vec::new();
        self.reader.connections(&mut |connection| {
            connections.push(connection);
            true
        });
        connections
    }

    /// The state of a client's connection with a service, if there is one.
    pub fn state(&self, service: ServiceId, client: SocketAddr) -> Option<&'static str> {
        let wanted = |c: &Connection| c.service == service && c.client == client;
        let found = self.connections().into_iter().find(wanted);
        found.map(|connection| connection.state)
    }

    /// Where the maps are pinned.
    pub fn maps(&self) -> PathBuf {
        maps_below(&self.directory)
    }

    /// Every word of both connection tables.
    pub fn records(&self) -> Vec<u64> {
        fn words<const WORDS: usize>(table: Array<MapData, [u64; WORDS]>) -> Vec<u64> {
            let buckets = table.iter().map(|bucket| bucket.expect("a bucket is read"));
            buckets.flatten().collect()
        }
        let v4 = words(self.table::<8>("FLOWS4"));
        let v6 = words(self.table::<16>("FLOWS6"));
        [v4, v6].concat()
    }

    /// A pinned connection table, each bucket as its words.
    fn table<const WORDS: usize>(&self, name: &str) -> Array<MapData, [u64; WORDS]> {
        let path = self.maps().join(name);
        let data = MapData::from_pin(&path).expect("the table is pinned");
        let map = Map::from_map_data(data).expect("aya knows the map's type");
        map.try_into().expect("it is an array of lines")
    }

    /// Empties the IPv4 connection table, as if this balancer had taken over from another.
    pub fn forget_connections(&mut self) {
        self.change_connections::<8>("FLOWS4", |_| [0; 8]);
    }

    /// Puts every connection in this state, as the daemon does with those that it ends.
    pub fn set_state_of_all(&mut self, state: State) {
        fn in_state<const WORDS: usize>(mut line: [u64; WORDS], state: State) -> [u64; WORDS] {
            // Keys and values in turn, in both families.
            for word in line[..2 * RECORDS].iter_mut().skip(1).step_by(2) {
                let value = FlowValue::from_bits(*word);
                if value.state().is_live() {
                    *word = value.with_state(state).bits();
                }
            }
            line
        }
        self.change_connections::<8>("FLOWS4", |line| in_state(line, state));
        self.change_connections::<16>("FLOWS6", |line| in_state(line, state));
    }

    /// Rewrites a connection table bucket by bucket, each as its words.
    fn change_connections<const WORDS: usize>(
        &mut self,
        table: &str,
        change: impl Fn([u64; WORDS]) -> [u64; WORDS],
    ) {
        let mut table = self.table::<WORDS>(table);
        for bucket in 0..table.len() {
            let line = table.get(&bucket, 0).expect("a bucket is read");
            table
                .set(bucket, change(line), 0)
                .expect("a bucket is written");
        }
    }

    pub fn totals(&self) -> ConnectionTotals {
        self.reader.connection_totals()
    }
}

/// Runs a frame through a program.
pub(super) fn run_program(program: &Xdp, frame: &[u8], context: Option<Context>) -> Outcome {
    let mut out = vec![0; frame.len() + 64];
    let context = context.map(Context::bytes);
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.ctx_in = context.as_ref().map(<[u8; 24]>::as_slice);
    let result = program
        .test_run(options)
        .unwrap_or_else(|error| panic!("{} bytes: {error}: {error:?}", frame.len()));
    out.truncate(result.data_size_out as usize);
    let verdict = match result.return_value {
        1 => Verdict::Drop,
        2 => Verdict::Pass,
        3 => Verdict::Transmit,
        4 => Verdict::Redirect,
        _ => Verdict::Aborted,
    };
    Outcome {
        verdict,
        frame: out,
    }
}

fn maps_below(directory: &Path) -> PathBuf {
    directory.join(format!("v{LAYOUT_VERSION}/maps"))
}

impl Default for Testbed {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.directory);
        if let (Err(error), false) = (removed, std::thread::panicking()) {
            panic!("{} stays behind: {error}", self.directory.display());
        }
    }
}

/// `struct xdp_md` (`include/uapi/linux/bpf.h`): what the program is told about the frame.
/// `data` and `data_end` are offsets in the input; what is before `data` is metadata.
#[derive(Clone, Copy, Default)]
pub(super) struct Context {
    data: u32,
    data_end: u32,
    ingress_ifindex: u32,
}

impl Context {
    /// Of a frame whose first buffer ends after `linear` bytes.
    pub(super) fn split(linear: usize) -> Self {
        Self {
            data_end: linear as u32,
            ..Self::default()
        }
    }

    fn bytes(self) -> [u8; 24] {
        let words = [self.data, self.data_end, 0, self.ingress_ifindex, 0, 0];
        let mut bytes = [0; 24];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
