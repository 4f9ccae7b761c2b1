//! The loaded decapsulator, and frames run through it.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use lb_common::decap::{self, Outcome as Counted};
use lb_userspace::dataplane::decap::{DecapError, Decapsulator};

use super::testbed::{Context, Outcome, Verdict, run_program};

/// What is to become of a frame.
#[derive(Clone, Debug)]
pub enum Expected {
    /// To the host as this frame, counted once.
    Stripped(Counted, Vec<u8>),
    /// To the host, byte for byte as it came, and counted nowhere.
    Pass,
    /// Not forwarded as [`Expected::Stripped`]: passed as it came, or dropped, by the nature of
    /// this outcome, and counted once.
    Left(Counted),
}

/// The decapsulator over pins of its own, which go when it is dropped.
pub struct DecapBed {
    decapsulator: Decapsulator,
    directory: PathBuf,
}

impl DecapBed {
    /// On a host with these addresses, and GUE at the default port.
    ///
    /// # Panics
    ///
    /// As everything here, when the kernel refuses.
    pub fn new(addresses: &[&str]) -> Self {
        Self::opened_by(Decapsulator::open, addresses)
    }

    /// With the entry point for kernels without multi-buffer XDP.
    pub fn linear(addresses: &[&str]) -> Self {
        Self::opened_by(Decapsulator::open_linear, addresses)
    }

    fn opened_by(
        open: impl FnOnce(&Path) -> Result<Decapsulator, DecapError>,
        addresses: &[&str],
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-decap-{}-{number}", process::id());
        let directory = PathBuf::from("/sys/fs/bpf").join(name);
        let decapsulator = open(&directory).unwrap_or_else(|error| panic!("{error:?}"));
        let mut bed = Self {
            decapsulator,
            directory,
        };
        bed.set_addresses(addresses);
        bed.decapsulator
            .set_gue_port(None)
            .expect("the port is set");
        bed
    }

    pub fn set_addresses(&mut self, addresses: &[&str]) {
        let address = |text: &&str| -> IpAddr { text.parse().expect("an address") };
        self.decapsulator
            .set_addresses(&addresses.iter().map(address).collect())
            .expect("the addresses are set");
    }

    pub fn decapsulator(&mut self) -> &mut Decapsulator {
        &mut self.decapsulator
    }

    pub fn run(&mut self, frame: &[u8]) -> Outcome {
        self.run_with(frame, None)
    }

    /// Runs a frame whose first buffer ends after `linear` bytes; the rest is in further ones.
    pub fn run_split(&mut self, frame: &[u8], linear: usize) -> Outcome {
        self.run_with(frame, Some(Context::split(linear)))
    }

    fn run_with(&mut self, frame: &[u8], context: Option<Context>) -> Outcome {
        let program = self.decapsulator.program().expect("it is loaded");
        run_program(program, frame, context)
    }

    /// Runs a frame and holds verdict, bytes and counters against what is expected.
    #[track_caller]
    pub fn check(&mut self, description: &str, frame: &[u8], expected: &Expected) {
        let before = self.counters();
        let outcome = self.run(frame);
        self.compare(description, frame, expected, before, &outcome);
    }

    /// [`DecapBed::check`] of a frame in several buffers.
    #[track_caller]
    pub fn check_split(
        &mut self,
        description: &str,
        frame: &[u8],
        linear: usize,
        expected: &Expected,
    ) {
        let before = self.counters();
        let outcome = self.run_split(frame, linear);
        self.compare(description, frame, expected, before, &outcome);
    }

    #[track_caller]
    fn compare(
        &self,
        description: &str,
        frame: &[u8],
        expected: &Expected,
        before: BTreeMap<String, u64>,
        outcome: &Outcome,
    ) {
        let (verdict, bytes, counted) = match expected {
            Expected::Stripped(counted, bytes) => (Verdict::Pass, &bytes[..], Some(counted)),
            Expected::Pass => (Verdict::Pass, frame, None),
            Expected::Left(counted) => match counted.verdict() {
                decap::Verdict::Dropped => (Verdict::Drop, &outcome.frame[..], Some(counted)),
                decap::Verdict::Passed => (Verdict::Pass, frame, Some(counted)),
                decap::Verdict::Stripped => panic!("{description}: that is not left"),
            },
        };
        let mut wanted = before;
        if let Some(counted) = counted {
            *wanted.entry(counted.name().to_owned()).or_default() += 1;
        }
        assert_eq!(self.counters(), wanted, "{description}: counters");
        assert_eq!(outcome.verdict, verdict, "{description}");
        assert!(
            outcome.frame == bytes,
            "{description}:\n     got {:02x?}\nexpected {bytes:02x?}",
            outcome.frame,
        );
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let counters = self.decapsulator.counters().expect("they are read");
        let counted = counters.into_iter().map(|c| (c.outcome, c.packets));
        counted.collect()
    }
}

impl Drop for DecapBed {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.directory);
        if let (Err(error), false) = (removed, std::thread::panicking()) {
            panic!("{} stays behind: {error}", self.directory.display());
        }
    }
}
