//! Who waits for which answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::wire::Heard;

/// What a backend says to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// SYN-ACK.
    Accepted,
    /// RST.
    Refused,
}

/// The SYNs that are under way.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<HashMap<Ends, Open>>);

/// Of the connection that a SYN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) service: SocketAddr,
    /// An address and port of this host.
    pub(super) own: SocketAddr,
}

#[derive(Debug)]
struct Open {
    /// That an answer must bear.
    acknowledgement: u32,
    asker: oneshot::Sender<Answer>,
}

impl Questions {
    /// Opens the question of a SYN with this sequence number, which is to be sent after this. The
    /// port is the asker's alone for as long as the question is open.
    pub(super) fn open(&self, ends: Ends, sequence: u32) -> Question<'_> {
        let (asker, answer) = oneshot::channel();
        let open = Open {
            acknowledgement: sequence.wrapping_add(1),
            asker,
        };
        self.lock().insert(ends, open);
        Question {
            questions: self,
            ends,
            answer,
        }
    }

    /// Gives a segment to whom it is an answer, if to anyone.
    pub(super) fn hear(&self, heard: &Heard) {
        let answer = match heard.flags {
            flags if flags.rst() => Answer::Refused,
            flags if flags.syn() && flags.ack() => Answer::Accepted,
            _ => return,
        };
        let ends = Ends {
            service: heard.source,
            own: heard.destination,
        };
        let mut open = self.lock();
        let fits = open
            .get(&ends)
            .is_some_and(|open| open.acknowledgement == heard.acknowledgement);
        if fits && let Some(Open { asker, .. }) = open.remove(&ends) {
            // Whoever no longer waits has been told by the clock.
            let _ = asker.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open question; dropped, nobody waits any more.
pub(super) struct Question<'a> {
    questions: &'a Questions,
    ends: Ends,
    answer: oneshot::Receiver<Answer>,
}

impl Question<'_> {
    /// Waits for the answer, for ever if there is none.
    pub(super) async fn answer(&mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            // The sender stays where it is until the answer has come.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.ends);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::tcp::Flags;
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::health::testing::DEADLINE;

    const SEQUENCE: u32 = u32::MAX;
    const SYN_ACK: u8 = Flags::SYN | Flags::ACK;

    fn ends() -> Ends {
        Ends {
            service: ([192, 0, 2, 10], 80).into(),
            own: ([10, 2, 0, 1], 40_000).into(),
        }
    }

    fn heard(flags: u8, acknowledgement: u32) -> Heard {
        Heard {
            source: ends().service,
            destination: ends().own,
            acknowledgement,
            flags: Flags::new(flags),
        }
    }

    /// S-DSR-3: an answer is one to this very SYN.
    #[tokio::test]
    async fn only_the_answer_is_taken_for_one() {
        let right = heard(SYN_ACK, 0);
        let mut from_elsewhere = right;
        from_elsewhere.source.set_port(81);
        let mut to_another = right;
        to_another.destination.set_port(40_001);
        let questions = Questions::default();
        let mut question = questions.open(ends(), SEQUENCE);
        for wrong in [
            from_elsewhere,
            to_another,
            heard(SYN_ACK, 1),
            heard(SYN_ACK, SEQUENCE),
            heard(Flags::RST, 7),
            heard(Flags::ACK, 0),
            heard(Flags::SYN, 0),
        ] {
            questions.hear(&wrong);
            let answer = timeout(Duration::ZERO, question.answer()).await;
            assert!(answer.is_err(), "{wrong:?}");
        }
        questions.hear(&right);
        let answer = timeout(DEADLINE, question.answer()).await.unwrap();
        assert_eq!(answer, Answer::Accepted);
    }

    #[tokio::test]
    async fn a_reset_is_a_refusal_and_who_is_gone_is_forgotten() {
        let questions = Questions::default();
        let mut question = questions.open(ends(), 5);
        questions.hear(&heard(Flags::RST | Flags::ACK, 6));
        let answer = timeout(DEADLINE, question.answer()).await.unwrap();
        assert_eq!(answer, Answer::Refused);
        drop(question);
        drop(questions.open(ends(), 5));
        assert!(questions.lock().is_empty());
        questions.hear(&heard(SYN_ACK, 6));
    }
}
