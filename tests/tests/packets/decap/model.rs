//! The program against the rules of docs/packets.md §13, written down once more and in another way,
//! on packets with anything wrong about them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::decap::Outcome;
use lb_tests::packets::{Expected, Tag};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{Family, GUE_PORT, Kind, OWN, backend, ip, segment, through};

/// What the rules say of a frame.
fn ruled(frame: &[u8], own: &BTreeSet<IpAddr>) -> Expected {
    match rules(frame, own) {
        Ok((outcome, stripped)) => Expected::Stripped(outcome, stripped),
        Err(Some(outcome)) => Expected::Left(outcome),
        Err(None) => Expected::Pass,
    }
}

/// An IP header where it is, as far as the rules ask.
struct Ip<'f> {
    bytes: &'f [u8],
    is_v4: bool,
}

impl<'f> Ip<'f> {
    /// `None` where its fixed part is not whole, or it is of another version.
    fn of(bytes: &'f [u8], is_v4: bool) -> Option<Self> {
        let (version, length) = if is_v4 { (4, 20) } else { (6, 40) };
        (bytes.first()? >> 4 == version && bytes.len() >= length).then_some(Self { bytes, is_v4 })
    }

    fn word(&self, at: usize) -> usize {
        usize::from(self.bytes[at]) << 8 | usize::from(self.bytes[at + 1])
    }

    fn ihl(&self) -> usize {
        if self.is_v4 {
            usize::from(self.bytes[0] % 16) * 4
        } else {
            40
        }
    }

    fn length(&self) -> usize {
        if self.is_v4 {
            self.word(2)
        } else {
            40 + self.word(4)
        }
    }

    fn protocol(&self) -> u8 {
        self.bytes[if self.is_v4 { 9 } else { 6 }]
    }

    fn is_fragment(&self) -> bool {
        self.is_v4 && self.word(6) & 0x3fff != 0
    }

    fn destination(&self) -> IpAddr {
        if self.is_v4 {
            let octets: [u8; 4] = self.bytes[16..20].try_into().expect("as many");
            Ipv4Addr::from(octets).into()
        } else {
            let octets: [u8; 16] = self.bytes[24..40].try_into().expect("as many");
            Ipv6Addr::from(octets).into()
        }
    }

    fn ecn(&self) -> u8 {
        if self.is_v4 {
            self.bytes[1] % 4
        } else {
            self.bytes[1] >> 4 & 3
        }
    }

    fn verifies(&self) -> bool {
        !self.is_v4 || sum(&self.bytes[..self.ihl().min(self.bytes.len())]) == 0xffff
    }
}

/// The ones' complement sum of words, of which an odd one is left out.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let mut sum: u64 = words.map(|w| u64::from(w[0]) << 8 | u64::from(w[1])).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum
}

type Ruled = Result<(Outcome, Vec<u8>), Option<Outcome>>;

fn rules(frame: &[u8], own: &BTreeSet<IpAddr>) -> Ruled {
    if frame.len() < 14 || frame[0] % 2 == 1 {
        return Err(None);
    }
    let ether_type = |at: usize| frame.get(at..at + 2).map(|b| (b[0], b[1]));
    let mut at = 12;
    while at < 20 && matches!(ether_type(at), Some((0x81, 0) | (0x88, 0xa8))) {
        at += 4;
    }
    let is_v4 = match ether_type(at) {
        Some((0x08, 0)) => true,
        Some((0x86, 0xdd)) => false,
        _ => return Err(None),
    };
    let network = at + 2;

    // 1, 2
    let outer = Ip::of(&frame[network..], is_v4).ok_or(None)?;
    let is_ours = own.contains(&outer.destination());
    let body = network + outer.ihl();
    let (announced, start, inside) = match outer.protocol() {
        4 | 41 if is_ours => {
            if outer.ihl() < 20 {
                return Err(Some(Outcome::OuterHeader));
            }
            if outer.is_fragment() {
                return Err(Some(Outcome::Fragment));
            }
            let version = if outer.protocol() == 4 { 4 } else { 6 };
            (version, body, None)
        }
        17 if is_ours && outer.ihl() >= 20 && !outer.is_fragment() => {
            let udp = frame.get(body..body + 8).ok_or(None)?;
            if udp[2..4] != GUE_PORT.to_be_bytes() {
                return Err(None);
            }
            let first = frame.get(body + 8).ok_or(Some(Outcome::GueVariant))?;
            match first >> 4 {
                version @ (4 | 6) => {
                    let length = usize::from(udp[4]) << 8 | usize::from(udp[5]);
                    (version, body + 8, Some(length))
                }
                5 | 7 => return Err(Some(Outcome::InnerVersion)),
                _ => return Err(Some(Outcome::GueVariant)),
            }
        }
        _ => return Err(None),
    };

    // 3
    let rest = frame.get(start..).unwrap_or_default();
    if rest.first().is_some_and(|first| first >> 4 != announced) {
        return Err(Some(Outcome::InnerVersion));
    }
    let inner = Ip::of(rest, announced == 4).ok_or(Some(Outcome::InnerTruncated))?;
    if !own.contains(&inner.destination()) {
        return Err(Some(Outcome::InnerAddress));
    }

    // 4
    if !outer.verifies() {
        return Err(Some(Outcome::OuterChecksum));
    }
    let length = outer.length();
    if length > outer.bytes.len() || length < outer.ihl() {
        return Err(Some(Outcome::OuterLength));
    }
    let room = match inside {
        Some(udp) if udp < 8 || udp > length - outer.ihl() => {
            return Err(Some(Outcome::OuterLength));
        }
        Some(udp) => udp - 8,
        None => length - outer.ihl(),
    };

    // 5
    if inner.ihl() < 20 || inner.length() < inner.ihl() || inner.length() > room {
        return Err(Some(Outcome::InnerLength));
    }

    // 6: the most severe of both marks, in the order Not-ECT, ECT(0), ECT(1), CE.
    let severity = |ecn| [0, 2, 1, 3][usize::from(ecn)];
    let ecn = match (inner.ecn(), outer.ecn()) {
        (0, 3) => return Err(Some(Outcome::Ecn)),
        (0, _) => 0,
        (inner, outer) if severity(outer) > severity(inner) => outer,
        (inner, _) => inner,
    };

    // 7
    let mut stripped = frame[..at].to_vec();
    stripped.extend(if announced == 4 {
        [0x08, 0]
    } else {
        [0x86, 0xdd]
    });
    stripped.extend_from_slice(rest);
    let packet = &mut stripped[network..];
    if announced == 4 && ecn != packet[1] % 4 {
        let before = u16::from_be_bytes([packet[0], packet[1]]);
        packet[1] = packet[1] & 0xfc | ecn;
        let after = u16::from_be_bytes([packet[0], packet[1]]);
        let old = u16::from_be_bytes([packet[10], packet[11]]);
        // RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
        let words = [!old, !before, after].map(u16::to_be_bytes).concat();
        packet[10..12].copy_from_slice(&(!(sum(&words) as u16)).to_be_bytes());
    } else if announced == 6 {
        packet[1] = packet[1] & 0xcf | ecn << 4;
    }
    Ok((outcome(inside), stripped))
}

fn outcome(udp: Option<usize>) -> Outcome {
    match udp {
        Some(_) => Outcome::Gue,
        None => Outcome::Ipip,
    }
}

/// Tunnelled packets of all kinds, with a few bytes changed, or cut short; mostly in the headers,
/// and mostly with an outer checksum that is right again.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    let tunnel = (
        family(),
        family(),
        prop_oneof![Just(Kind::Ipip), Just(Kind::Gue)],
        0..3_usize,
        prop_oneof![Just(0), 0..=10_usize],
        any::<[u8; 2]>(),
    );
    let bytes = prop::collection::vec((0..110_usize, any::<u8>()), 0..4);
    let cut = prop_oneof![4 => Just(usize::MAX), 1 => 14..150_usize];
    let ihl = prop::option::weighted(0.05, 0..16_u8);
    (tunnel, bytes, ihl, cut, prop::bool::weighted(0.8)).prop_map(
        |((outer, inner, kind, tags, options, classes), bytes, ihl, cut, mended)| {
            let tags = &[Tag::dot1ad(7), Tag::dot1q(9)][..tags];
            let inner = match inner {
                Family::V4 => segment(inner).v4(|ip| ip.service_type = classes[0]),
                Family::V6 => segment(inner).v6(|ip| ip.traffic_class = classes[0]),
            };
            let tunnelled = through(outer, kind, inner.tags(tags));
            let tunnelled = match outer {
                Family::V4 => tunnelled.outer4(|ip| {
                    ip.service_type = classes[1];
                    ip.options = vec![1; 4 * options];
                }),
                Family::V6 => tunnelled.outer6(|ip| ip.traffic_class = classes[1]),
            };
            let mut frame = tunnelled.build();
            let network = 14 + 4 * tags.len();
            for (at, byte) in bytes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if let (Some(ihl), Family::V4) = (ihl, outer) {
                frame[network] = 0x40 | ihl;
            }
            if mended && outer == Family::V4 {
                mend(&mut frame[network..]);
            }
            frame.truncate(cut);
            frame
        },
    )
}

/// Makes the checksum of an IPv4 header right, if it has one.
fn mend(packet: &mut [u8]) {
    let length = usize::from(packet[0] % 16) * 4;
    if length >= 20
        && let Some(header) = packet.get_mut(..length)
    {
        header[10..12].fill(0);
        let checksum = !(sum(header) as u16);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// S-FWD-1, S-FWD-6, S-FWD-7, S-FWD-8: verdict, bytes and counters of twenty thousand frames.
#[test]
fn the_program_obeys_the_rules() {
    let own = OWN.into_iter().map(ip).collect();
    let bed = RefCell::new(backend());
    let met = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(20_000)
    });
    let result = runner.run(&frames(), |frame| {
        let expected = ruled(&frame, &own);
        let name = match &expected {
            Expected::Stripped(outcome, _) | Expected::Left(outcome) => outcome.name(),
            Expected::Pass => "pass",
        };
        met.borrow_mut().insert(name);
        bed.borrow_mut().check("a frame", &frame, &expected);
        Ok(())
    });
    result.unwrap();
    // Every outcome that a frame can have has been met.
    let met = met.borrow();
    for outcome in Outcome::ALL {
        if *outcome != Outcome::NotStripped {
            assert!(met.contains(outcome.name()), "{outcome:?} of {met:?}");
        }
    }
}
