//! `lbd`: starts the rooms and connects them.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

use crate::{
    api::{self, Ended, Socket},
    config::{Config, Echo},
    dataplane::{
        self, AttachMode, Clock, DataPlane, DataPlaneError, Ender, Endings, KernelReader,
        Overflows, Reader as _,
    },
    endings,
    engine::{self, Engine, EngineSettings, Handle, Observation, Snapshot},
    health::{self, Checker},
    netlink,
};

/// Events that may wait for the engine.
const QUEUE: usize = 1024;

/// What `lbd` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute path of the configuration file.
    pub config_file: PathBuf,
    pub config: Config,
    /// Load the XDP program with its own log statements.
    pub program_log: bool,
}

/// Runs the daemon until it is told to end, or until the data plane is detached.
///
/// Whatever happens here, packets go on being forwarded: only `detach` takes the data plane down.
///
/// # Errors
///
/// Anything that keeps the daemon from starting, and a failure of the engine.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Config {
        daemon,
        interfaces,
        conntrack,
        icmp,
        desired: _,
    } = &options.config;
    let socket_path = daemon.socket.clone();
    dataplane::check_interfaces(interfaces)?;
    let mut data_plane = DataPlane::open(&dataplane::Settings {
        bpffs: daemon.bpffs.clone(),
        capacity: conntrack.capacity,
        capacity_ipv6: conntrack.capacity_ipv6,
        flood_limit: dataplane::per_tick(conntrack.flood_limit),
        answer_echo: icmp.echo == Echo::Answer,
        log: options.program_log,
    })?;
    let begun = match begin(&mut data_plane, &options) {
        Ok(begun) => begun,
        Err(error) => {
            // What an earlier life has left goes on forwarding; a first one leaves nothing behind.
            if data_plane.is_new()
                && let Err(failure) = data_plane.detach()
            {
                let failure: &dyn std::error::Error = &failure;
                warn!(error = failure, "something was left behind");
            }
            return Err(error);
        }
    };
    let Begun {
        socket,
        reader,
        engine,
        mut engine_task,
    } = begun;
    let all_native = reader
        .interfaces()
        .iter()
        .all(|interface| interface.mode == AttachMode::Native);
    engine.observe(Observation::Attached { all_native }).await;
    observe_next_hops(&engine)?;
    observe_health(&engine);
    end_connections(&engine, data_plane.ender())?;
    keep_time(data_plane.clock());
    keep_searches_short(data_plane.overflows());

    let data_plane = Mutex::new(Some(data_plane));
    let detach = move || match data_plane
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        Some(data_plane) => data_plane.detach(),
        None => Err(DataPlaneError::new("detach", "it has been done already")),
    };
    let context = Arc::new(api::Context::new(
        Arc::new(engine),
        reader,
        options.config_file,
        options.config.into(),
        Box::new(detach),
    ));
    reload_on_hangup(context.clone())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(sd_notify::NotifyState::Stopping);
    };
    notify(sd_notify::NotifyState::Ready);
    info!(socket = %socket_path.display(), "ready");
    tokio::select! {
        ended = api::serve(socket, context, shutdown) => {
            match ended.context("the API's socket failed")? {
                Ended::Shutdown => info!("ending; packets go on being forwarded (`lbctl detach` ends that)"),
                Ended::Detached => info!("detached; ending"),
            }
            Ok(())
        }
        ended = &mut engine_task => {
            ended.context("the engine failed")?;
            anyhow::bail!("the engine ended")
        }
    }
}

/// What a daemon has once it balances.
struct Begun {
    socket: Socket,
    reader: Arc<KernelReader>,
    engine: Handle,
    engine_task: JoinHandle<()>,
}

fn begin(data_plane: &mut DataPlane, options: &Options) -> anyhow::Result<Begun> {
    let Config {
        daemon,
        interfaces,
        conntrack,
        icmp: _,
        desired,
    } = &options.config;
    if options.program_log {
        data_plane.forward_program_log()?;
    }
    data_plane.collect_samples()?;
    let socket = Socket::bind(&daemon.socket)?;
    let reader = data_plane.reader();
    let writer = data_plane.take_writer()?;
    let settings = EngineSettings {
        state_dir: daemon.state_dir.clone(),
        profile: conntrack.profile,
        file_desired: desired.clone(),
    };
    let (engine, engine_task) = Engine::start(Box::new(writer), reader.clone(), settings)
        .context("cannot start the engine")?;
    // The maps are whole now: from here on packets may be ours.
    data_plane.attach(interfaces)?;
    Ok(Begun {
        socket,
        reader,
        engine,
        engine_task,
    })
}

/// Keeps the engine told of the way to every backend.
fn observe_next_hops(engine: &Handle) -> anyhow::Result<()> {
    let (wanted, wanted_receiver) = watch::channel(BTreeSet::<IpAddr>::new());
    let (found, mut found_receiver) = mpsc::channel(QUEUE);
    let resolver = netlink::spawn(wanted_receiver, found).context("cannot listen to netlink")?;
    let told = engine.clone();
    tokio::spawn(async move {
        while let Some((address, resolution)) = found_receiver.recv().await {
            told.observe(Observation::NextHop {
                address,
                resolution,
            })
            .await;
        }
        if let Err(error) = resolver.await {
            warn!("the next-hop resolver failed: {error}");
        }
    });
    follow(engine, move |snapshot| {
        let addresses = engine::wanted_addresses(snapshot);
        wanted.send_if_modified(|wanted| {
            let changed = *wanted != addresses;
            *wanted = addresses;
            changed
        });
    });
    Ok(())
}

/// Probes every backend and keeps the engine told of their health.
fn observe_health(engine: &Handle) {
    let (events, mut received) = mpsc::channel::<health::Event>(QUEUE);
    let told = engine.clone();
    tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            told.observe(Observation::Health {
                service: event.service,
                backend: event.backend,
                health: event.health,
                reason: event.reason,
            })
            .await;
        }
    });
    let mut checker = Checker::new(events);
    follow(engine, move |snapshot| {
        checker.update(engine::targets(snapshot));
    });
}

/// Has the connections ended that are to be, as settings and health have it.
fn end_connections(engine: &Handle, ender: Arc<Ender>) -> anyhow::Result<()> {
    let orders = endings::spawn(ender).context("cannot start the thread that ends connections")?;
    let mut last = Endings::default();
    follow(engine, move |snapshot| {
        let endings = engine::endings(snapshot);
        if endings != last {
            last = endings.clone();
            if orders.send(endings).is_err() {
                warn!("the thread that ends connections has ended itself");
            }
        }
    });
    Ok(())
}

/// Corrects the packet path's clock for as long as the daemon runs.
fn keep_time(clock: Arc<Clock>) {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Clock::INTERVAL);
        loop {
            interval.tick().await;
            if let Err(error) = clock.correct() {
                let error: &dyn std::error::Error = &error;
                warn!(error, "the packet path's clock is not corrected");
            }
        }
    });
}

fn keep_searches_short(overflows: Arc<Overflows>) {
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Overflows::INTERVAL);
        loop {
            interval.tick().await;
            let overflows = overflows.clone();
            let refreshed = tokio::task::spawn_blocking(move || overflows.refresh()).await;
            if let Ok(Err(error)) = refreshed {
                let error: &dyn std::error::Error = &error;
                warn!(error, "packets of no connection take longer than they need");
                return;
            }
        }
    });
}

/// Calls `update` with the current snapshot and with every later one.
fn follow(engine: &Handle, mut update: impl FnMut(&Snapshot) + Send + 'static) {
    let mut snapshots = engine.subscribe();
    tokio::spawn(async move {
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            update(&snapshot);
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    });
}

fn reload_on_hangup(context: Arc<api::Context>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notify(sd_notify::NotifyState::Reloading);
            match context.reload(None).await {
                Ok(done) => {
                    info!(
                        changes = done.changes.len(),
                        "reloaded {}",
                        done.file.display()
                    );
                    for setting in &done.restart {
                        warn!("waits for a restart: {setting}");
                    }
                }
                Err(error) => warn!("not reloaded, what ran before goes on:\n{error}"),
            }
            notify(sd_notify::NotifyState::Ready);
        }
    });
    Ok(())
}

/// Tells the service manager, if there is one.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("cannot notify the service manager: {error}");
    }
}
