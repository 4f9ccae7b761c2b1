//! Why a map is written, as an operator would say it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    effective::{Effective, EffectiveBackend, Standing},
    settings::{difference, differences, is_in_maps},
};
use crate::{
    dataplane::Slot,
    model::{BackendIndex, ServiceId, Weight},
};

/// The reasons for the steps from one effective state to another.
pub(super) struct Reasons<'a> {
    pub(super) old: &'a Effective,
    pub(super) new: &'a Effective,
}

impl Reasons<'_> {
    pub(super) fn listening(&self, service: ServiceId, address: SocketAddr) -> String {
        format!("{} listens on {address}", self.service(service))
    }

    pub(super) fn service_written(&self, service: ServiceId) -> String {
        let name = self.service(service);
        let both = (
            self.old.services.get(&service),
            self.new.services.get(&service),
        );
        let (Some(old), Some(new)) = both else {
            return format!("{name} is new");
        };
        let (old, new) = (&old.service, &new.service);
        let told: Vec<String> = differences(old, new)
            .into_iter()
            .filter(|(key, _)| is_in_maps(key))
            .map(|(_, what)| what)
            .collect();
        let consequence = match old.forwarding.breaks_connections_for(new.forwarding) {
            true => ": the connections that it has break, as backends know them by other addresses",
            false => "",
        };
        match told.as_slice() {
            [] => format!("{name} is written again"),
            told => format!("{name} {}{consequence}", told.join(", ")),
        }
    }

    pub(super) fn service_removed(&self, service: ServiceId) -> String {
        format!("{} is removed", self.service(service))
    }

    pub(super) fn service_cleared(&self, service: ServiceId) -> String {
        format!(
            "{} is removed and has no connections left",
            self.service(service)
        )
    }

    pub(super) fn table_created(&self, service: ServiceId, slots: u32) -> String {
        let name = self.service(service);
        match self.old.maps.tables.get(&service) {
            Some(before) => {
                let before = before.size.to_string();
                let what = difference("table_size", &before, &slots.to_string());
                format!("{name} {what}")
            }
            None => format!("{name} is new"),
        }
    }

    /// One cause is told with what it means for the slots; several with how many slots move.
    pub(super) fn table_written(&self, service: ServiceId) -> String {
        let name = self.service(service);
        if !self.old.maps.listens.values().any(|&id| id == service) {
            return format!("{name} is new");
        }
        let (before, now) = (shares(self.old, service), shares(self.new, service));
        let causes = self.causes(service);
        match causes.as_slice() {
            [] => format!("{name}: its slot table is written again"),
            [(index, cause)] => {
                let consequence = consequence(*index, &before, &now);
                format!("{name}: {cause}: {consequence}")
            }
            _ => {
                let causes: Vec<&str> = causes.iter().map(|(_, cause)| cause.as_str()).collect();
                format!(
                    "{name}: {}: {} of its slots move",
                    causes.join(", "),
                    self.moved(service)
                )
            }
        }
    }

    pub(super) fn backend_written(&self, index: BackendIndex) -> String {
        let Some(now) = self.new.backends.get(&index) else {
            return String::new();
        };
        let name = self.service(now.service);
        if let Some(cause) = self.cause(index) {
            return format!("{name}: {cause}");
        }
        let records = (
            self.old.maps.backends.get(&index),
            self.new.maps.backends.get(&index),
        );
        match (records, &now.next_hop) {
            ((Some(old), Some(new)), _) if old.is_reachable() && !new.is_reachable() => format!(
                "{name}: backend {} ({}) is out of reach: its connections end",
                now.name, new.address
            ),
            ((Some(old), Some(new)), _) if old.forwarding != new.forwarding => {
                self.service_written(now.service)
            }
            ((Some(old), Some(new)), Ok(hop)) if old.next_hop != new.next_hop => format!(
                "{name}: backend {} is reached through {} at {}",
                now.name, hop.interface, hop.destination_mac
            ),
            ((Some(old), Some(new)), Err(why)) if old.next_hop != new.next_hop => {
                format!("{name}: backend {} has no next hop: {why}", now.name)
            }
            ((Some(old), Some(new)), _)
                if old.next_with_same_address != new.next_with_same_address
                    || old.shares_address != new.shares_address =>
            {
                format!(
                    "{name}: other services that share backend {} ({}) have changed",
                    now.name, new.address
                )
            }
            ((Some(old), Some(new)), _) if old.max_packet != new.max_packet => {
                match new.max_packet {
                    0 => format!("{name}: packets for its backends may be of any size"),
                    _ => format!("{name}: packets for its backends are held against the MTU"),
                }
            }
            _ => format!("{name}: backend {} is written again", now.name),
        }
    }

    pub(super) fn endpoint_bound(&self, address: SocketAddr, index: BackendIndex) -> String {
        let before = self.old.maps.backends.get(&index);
        match self.new.backends.get(&index) {
            Some(_) if before.is_none_or(|before| !before.is_in_chain()) => {
                self.backend_written(index)
            }
            Some(backend) => format!(
                "{}: backend {} is the first one at {address}",
                self.service(backend.service),
                backend.name
            ),
            None => String::new(),
        }
    }

    pub(super) fn endpoint_unbound(&self, index: BackendIndex) -> String {
        match self.new.maps.backends.contains_key(&index) {
            true => self.backend_written(index),
            false => self.backend_cleared(index),
        }
    }

    pub(super) fn backend_cleared(&self, index: BackendIndex) -> String {
        match self.old.backends.get(&index) {
            Some(backend) => format!(
                "{}: backend {} is removed and has no connections left",
                self.service(backend.service),
                backend.name
            ),
            None => format!("backend #{} is removed", index.0),
        }
    }

    fn service(&self, id: ServiceId) -> String {
        let known = self.new.services.get(&id).or(self.old.services.get(&id));
        match known {
            Some(known) => format!("service {}", known.service.name),
            None => format!("service #{}", id.0),
        }
    }

    /// What has happened to the backends of a service that touches its table.
    fn causes(&self, service: ServiceId) -> Vec<(BackendIndex, String)> {
        let of_service = |effective: &Effective| -> BTreeSet<BackendIndex> {
            let backends = effective.backends.iter();
            backends
                .filter(|(_, backend)| backend.service == service)
                .map(|(&index, _)| index)
                .collect()
        };
        of_service(self.old)
            .union(&of_service(self.new))
            .filter_map(|&index| Some((index, self.cause(index)?)))
            .collect()
    }

    fn cause(&self, index: BackendIndex) -> Option<String> {
        let (old, new) = (
            self.old.backends.get(&index),
            self.new.backends.get(&index)?,
        );
        let what = match old {
            None if new.standing == Standing::Removed => removed(),
            None => match self.new.maps.backends.get(&index) {
                Some(record) => format!("({}) is new, with weight {}", record.address, new.weight),
                None => return None,
            },
            Some(old) => change(old, new)?,
        };
        Some(format!("backend {} {what}", new.name))
    }

    fn moved(&self, service: ServiceId) -> usize {
        match (slots(self.old, service), slots(self.new, service)) {
            (Some(old), Some(new)) if old.len() == new.len() => {
                let both = old.iter().zip(new);
                both.filter(|(old, new)| old.primary != new.primary).count()
            }
            (_, new) => new.map_or(0, <[Slot]>::len),
        }
    }
}

fn slots(effective: &Effective, service: ServiceId) -> Option<&[Slot]> {
    let service = effective.services.get(&service)?;
    Some(service.table.as_ref()?.slots())
}

fn removed() -> String {
    "is removed".to_owned()
}

/// What has happened to a backend that matters to its slots.
fn change(old: &EffectiveBackend, new: &EffectiveBackend) -> Option<String> {
    use Standing::{Accepting, Down, Draining, Maintenance, Removed, WithoutWeight};
    let because = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let weight = |Weight(old), Weight(new)| format!("has weight {new} now, {old} before");
    Some(match (&old.standing, &new.standing) {
        (Removed, Removed) => return None,
        (Removed, _) => format!("is back, with weight {}", new.weight),
        (_, Removed) => removed(),
        (Accepting(_), Accepting(_))
        | (Down(_), Down(_))
        | (Draining, Draining)
        | (Maintenance, Maintenance)
        | (WithoutWeight, WithoutWeight)
            if old.weight == new.weight =>
        {
            return None;
        }
        (Accepting(_) | WithoutWeight, Down(reason)) => format!("is down{}", because(reason)),
        (Down(_), Accepting(reason)) => format!("is up{}", because(reason)),
        (Draining | Maintenance, Accepting(_)) => "is enabled".to_owned(),
        (Draining | Maintenance, Down(reason)) => {
            format!("is enabled but down{}", because(reason))
        }
        (Draining | Maintenance, WithoutWeight) => "is enabled, with weight 0".to_owned(),
        (Draining, Draining) | (Maintenance, Maintenance) => weight(old.weight, new.weight),
        (_, Draining) => "drains".to_owned(),
        (_, Maintenance) => "is in maintenance".to_owned(),
        _ => weight(old.weight, new.weight),
    })
}

fn shares(effective: &Effective, service: ServiceId) -> BTreeMap<BackendIndex, u32> {
    let table = effective
        .services
        .get(&service)
        .and_then(|s| s.table.as_ref());
    table.map(|table| table.shares.clone()).unwrap_or_default()
}

/// What becomes of the slots when something happens to one backend.
fn consequence(
    index: BackendIndex,
    before: &BTreeMap<BackendIndex, u32>,
    now: &BTreeMap<BackendIndex, u32>,
) -> String {
    let share =
        |shares: &BTreeMap<BackendIndex, u32>, index| shares.get(index).copied().unwrap_or(0);
    let (had, has) = (share(before, &index), share(now, &index));
    let others = |greater: fn(u32, u32) -> bool| {
        let known: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let others = known.into_iter().filter(|&&other| other != index);
        others
            .filter(|other| greater(share(now, other), share(before, other)))
            .count()
    };
    let plural = |count: usize| match count {
        1 => "1 other".to_owned(),
        count => format!("{count} others"),
    };
    match (had, has) {
        (had, 0) if had > 0 && now.values().all(|&share| share == 0) => {
            format!("its {had} slots have no backend left")
        }
        (had, 0) if had > 0 => format!("its {had} slots go to {}", plural(others(|a, b| a > b))),
        (0, has) if has > 0 => match others(|a, b| a < b) {
            0 => format!("it takes {has} slots"),
            count => format!("it takes {has} slots from {}", plural(count)),
        },
        (had, has) if had < has => format!("it has {has} slots now, {} more", has - had),
        (had, has) if had > has => format!("it has {has} slots now, {} fewer", had - has),
        _ => "the shares stay as they are".to_owned(),
    }
}
