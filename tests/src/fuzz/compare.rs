//! Whether program and model agree.

use std::fmt;

use super::{
    intact,
    rig::{Mismatch, Tried},
    step::{Arrival, Hex},
    world::timeouts,
};
use crate::{
    model::{Fate, FlowKey, Judgement, State},
    packets::{Outcome, Verdict},
};

pub(super) fn same<T: PartialEq + fmt::Debug>(
    what: impl FnOnce() -> String,
    wanted: &T,
    found: &T,
) -> Tried {
    if wanted == found {
        return Ok(());
    }
    let what = what();
    let difference = format!("{what}: the model says {wanted:?}, the program {found:?}");
    Err(Mismatch(difference).into())
}

pub(super) fn record_of(key: FlowKey) -> String {
    format!("record of {} with service {}", key.client, key.service.0)
}

/// Holds verdict and frame against what must become of the frame, and the checksums of what goes
/// out against those of what came in.
pub(super) fn outcome(arrival: &Arrival, judgement: &Judgement, outcome: &Outcome) -> Tried {
    let (verdict, frame) = match &judgement.fate {
        Fate::Pass => (Verdict::Pass, Some(&arrival.frame)),
        Fate::Drop => (Verdict::Drop, None),
        Fate::Transmit(frame) => (Verdict::Transmit, Some(frame)),
        Fate::Redirect(frame) => (Verdict::Redirect, Some(frame)),
    };
    let refused = judgement.refused;
    same(
        || format!("verdict (the model refuses: {refused:?})"),
        &verdict,
        &outcome.verdict,
    )?;
    match frame {
        Some(frame) if *frame != outcome.frame => {
            let (wanted, found) = (Hex(frame), Hex(&outcome.frame));
            let difference = format!("frame:\n  the model {wanted}\nthe program {found}");
            Err(Mismatch(difference).into())
        }
        Some(_) if verdict == Verdict::Pass => Ok(()),
        Some(_) if judgement.trace.answered.is_some() => {
            Ok(intact::answer(&outcome.frame).map_err(Mismatch)?)
        }
        Some(_) => Ok(intact::compare(&arrival.frame, &outcome.frame).map_err(Mismatch)?),
        None => Ok(()),
    }
}

/// Ticks of a state's timeout, rounded up.
pub(super) fn timeout(state: State) -> u32 {
    let timeouts = timeouts();
    let timeout = match state {
        State::SynSent | State::SynReceived | State::Refused => timeouts.half_open,
        State::Established => timeouts.established,
        State::FinWaitClient | State::FinWaitBackend => timeouts.fin_wait,
        State::Closing => timeouts.closing,
        State::TimeWait => timeouts.time_wait,
        State::Reset | State::Ended => timeouts.reset,
    };
    (timeout.as_nanos() as u64).div_ceil(1 << 30) as u32
}
