//! What can happen in a scene.

use std::fmt;

use lb_userspace::dataplane::MapWrite;

use crate::model::{FlowKey, Input};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Frame(Arrival),
    /// Services or backends change.
    Write(Vec<MapWrite>),
    /// The daemon ends a connection.
    End(FlowKey),
    /// A connection has been idle for longer than its timeout.
    Expire(FlowKey),
}

/// A frame that comes in.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) frame: Vec<u8>,
    /// Bytes in the first buffer.
    pub(super) linear: usize,
    pub(super) ifindex: u32,
    pub(super) has_headroom: bool,
}

impl Arrival {
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            frame: &self.frame,
            linear: self.linear,
            ifindex: self.ifindex,
            has_headroom: self.has_headroom,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(arrival) => {
                write!(f, "from interface {}", arrival.ifindex)?;
                if arrival.linear < arrival.frame.len() {
                    write!(f, ", {} bytes in the first buffer", arrival.linear)?;
                }
                if !arrival.has_headroom {
                    write!(f, ", without headroom")?;
                }
                write!(f, ": {}", Hex(&arrival.frame))
            }
            Self::Write(writes) => {
                write!(f, "change")?;
                writes.iter().try_for_each(|write| display_write(f, write))
            }
            Self::End(key) => write!(f, "end {} of service {}", key.client, key.service.0),
            Self::Expire(key) => write!(f, "expire {} of service {}", key.client, key.service.0),
        }
    }
}

/// Tables are long: only who is in one.
pub(super) fn display_write(f: &mut fmt::Formatter<'_>, write: &MapWrite) -> fmt::Result {
    match write {
        MapWrite::WriteTable { service, slots } => {
            let mut owners: Vec<_> = slots.iter().map(|slot| slot.primary).collect();
            owners.sort_unstable();
            owners.dedup();
            write!(
                f,
                "\n    WriteTable {service:?} of {} slots: {owners:?}",
                slots.len()
            )
        }
        write => write!(f, "\n    {write:?}"),
    }
}

/// Bytes as a row of hexadecimal digits.
pub(super) struct Hex<'b>(pub(super) &'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
