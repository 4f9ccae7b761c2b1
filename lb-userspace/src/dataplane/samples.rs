//! Refused packets of which the program has left samples.
//!
//! The ring buffer is pinned: what was refused while no daemon ran is read by the next. The
//! program keeps the rate low, so that a flood of refusals costs neither side anything.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use lb_common::{reason::Reason, records};

use super::{Sample, interface, plain, sys};
use crate::model::ServiceId;

/// Samples that are kept of each service and reason.
const KEPT: usize = 8;

/// The reading end of the ring buffer, and the last samples that came out of it.
pub(super) struct Samples {
    inside: Mutex<Inside>,
}

struct Inside {
    ring: RingBuf<MapData>,
    kept: Kept,
}

impl Samples {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        let inside = Inside {
            ring: map.try_into()?,
            kept: Kept::default(),
        };
        Ok(Self {
            inside: Mutex::new(inside),
        })
    }

    /// Readable when there are new ones.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.lock().ring.as_fd().try_clone_to_owned()
    }

    /// Takes over what the program has left.
    pub(super) fn collect(&self) {
        self.lock().collect();
    }

    /// All that are kept, of each service and reason the newest first.
    pub(super) fn all(&self) -> Vec<Sample> {
        let mut inside = self.lock();
        inside.collect();
        inside.kept.all(sys::monotonic())
    }

    /// The service is no more; its id may become another's.
    pub(super) fn forget(&self, service: ServiceId) {
        self.lock().kept.forget(service, sys::monotonic());
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn collect(&mut self) {
        while let Some(item) = self.ring.next() {
            if let Some(record) = plain::read::<records::Sample>(&item) {
                let interface = interface::name(record.ifindex)
                    .unwrap_or_else(|| format!("#{}", record.ifindex));
                self.kept.add(record, interface);
            }
        }
    }
}

/// The last samples by service id and reason.
#[derive(Default)]
struct Kept {
    samples: BTreeMap<(u16, u8), VecDeque<(records::Sample, String)>>,
    /// When a service was forgotten: what is not newer was another's of the same id. (The clock is
    /// coarse: at the same time is more likely before than after.)
    forgotten: BTreeMap<u16, Duration>,
}

impl Kept {
    /// `interface` is the name of the one that the packet came in by.
    fn add(&mut self, record: records::Sample, interface: String) {
        let forgotten = self.forgotten.get(&record.service);
        if forgotten.is_some_and(|at| Duration::from_nanos(record.time) <= *at) {
            return;
        }
        let last = self
            .samples
            .entry((record.service, record.reason))
            .or_default();
        if last.len() == KEPT {
            last.pop_back();
        }
        // CPUs leave theirs in the order in which they come to it.
        let place = last.partition_point(|(other, _)| other.time > record.time);
        last.insert(place, (record, interface));
    }

    fn forget(&mut self, service: ServiceId, now: Duration) {
        self.samples.retain(|(id, _), _| *id != service.0);
        self.forgotten.insert(service.0, now);
    }

    fn all(&self, now: Duration) -> Vec<Sample> {
        self.samples
            .values()
            .flatten()
            .filter_map(|(record, interface)| sample(record, interface, now))
            .collect()
    }
}

/// `None` for a reason of another version of the program.
fn sample(record: &records::Sample, interface: &str, now: Duration) -> Option<Sample> {
    let reason = Reason::ALL.iter().find(|r| **r as u8 == record.reason)?;
    let address = |bytes: [u8; 16]| match record.version {
        4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    let port = |bytes: [u8; 2]| match u16::from_be_bytes(bytes) {
        0 => None,
        port => Some(port),
    };
    Some(Sample {
        service: (record.service != 0).then_some(ServiceId(record.service)),
        reason: reason.name(),
        source: (address(record.source), port(record.source_port)),
        destination: (address(record.destination), port(record.destination_port)),
        interface: interface.to_owned(),
        age: now.saturating_sub(Duration::from_nanos(record.time)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn record(service: u16, reason: Reason, second: u64) -> records::Sample {
        records::Sample {
            time: second * SECOND,
            source: [
                198,
                51,
                100,
                second as u8,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ],
            destination: [192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            source_port: 40_000_u16.to_be_bytes(),
            destination_port: [0; 2],
            ifindex: 1,
            service,
            reason: reason as u8,
            version: 4,
            length: 60,
            reserved: [0; 2],
        }
    }

    fn ages(kept: &Kept, now: u64) -> Vec<u64> {
        let all = kept.all(Duration::from_secs(now));
        all.iter().map(|sample| sample.age.as_secs()).collect()
    }

    #[test]
    fn the_newest_of_each_service_and_reason_are_kept() {
        let mut kept = Kept::default();
        for second in [3, 1, 2, 4, 5, 6, 7, 8, 9, 11, 10] {
            kept.add(record(1, Reason::NoBackend, second), "eth0".to_owned());
        }
        kept.add(record(1, Reason::TooBig, 1), "eth0".to_owned());
        kept.add(record(2, Reason::NoBackend, 2), "eth1".to_owned());
        assert_eq!(ages(&kept, 12), [1, 2, 3, 4, 5, 6, 7, 8, 11, 10]);
    }

    #[test]
    fn a_sample_says_who_and_where() {
        let mut kept = Kept::default();
        kept.add(record(0, Reason::Fragment, 7), "eth0".to_owned());
        let mut v6 = record(3, Reason::Ended, 8);
        v6.version = 6;
        v6.source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        kept.add(v6, "eth1".to_owned());
        let all = kept.all(Duration::from_millis(10_500));
        assert_eq!(
            all[0],
            Sample {
                service: None,
                reason: "fragment",
                source: ("198.51.100.7".parse().unwrap(), Some(40_000)),
                destination: ("192.0.2.10".parse().unwrap(), None),
                interface: "eth0".to_owned(),
                age: Duration::from_millis(3_500),
            }
        );
        assert_eq!(all[1].service, Some(ServiceId(3)));
        assert_eq!(all[1].source.0, "2001:db8::7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_samples_of_a_service_go_with_it() {
        let mut kept = Kept::default();
        for service in [1, 2] {
            kept.add(record(service, Reason::NoBackend, 5), "eth0".to_owned());
        }
        kept.forget(ServiceId(1), Duration::from_secs(6));
        assert_eq!(ages(&kept, 10), [5], "that of the other service");
        // Left before, read after.
        for second in [5, 6] {
            kept.add(record(1, Reason::NoBackend, second), "eth0".to_owned());
        }
        assert_eq!(ages(&kept, 10), [5]);
        kept.add(record(1, Reason::NoBackend, 7), "eth0".to_owned());
        assert_eq!(ages(&kept, 10), [3, 5]);
    }

    #[test]
    fn a_time_ahead_of_ours_is_now() {
        let mut kept = Kept::default();
        kept.add(record(1, Reason::NoBackend, 5), "eth0".to_owned());
        assert_eq!(ages(&kept, 4), [0]);
    }
}
