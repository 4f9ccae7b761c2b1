use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::Notify;

use super::Control;
use crate::{
    config::{Config, ConntrackSettings, DaemonSettings, IcmpSettings, InterfaceSettings},
    dataplane::{DataPlaneError, Detached, Reader},
    model::Desired,
};

/// Takes the data plane that the daemon holds down: programs, pins, maps.
pub type Detach = Box<dyn Fn() -> Result<Detached, DataPlaneError> + Send + Sync>;

/// What the daemon was started with and cannot change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub daemon: DaemonSettings,
    pub interfaces: Vec<InterfaceSettings>,
    pub conntrack: ConntrackSettings,
    pub icmp: IcmpSettings,
}

impl Settings {
    /// The configuration that these settings and `desired` make together.
    pub(super) fn with(&self, desired: Desired) -> Config {
        let Self {
            daemon,
            interfaces,
            conntrack,
            icmp,
        } = self.clone();
        Config {
            daemon,
            interfaces,
            conntrack,
            icmp,
            desired,
        }
    }
}

impl From<Config> for Settings {
    fn from(config: Config) -> Self {
        let Config {
            daemon,
            interfaces,
            conntrack,
            icmp,
            desired: _,
        } = config;
        Self {
            daemon,
            interfaces,
            conntrack,
            icmp,
        }
    }
}

/// What the requests are answered from.
pub struct Context {
    pub(super) control: Arc<dyn Control>,
    pub(super) reader: Arc<dyn Reader>,
    /// Absolute.
    pub(super) config_file: PathBuf,
    pub(super) settings: Settings,
    pub(super) detach: Detach,
    pub(super) detached: Notify,
    pub(super) started: Instant,
}

impl Context {
    /// The daemon counts as started now.
    pub fn new(
        control: Arc<dyn Control>,
        reader: Arc<dyn Reader>,
        config_file: PathBuf,
        settings: Settings,
        detach: Detach,
    ) -> Self {
        Self {
            control,
            reader,
            config_file,
            settings,
            detach,
            detached: Notify::new(),
            started: Instant::now(),
        }
    }
}
