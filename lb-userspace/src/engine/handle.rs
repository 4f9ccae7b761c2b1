//! The engine's thread, and the way to it.

use std::{net::IpAddr, sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{
    change::{Change, ChangeError},
    core::{Core, EngineError, EngineSettings, TICK},
    effective::Resolution,
    snapshot::Snapshot,
};
use crate::{
    dataplane::{Reader, Writer},
    model::{Health, Name},
};

/// Something that was found out about a backend, or about the way to all of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    Health {
        service: Name,
        backend: Name,
        health: Health,
        /// For people.
        reason: String,
    },
    NextHop {
        address: IpAddr,
        resolution: Resolution,
    },
    /// The program is attached to its interfaces.
    Attached {
        /// In native mode to each.
        all_native: bool,
    },
}

/// Starts the single writer; see the module.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Takes over what an earlier life has left in the state directory and the data plane, brings
    /// the configuration file's wishes into effect if they have changed since, and goes on from
    /// there on a thread of its own until the last [`Handle`] is gone.
    ///
    /// When this returns, the maps are written. Maps are written by blocking calls: a caller with
    /// something else to do at that time starts from a blocking thread.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time.
    pub fn start(
        writer: Box<dyn Writer>,
        reader: Arc<dyn Reader>,
        settings: EngineSettings,
    ) -> Result<(Handle, JoinHandle<()>), EngineError> {
        let (publisher, snapshots) = watch::channel(Arc::default());
        let publish = move |snapshot: Snapshot| {
            publisher.send_if_modified(|current: &mut Arc<Snapshot>| {
                let differs = **current != snapshot;
                if differs {
                    *current = Arc::new(snapshot);
                }
                differs
            });
        };
        let core = Core::start(writer, reader, settings, Box::new(publish))?;
        let (sender, messages) = mpsc::channel(BATCH);
        tokio::spawn(keep_ticking(sender.downgrade()));
        let thread = tokio::task::spawn_blocking(move || run(core, messages));
        let handle = Handle {
            messages: sender,
            snapshots,
        };
        Ok((handle, thread))
    }
}

/// The way to the engine, for everyone who reads or changes something.
#[derive(Clone, Debug)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// The state of this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Every state from now on; those that come while nobody looks may be left out.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Makes a change. When this returns it is recorded, in effect, and in the snapshot; one line
    /// for each thing that it has changed in the data plane.
    pub async fn change(&self, change: Change) -> Result<Vec<String>, ChangeError> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Change(change, answer);
        let sent = self.messages.send(message).await;
        sent.map_err(|_| ChangeError::Stopped)?;
        answered.await.map_err(|_| ChangeError::Stopped)?
    }

    /// Tells the engine what was found out. Returns before it has taken that into account; an
    /// engine that has stopped does not mind.
    pub async fn observe(&self, observation: Observation) {
        let sent = self.messages.send(Message::Observation(observation)).await;
        if sent.is_err() {
            tracing::debug!("an observation came after the engine's end");
        }
    }
}

/// Messages that are taken at once, so that observations that come together make one plan.
const BATCH: usize = 1024;

#[derive(Debug)]
enum Message {
    Change(Change, oneshot::Sender<Result<Vec<String>, ChangeError>>),
    Observation(Observation),
    Tick,
}

fn run(mut core: Core, mut messages: mpsc::Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
        let mut observations = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Observation(observation) => observations.push(observation),
                Message::Change(change, answer) => {
                    // What was found out before the change was asked for comes before it.
                    core.observe(observations.drain(..));
                    if answer.send(core.change(change)).is_err() {
                        tracing::debug!("whoever asked for a change did not wait for the answer");
                    }
                }
                Message::Tick => {
                    core.observe(observations.drain(..));
                    core.tick(Instant::now());
                }
            }
        }
        core.observe(observations);
    }
}

/// Holds the engine's channel only while it sends, so that the engine ends with its handles.
async fn keep_ticking(engine: mpsc::WeakSender<Message>) {
    loop {
        sleep(TICK).await;
        match engine.upgrade() {
            Some(engine) if engine.send(Message::Tick).await.is_ok() => {}
            _ => return,
        }
    }
}
