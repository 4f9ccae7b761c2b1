//! The daemon's configuration, as an operator would write it.

use std::{
    fmt::{self, Display, Formatter},
    net::SocketAddr,
};

use lb_tests::lab::{Lab, VIP4, VIP6};

use super::PORT;

/// A configuration without `[daemon]`; its text is what `Display` shows.
#[derive(Clone)]
pub(crate) struct Config {
    /// Lines of `[conntrack]`.
    pub(crate) conntrack: String,
    /// Each with its mode.
    pub(crate) interfaces: Vec<(&'static str, &'static str)>,
    pub(crate) services: Vec<Service>,
}

/// Lines of a `[[service]]`.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    /// Further lines of the section itself, such as its forwarding mode.
    pub(crate) settings: String,
    pub(crate) check: String,
    pub(crate) timeouts: String,
    pub(crate) backends: Vec<Backend>,
}

/// Lines of a `[[service.backend]]`.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u16,
}

/// A check that finds a failure fast, and does not take a machine under load for one.
pub(crate) const FAST_TCP: &str = "interval = \"100ms\"\ntimeout = \"1s\"\nrise = 2\nfall = 3";

impl Config {
    /// Both interfaces of a lab with two arms, and these services.
    pub(crate) fn new(services: impl IntoIterator<Item = Service>) -> Self {
        Self {
            // Small, so that a sweep costs little; large enough that all flows of a test find a place.
            conntrack: "capacity = 50_000".to_owned(),
            interfaces: vec![("eth0", "auto"), ("eth1", "auto")],
            services: services.into_iter().collect(),
        }
    }

    /// The only service, or the first.
    pub(crate) fn web(&mut self) -> &mut Service {
        &mut self.services[0]
    }
}

impl Service {
    /// A service without a check, so that nothing but the test decides who is up.
    pub(crate) fn new(name: &str, listen: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            listen,
            settings: String::new(),
            check: "type = \"none\"".to_owned(),
            timeouts: String::new(),
            backends: Vec::new(),
        }
    }

    /// `web` on [`VIP4`], with every backend of the lab, each called as its host.
    pub(crate) fn web(lab: &Lab) -> Self {
        let hosts = lab.backends().iter();
        let backends = hosts.map(|host| Backend::new(host.name(), host.v4(PORT)));
        Self {
            backends: backends.collect(),
            ..Self::new("web", SocketAddr::from((VIP4, 80)))
        }
    }

    /// `web6` on [`VIP6`], likewise.
    pub(crate) fn web6(lab: &Lab) -> Self {
        let hosts = lab.backends().iter();
        let backends = hosts.map(|host| Backend::new(host.name(), host.v6(PORT)));
        Self {
            backends: backends.collect(),
            ..Self::new("web6", SocketAddr::from((VIP6, 80)))
        }
    }

    pub(crate) fn check(self, lines: &str) -> Self {
        Self {
            check: lines.to_owned(),
            ..self
        }
    }

    pub(crate) fn settings(self, lines: &str) -> Self {
        Self {
            settings: lines.to_owned(),
            ..self
        }
    }

    pub(crate) fn timeouts(self, lines: &str) -> Self {
        Self {
            timeouts: lines.to_owned(),
            ..self
        }
    }
}

impl Backend {
    pub(crate) fn new(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            weight: 100,
        }
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            conntrack,
            interfaces,
            services,
        } = self;
        writeln!(f, "[conntrack]\n{conntrack}\n")?;
        for (name, mode) in interfaces {
            writeln!(f, "[[interface]]\nname = \"{name}\"\nmode = \"{mode}\"\n")?;
        }
        services.iter().try_for_each(|service| service.fmt(f))
    }
}

impl Display for Service {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            listen,
            settings,
            check,
            timeouts,
            backends,
        } = self;
        writeln!(
            f,
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\n{settings}\n\n\
             [service.check]\n{check}\n\n\
             [service.timeouts]\n{timeouts}\n"
        )?;
        for Backend {
            name,
            address,
            weight,
        } in backends
        {
            writeln!(
                f,
                "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                 weight = {weight}\n"
            )?;
        }
        Ok(())
    }
}
