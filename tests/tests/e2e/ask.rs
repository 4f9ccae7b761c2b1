//! What `lbctl` answers, as types.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::lab::Lbd;
use lb_userspace::api::{
    BackendInfo, Changed, ConnectionInfo, ConntrackStats, ReasonInfo, ServiceDetail, ServiceInfo,
    StatsInfo, StatusInfo,
};
use serde::de::DeserializeOwned;

/// A refusal of `lbctl`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// Questions to a daemon; each goes through `lbctl -o json`.
pub(crate) trait Ask {
    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T;
    /// Why `lbctl …` fails, which it has to.
    fn refused(&self, arguments: &[&str]) -> Refusal;

    fn status(&self) -> StatusInfo {
        self.json(&["status"])
    }

    fn service(&self, name: &str) -> ServiceInfo {
        let services: Vec<ServiceInfo> = self.json(&["service", "list"]);
        let mut services = services.into_iter();
        services.find(|s| s.name.as_str() == name).unwrap()
    }

    fn service_detail(&self, name: &str) -> ServiceDetail {
        self.json(&["service", "show", name])
    }

    fn backends(&self, service: &str) -> Vec<BackendInfo> {
        self.json(&["backend", "list", "--service", service])
    }

    fn backend(&self, service: &str, name: &str) -> BackendInfo {
        let mut backends = self.backends(service).into_iter();
        backends.find(|b| b.name.as_str() == name).unwrap()
    }

    /// Slots by backend, in the order of the configuration.
    fn slots(&self, service: &str) -> Vec<u32> {
        self.backends(service).iter().map(|b| b.slots).collect()
    }

    fn connections(&self, service: &str) -> Vec<ConnectionInfo> {
        self.json(&["conntrack", "list", "--service", service])
    }

    /// Backend's name by client, of the established connections.
    fn established(&self, service: &str) -> BTreeMap<SocketAddr, String> {
        let connections = self.connections(service).into_iter();
        let established = connections.filter(|c| c.state == "ESTABLISHED");
        established
            .filter_map(|c| Some((c.client, c.backend?.to_string())))
            .collect()
    }

    fn conntrack(&self) -> ConntrackStats {
        self.json(&["conntrack", "stats"])
    }

    /// Packets dropped, by reason, of all services and of none.
    fn drops(&self) -> BTreeMap<String, u64> {
        let stats: StatsInfo = self.json(&["stats"]);
        let of_services = stats.services.into_iter().flat_map(|s| s.reasons);
        let mut drops = BTreeMap::new();
        for ReasonInfo {
            reason, packets, ..
        } in of_services.chain(stats.reasons).filter(|r| r.dropped)
        {
            *drops.entry(reason).or_default() += packets;
        }
        drops
    }

    /// Packets of a service counted under this reason, dropped or not.
    fn reason(&self, service: &str, reason: &str) -> u64 {
        let stats: StatsInfo = self.json(&["stats"]);
        let mut services = stats.services.into_iter();
        let service = services.find(|s| s.name.as_str() == service).unwrap();
        let counted = service.reasons.into_iter().find(|r| r.reason == reason);
        counted.map_or(0, |r| r.packets)
    }

    /// `lbctl backend …`: what it has changed.
    fn change(&self, arguments: &[&str]) -> Vec<String> {
        let changed: Changed = self.json(arguments);
        changed.changes
    }
}

impl Ask for Lbd {
    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let answer = self.lbctl_json(arguments).unwrap();
        serde_json::from_value(answer).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> Refusal {
        let output = self.lbctl(arguments).unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap();
        assert!(code != 0, "lbctl {arguments:?} succeeds");
        Refusal { code, message }
    }
}
