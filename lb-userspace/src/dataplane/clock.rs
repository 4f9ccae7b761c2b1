//! The packet path's clock, and that it goes right.

use std::{io, os::fd::AsFd as _, sync::Mutex, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError},
    programs::ProgramFd,
};
use lb_common::{flow::Tick, records};

use super::{DataPlaneError, plain::Plain, programs, sys};

type SettingsMap = Array<MapData, Plain<records::Settings>>;

/// Keeps the packet path's clock with `CLOCK_MONOTONIC`.
///
/// The packet path counts jiffies, because nothing is cheaper to read. They know nothing of NTP,
/// which may slow the clock down or speed it up by half a thousandth (`adjtimex(2)`): corrected
/// once a minute, the two are never further apart than a thirtieth of a second and a jiffy. While no
/// daemon runs they may drift apart by some seconds a day, by which connections then live longer
/// or shorter.
pub struct Clock {
    /// Says what the jiffies are.
    program: ProgramFd,
    nanoseconds_a_jiffy: u64,
    settings: Mutex<SettingsMap>,
}

impl Clock {
    /// How often the clock wants to be corrected.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    pub(super) fn new(
        ebpf: &mut Ebpf,
        nanoseconds_a_jiffy: u64,
        settings: Map,
    ) -> Result<Self, DataPlaneError> {
        let program = programs::load(ebpf, "lb_clock")?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
        let settings = settings
            .try_into()
            .map_err(|error: MapError| DataPlaneError::new("open the settings", error))?;
        Ok(Self {
            program: fd.map_err(|error| DataPlaneError::new("keep the clock", error))?,
            nanoseconds_a_jiffy,
            settings: Mutex::new(settings),
        })
    }

    /// Sets the packet path's clock to `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    ///
    /// The jiffies cannot be read, or the settings not written.
    pub fn correct(&self) -> Result<(), DataPlaneError> {
        let clock_offset = self
            .offset()
            .map_err(|error| DataPlaneError::new("read the jiffies", error))?;
        let failed = |error| DataPlaneError::new("set the packet path's clock", error);
        let mut map = self
            .settings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Plain(settings) = map.get(&0, 0).map_err(failed)?;
        let settings = records::Settings {
            clock_offset,
            ..settings
        };
        map.set(0, Plain(settings), 0).map_err(failed)
    }

    /// The kernel's jiffies, which only a program can read.
    ///
    /// # Errors
    ///
    /// The program cannot be run.
    pub fn jiffies(&self) -> io::Result<u64> {
        let outcome = sys::run_xdp(self.program.as_fd(), &[0; 64])?;
        match outcome.frame.first_chunk() {
            Some(jiffies) => Ok(u64::from_ne_bytes(*jiffies)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What [`records::Settings::clock_offset`] is to be.
    fn offset(&self) -> io::Result<u64> {
        loop {
            let before = sys::monotonic();
            let jiffies = self.jiffies()?;
            // Both clocks advance at the same time: not between the two looks at one of them.
            if sys::monotonic() == before {
                let elapsed = jiffies.wrapping_mul(self.nanoseconds_a_jiffy);
                return Ok((before.as_nanos() as u64).wrapping_sub(elapsed));
            }
        }
    }
}

/// The packet path's clock, in ticks.
pub(super) fn now() -> Tick {
    Moment::now().tick()
}

/// The same without its wrapping: no connection lasts for that long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u32);

impl Moment {
    pub(super) fn now() -> Self {
        let nanoseconds = sys::monotonic().as_nanos() as u64;
        Self((nanoseconds / Tick::NANOSECONDS) as u32)
    }

    #[cfg(test)]
    pub(super) fn of(tick: Tick) -> Self {
        Self(tick.get())
    }

    pub(super) fn tick(self) -> Tick {
        Tick::new(self.0)
    }

    /// Ticks since boot.
    pub(super) fn ticks(self) -> u32 {
        self.0
    }
}
