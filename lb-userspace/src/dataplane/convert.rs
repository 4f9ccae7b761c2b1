//! The domain's types as records of the maps.

use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    checksum,
    flow::Tick,
    records::{self, Answer, Hop, Mac},
    tcp::TimeoutClass,
};

use super::{BackendRecord, ServiceRecord, Slot, Timeouts};
use crate::model::{BackendIndex, Forwarding, NextHop, NoBackend, Tunnel};

pub(super) fn service(record: &ServiceRecord) -> records::Service {
    records::Service {
        seed: selection_seed(record.listen),
        slots: record.slots,
        half: 0,
        timeouts: timeouts(&record.timeouts),
        address: address(record.listen.ip()),
        port: record.listen.port().to_be_bytes(),
        forwarding: forwarding(record.forwarding),
        no_backend_answer: match record.no_backend {
            NoBackend::Rst => Answer::Rst,
            NoBackend::Drop => Answer::Nothing,
            NoBackend::Icmp => Answer::PortUnreachable,
        } as u8,
        untracked_until: 0,
    }
}

fn forwarding(forwarding: Forwarding) -> u8 {
    match forwarding {
        Forwarding::Nat => records::forwarding::NAT,
        Forwarding::FullNat => records::forwarding::FULL_NAT,
        Forwarding::Dsr => records::forwarding::DSR,
        Forwarding::Ipip => records::forwarding::IPIP,
        Forwarding::Gue => records::forwarding::GUE,
    }
}

pub(super) fn tunnel(tunnel: &Tunnel) -> records::Tunnel {
    let mask = |host_bits: u8| {
        let bits = host_bits.min(Tunnel::ENTROPY_BITS);
        ((1_u32 << bits) - 1) as u16
    };
    records::Tunnel {
        source6: tunnel.source_ipv6.network().octets(),
        source4: tunnel.source_ipv4.network().octets(),
        entropy_mask6: mask(128 - tunnel.source_ipv6.prefix_len()),
        entropy_mask4: mask(32 - tunnel.source_ipv4.prefix_len()),
        port: tunnel.port.to_be_bytes(),
        reserved: [0; 6],
    }
}

pub(super) fn backend(record: &BackendRecord) -> records::Backend {
    let (listen, own) = (record.listen, record.address);
    // The same in every mode: when the mode changes, this record may be read with the service's old
    // one. Between two families there is nothing to rewrite.
    let address_difference = if listen.is_ipv4() == own.is_ipv4() {
        checksum::difference(&address_words(listen.ip()), &address_words(own.ip()))
    } else {
        0
    };
    let port_difference =
        checksum::difference(&[port_word(listen.port())], &[port_word(own.port())]);
    records::Backend {
        hop: record.next_hop.as_ref().map(hop).unwrap_or_default(),
        address: address(own.ip()),
        port: own.port().to_be_bytes(),
        service: if record.is_reachable() {
            record.service.0
        } else {
            0
        },
        next_with_same_address: index(record.next_with_same_address),
        address_difference,
        tuple_difference: checksum::combine(address_difference, port_difference),
        flags: flag(record.accepts_new, records::Backend::ACCEPTS_NEW)
            | flag(own.is_ipv6(), records::Backend::IPV6)
            | flag(
                record.forwarding == Forwarding::FullNat,
                records::Backend::FULL_NAT,
            )
            | flag(record.shares_address, records::Backend::SHARES_ADDRESS),
        max_packet: record.max_packet,
        reserved: 0,
    }
}

fn flag(set: bool, flag: u16) -> u16 {
    if set { flag } else { 0 }
}

fn hop(next_hop: &NextHop) -> Hop {
    let mut tags = [records::VlanTag::default(); 2];
    for (tag, wanted) in tags.iter_mut().zip(&next_hop.vlan) {
        *tag = records::VlanTag {
            tpid: wanted.tpid.to_be_bytes(),
            tci: wanted.tci.to_be_bytes(),
        };
    }
    let [destination, source] =
        [next_hop.destination_mac, next_hop.source_mac].map(|mac| Mac::new(mac.0));
    let count = next_hop.vlan.len().min(tags.len()) as u16;
    Hop::new(destination, source, next_hop.ifindex).tagged(count, tags)
}

pub(super) fn slot(slot: &Slot) -> records::Slot {
    records::Slot {
        primary: index(slot.primary),
        secondary: index(slot.secondary),
    }
}

fn index(backend: Option<BackendIndex>) -> u16 {
    backend.map_or(0, |backend| backend.0)
}

fn timeouts(timeouts: &Timeouts) -> [u32; TimeoutClass::COUNT] {
    let mut ticks_by_class = [0; TimeoutClass::COUNT];
    for (class, timeout) in [
        (TimeoutClass::HalfOpen, timeouts.half_open),
        (TimeoutClass::Established, timeouts.established),
        (TimeoutClass::FinWait, timeouts.fin_wait),
        (TimeoutClass::Closing, timeouts.closing),
        (TimeoutClass::TimeWait, timeouts.time_wait),
        (TimeoutClass::Reset, timeouts.reset),
    ] {
        ticks_by_class[class as usize] = ticks(timeout);
    }
    ticks_by_class
}

/// Rounded up: a connection is never forgotten before its time.
pub(super) fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(u128::from(Tick::NANOSECONDS));
    // Half the counter's range is the most that still compares.
    u32::try_from(ticks)
        .unwrap_or(u32::MAX)
        .min(Tick::MOST_AFTER)
}

/// A rate in the unit that the packet path counts in; at least 1.
pub fn per_tick(per_second: u32) -> u32 {
    const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
    let count = u64::from(per_second) * Tick::NANOSECONDS / NANOSECONDS_PER_SECOND;
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

pub(super) fn duration(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) * Tick::NANOSECONDS)
}

/// Of the listen address only, so that two load balancers with one key pick the same slots.
fn selection_seed(listen: SocketAddr) -> u64 {
    // FNV-1a: fixed for ever, and secrecy is the selection key's task.
    struct Fnv(u64);
    impl std::hash::Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(&address(listen.ip()));
    hasher.write(&listen.port().to_be_bytes());
    hasher.finish()
}

/// 4 bytes of IPv4 and 12 of zero, or 16 of IPv6.
pub(super) fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The words of an address as they stand in a packet.
fn address_words(ip: IpAddr) -> Vec<u16> {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
        .collect()
}

fn port_word(port: u16) -> u16 {
    u16::from_ne_bytes(port.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_up_and_stay_comparable() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_secs(1)), 1);
        assert_eq!(ticks(Duration::from_secs(2)), 2);
        assert_eq!(ticks(Duration::from_secs(7440)), 6930);
        assert!(duration(ticks(Duration::from_secs(7440))) >= Duration::from_secs(7440));
        assert_eq!(ticks(Duration::MAX), Tick::MOST_AFTER);
    }

    #[test]
    fn a_rate_is_kept_to_the_tick() {
        assert_eq!(per_tick(50_000), 53_687);
        assert_eq!(per_tick(1), 1);
        assert_eq!(per_tick(u32::MAX), u32::MAX);
    }

    #[test]
    fn seeds_differ_by_address_and_port_and_never_change() {
        let seed = |text: &str| selection_seed(text.parse().unwrap());
        assert_ne!(seed("192.0.2.1:80"), seed("192.0.2.1:81"));
        assert_ne!(seed("192.0.2.1:80"), seed("192.0.2.2:80"));
        assert_eq!(seed("192.0.2.1:80"), seed("192.0.2.1:80"));
    }
}
