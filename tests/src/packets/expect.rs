//! What is to become of a frame, held against what the program makes of it.

use std::collections::BTreeMap;

use lb_common::reason::Reason;
use lb_userspace::model::ServiceId;

use super::{
    answer::Answer,
    dissect::Dissection,
    testbed::{LOOPBACK, Outcome, Testbed, Verdict},
};
use crate::model::{Fate, Input};

/// What is to become of a frame.
#[derive(Clone, Debug)]
pub enum Expect {
    /// To the host, byte for byte as it came, and counted nowhere.
    Pass,
    /// Dropped, and counted once for this service (`None`: for no service in particular).
    Drop(Option<ServiceId>, Reason),
    /// Refused, counted once for this service, and answered.
    Answer(ServiceId, Reason, Answer),
    /// Out through the interface it came in by, as this frame.
    Transmit(Vec<u8>),
    /// Out through another interface, as this frame.
    Redirect(Vec<u8>),
    /// As one of the others, but counted once for this service as well (`None`: for no service in
    /// particular).
    Counted(Option<ServiceId>, Reason, Box<Expect>),
}

impl Expect {
    /// The same in the model's words.
    fn judged(&self) -> (Fate, Option<(Option<ServiceId>, Reason)>) {
        match self.clone() {
            Self::Pass => (Fate::Pass, None),
            Self::Drop(service, reason) => (Fate::Drop, Some((service, reason))),
            Self::Answer(service, reason, answer) => {
                (Fate::Transmit(answer.frame), Some((Some(service), reason)))
            }
            Self::Transmit(frame) => (Fate::Transmit(frame), None),
            Self::Redirect(frame) => (Fate::Redirect(frame), None),
            Self::Counted(_, _, expect) => expect.judged(),
        }
    }
}

/// Packets by service and reason.
pub type Reasons = BTreeMap<(Option<ServiceId>, &'static str), u64>;

impl Testbed {
    /// Runs a frame and holds verdict, bytes and reason counters against what is expected.
    #[track_caller]
    pub fn check(&mut self, description: &str, frame: &[u8], expect: &Expect) {
        let before = self.reasons();
        let outcome = self.run(frame);
        self.compare(description, frame, expect, &before, outcome);
        if let Some(model) = &mut self.model {
            let input = Input {
                frame,
                linear: frame.len(),
                ifindex: LOOPBACK,
                has_headroom: true,
            };
            let judgement = model.process(input, &mut |_| None);
            let (fate, refused) = expect.judged();
            assert_eq!(judgement.fate, fate, "the model of {description}");
            assert_eq!(judgement.refused, refused, "the model of {description}");
        }
    }

    /// [`Testbed::check`] of an outcome; `before` are the counters before it.
    #[track_caller]
    pub fn compare(
        &self,
        description: &str,
        frame: &[u8],
        expect: &Expect,
        before: &Reasons,
        outcome: Outcome,
    ) {
        let mut counted = before.clone();
        let mut expect = expect;
        while let Expect::Counted(service, reason, rest) = expect {
            *counted.entry((*service, reason.name())).or_default() += 1;
            expect = rest;
        }
        let (verdict, bytes) = match expect {
            Expect::Pass => (Verdict::Pass, Some(frame)),
            Expect::Drop(..) => (Verdict::Drop, None),
            Expect::Answer(.., answer) => (Verdict::Transmit, Some(answer.frame.as_slice())),
            Expect::Transmit(bytes) => (Verdict::Transmit, Some(bytes.as_slice())),
            Expect::Redirect(bytes) => (Verdict::Redirect, Some(bytes.as_slice())),
            Expect::Counted(..) => unreachable!("peeled off above"),
        };
        let refused = match expect {
            Expect::Drop(service, reason) => vec![(*service, reason)],
            Expect::Answer(service, reason, answer) => {
                vec![(Some(*service), reason), (Some(*service), &answer.counted)]
            }
            _ => vec![],
        };
        for (service, reason) in refused {
            *counted.entry((service, reason.name())).or_default() += 1;
        }
        let reasons = self.reasons();
        let news: Vec<_> = reasons
            .iter()
            .filter(|(key, count)| before.get(key) != Some(count))
            .collect();
        assert_eq!(outcome.verdict, verdict, "{description}; counted {news:?}");
        if let Some(bytes) = bytes {
            assert!(
                outcome.frame == bytes,
                "{description}:\n     got {:02x?}\nexpected {bytes:02x?}\n{:?}\n{:?}",
                outcome.frame,
                Dissection::of(&outcome.frame),
                Dissection::of(bytes),
            );
        }
        assert_eq!(reasons, counted, "{description}: reason counters");
    }
}
