//! The sections of the file and their keys.

use crate::model::nearest;

/// A section: how it is written, and which keys it has.
pub(super) struct Shape {
    /// As in the file; empty for what stands before the first section.
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Keys that later versions have.
    pub(super) later: &'static [&'static str],
}

pub(super) const ROOT: Shape = Shape {
    title: "",
    keys: &["daemon", "interface", "conntrack", "icmp", "service"],
    later: &[],
};
pub(super) const DAEMON: Shape = Shape {
    title: "[daemon]",
    keys: &["socket", "state_dir", "bpffs"],
    later: &["metrics"],
};
pub(super) const INTERFACE: Shape = Shape {
    title: "[[interface]]",
    keys: &["name", "mode"],
    later: &[],
};
pub(super) const CONNTRACK: Shape = Shape {
    title: "[conntrack]",
    keys: &["capacity", "capacity_ipv6", "profile", "flood_limit"],
    later: &[],
};
pub(super) const ICMP: Shape = Shape {
    title: "[icmp]",
    keys: &["echo"],
    later: &[],
};
pub(super) const SERVICE: Shape = Shape {
    title: "[[service]]",
    keys: &[
        "name",
        "listen",
        "protocol",
        "forwarding",
        "snat",
        "tunnel_source",
        "tunnel_port",
        "scheduler",
        "table_size",
        "no_backend",
        "on_expiry",
        "on_backend_down",
        "profile",
        "timeouts",
        "check",
        "backend",
    ],
    later: &[],
};
pub(super) const TIMEOUTS: Shape = Shape {
    title: "[service.timeouts]",
    keys: &[
        "half_open",
        "established",
        "fin_wait",
        "closing",
        "time_wait",
        "reset",
    ],
    later: &[],
};
pub(super) const CHECK: Shape = Shape {
    title: "[service.check]",
    keys: &[
        "type", "path", "host", "interval", "timeout", "rise", "fall",
    ],
    later: &[],
};
pub(super) const BACKEND: Shape = Shape {
    title: "[[service.backend]]",
    keys: &["name", "address", "weight", "admin"],
    later: &[],
};

const ALL: [&Shape; 9] = [
    &ROOT, &DAEMON, &INTERFACE, &CONNTRACK, &ICMP, &SERVICE, &TIMEOUTS, &CHECK, &BACKEND,
];

impl Shape {
    /// What is wrong with a key that this section does not have, and how to mend it.
    pub(super) fn unknown(&self, key: &str) -> String {
        let shown = super::values::shorten(key);
        let place = match self.title {
            "" => "at the top of the file".to_owned(),
            title => format!("in {title}"),
        };
        if self.later.contains(&key) {
            return format!(
                "this version has no {shown:?} yet: take it out; {} has {}",
                self.title,
                self.keys.join(", ")
            );
        }
        let mend = if let Some(near) = nearest(key, self.keys.iter().copied()) {
            format!("did you mean {near:?}?")
        } else if let Some(section) = ALL.iter().find(|shape| shape.last_part() == key) {
            format!("write that section as {}", section.title)
        } else if let Some(home) = ALL.iter().find(|shape| shape.keys.contains(&key)) {
            format!("it belongs in {}", home.title)
        } else {
            format!("the keys here are {}", self.keys.join(", "))
        };
        format!("unknown key {shown:?} {place}: {mend}")
    }

    /// `backend` of `[[service.backend]]`.
    fn last_part(&self) -> &str {
        let path = self.title.trim_matches(['[', ']']);
        path.rsplit('.').next().unwrap_or(path)
    }
}
