use std::{process, sync::mpsc, thread};

use anyhow::{Context, Result};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::footprint;

/// From now on SIGINT, SIGTERM and SIGHUP remove every lab of this process, and end it.
///
/// A signal kills a process without dropping anything; a program that makes labs and may be
/// interrupted calls this once, before its first lab. The process exits with 128 + the signal's
/// number, as a shell expects.
pub fn remove_labs_on_signal() -> Result<()> {
    let (ready, installed) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let number = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| runtime.block_on(await_signal(&ready)));
            match number {
                Ok(number) => {
                    footprint::remove_own();
                    process::exit(128 + number);
                }
                // The caller waits for this message.
                Err(error) => drop(ready.send(Err(error))),
            }
        })
        .context("cannot start a thread")?;
    installed
        .recv()
        .context("the signal thread panicked")?
        .context("cannot handle signals")
}

/// Returns the number of the first signal that arrives.
async fn await_signal(ready: &mpsc::SyncSender<std::io::Result<()>>) -> std::io::Result<i32> {
    async fn received(mut signal: Signal, kind: SignalKind) -> i32 {
        // `None` would mean that there will never be another one; that cannot happen here, where
        // the runtime outlives the stream.
        signal.recv().await;
        kind.as_raw_value()
    }
    let handler = |kind| signal(kind).map(|signal| received(signal, kind));
    let interrupt = handler(SignalKind::interrupt())?;
    let terminate = handler(SignalKind::terminate())?;
    let hangup = handler(SignalKind::hangup())?;
    // The caller waits for this message.
    let _ = ready.send(Ok(()));
    Ok(tokio::select! {
        number = interrupt => number,
        number = terminate => number,
        number = hangup => number,
    })
}
