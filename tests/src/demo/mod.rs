//! The demo: the balancer's main job on real input, act by act.
//!
//! A client, the balancer and four backends in network namespaces; nginx as the backends, curl and
//! wrk as clients, HAProxy for comparison, and `lbd` steered through `lbctl` as an operator would.
//! Every act ends in claims, each with what was measured.

use anyhow::Result;

mod acts;
mod play;
mod report;
mod stage;
mod table;
mod view;

use report::Report;

/// Plays all acts and prints what they show; true when every claim was measured to be so.
///
/// With `keep` it does not come back but waits for a signal, while all that it has set up runs on.
///
/// # Errors
/// When an act cannot be played, for want of a program, of root or of something in the kernel.
/// Nothing stays behind, then as always.
pub fn run(keep: bool) -> Result<bool> {
    let mut report = Report::new();
    let mut stage = acts::set_up(&mut report)?;
    acts::distribution(&stage, &mut report)?;
    acts::failure(&mut stage, &mut report)?;
    acts::weight(&stage, &mut report)?;
    acts::restart(&mut stage, &mut report)?;
    acts::price(&mut stage, &mut report)?;
    let holds = report.close();
    if keep {
        play::invite(&stage);
        loop {
            // The signal thread ends the process, and everything with it.
            std::thread::park();
        }
    }
    Ok(holds)
}
