//! What was tried, for the reader to see that everything was.

use std::{collections::BTreeMap, fmt};

use lb_common::reason::Reason;
use lb_userspace::model::Forwarding;

use crate::model::{Counters, Direction, Fate, Judgement};

#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) packets: u64,
    verdicts: BTreeMap<&'static str, u64>,
    forwarded: BTreeMap<String, u64>,
    reasons: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, judgement: &Judgement) {
        self.packets += 1;
        let verdict = match judgement.fate {
            Fate::Pass => "pass",
            Fate::Drop => "drop",
            Fate::Transmit(_) => "transmit",
            Fate::Redirect(_) => "redirect",
        };
        *self.verdicts.entry(verdict).or_default() += 1;
        if let Some((forwarding, direction)) = judgement.trace.forwarded {
            let name = way(forwarding, direction);
            *self.forwarded.entry(name).or_default() += 1;
        }
        if let Some((forwarding, direction)) = judgement.trace.translated {
            let name = format!("ICMP of {}", way(forwarding, direction));
            *self.forwarded.entry(name).or_default() += 1;
        }
    }

    /// Adds what was counted in a whole scene.
    pub(super) fn count_reasons(&mut self, counters: &Counters) {
        for (number, count) in counters.reasons() {
            let reason = Reason::ALL.iter().find(|reason| **reason as u8 == number);
            if let Some(reason) = reason {
                *self.reasons.entry(reason.name()).or_default() += count;
            }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        fn add<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(key.clone()).or_default() += count;
            }
        }
        self.packets += other.packets;
        add(&mut self.verdicts, &other.verdicts);
        add(&mut self.forwarded, &other.forwarded);
        add(&mut self.reasons, &other.reasons);
    }

    /// What should have happened by now and has not.
    pub(super) fn missing(&self) -> Vec<String> {
        let ways = [
            (Forwarding::Nat, Direction::ToBackend),
            (Forwarding::Nat, Direction::ToClient),
            (Forwarding::FullNat, Direction::ToBackend),
            (Forwarding::FullNat, Direction::ToClient),
            (Forwarding::Dsr, Direction::ToBackend),
            (Forwarding::Ipip, Direction::ToBackend),
            (Forwarding::Gue, Direction::ToBackend),
        ];
        let ways = ways
            .map(|(forwarding, direction)| way(forwarding, direction))
            .into_iter()
            .flat_map(|way| [format!("ICMP of {way}"), way])
            .filter(|way| !self.forwarded.contains_key(way));
        let verdicts = ["pass", "drop", "transmit", "redirect"]
            .into_iter()
            .filter(|verdict| !self.verdicts.contains_key(verdict));
        let reasons = REASONS
            .iter()
            .map(|reason| reason.name())
            .filter(|reason| !self.reasons.contains_key(reason));
        ways.chain(verdicts.chain(reasons).map(str::to_owned))
            .collect()
    }
}

/// Reasons that every long enough run meets.
const REASONS: &[Reason] = &[
    Reason::MalformedIp,
    Reason::BadIpChecksum,
    Reason::MalformedTcp,
    Reason::ImpossibleFlags,
    Reason::Fragment,
    Reason::ExtensionHeaders,
    Reason::TtlExpired,
    Reason::UnexpectedSynAck,
    Reason::NoBackend,
    Reason::NoNextHop,
    Reason::TupleCollision,
    Reason::NoHeadroom,
    Reason::TooBig,
    Reason::Ended,
    Reason::IcmpUnmatched,
    Reason::IcmpTranslated,
    Reason::EchoAnswered,
    Reason::RstSent,
    Reason::IcmpSent,
];

fn way(forwarding: Forwarding, direction: Direction) -> String {
    let direction = match direction {
        Direction::ToBackend => "to backends",
        Direction::ToClient => "to clients",
    };
    format!("{forwarding:?} {direction}")
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets", self.packets)?;
        for (name, count) in &self.verdicts {
            write!(f, ", {count} {name}")?;
        }
        write!(f, "\n  forwarded:")?;
        for (name, count) in &self.forwarded {
            write!(f, " {name} {count},")?;
        }
        write!(f, "\n  counted:")?;
        for (name, count) in &self.reasons {
            write!(f, " {name} {count},")?;
        }
        Ok(())
    }
}
