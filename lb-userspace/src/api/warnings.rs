use super::InterfaceInfo;
use crate::{
    engine::{BackendView, Snapshot},
    model::{Health, Service},
};

/// What an operator should look at, one sentence each.
pub(super) fn warnings(snapshot: &Snapshot, interfaces: &[InterfaceInfo]) -> Vec<String> {
    let mut lines = Vec::new();
    if interfaces.is_empty() {
        lines.push("no interface is attached: nothing is balanced".to_owned());
    }
    for service in &snapshot.services {
        let name = &service.service.name;
        if service.backends.iter().all(|b| b.slots == 0) {
            lines.push(format!(
                "service {name} has no backend that takes connections"
            ));
        }
        for view in &service.backends {
            let backend = &view.backend.name;
            if view.health == Health::Down {
                lines.push(format!(
                    "backend {backend} of {name} is down: {}",
                    view.reason
                ));
            }
            if let Err(unresolved) = &view.next_hop {
                lines.push(format!(
                    "backend {backend} of {name} has no next hop: {unresolved}"
                ));
            }
            if let Some(warning) = narrow_tunnel(&service.service, view) {
                lines.push(warning);
            }
        }
    }
    lines
}

/// A tunnel that takes less than every host must be able to send in one piece (S-ICMP-5).
fn narrow_tunnel(service: &Service, view: &BackendView) -> Option<String> {
    /// RFC 8200 §5.
    const IPV6_MINIMUM: u16 = 1280;
    /// RFC 791 has every host take so much; hosts do not believe in less (RFC 1191 §3).
    const IPV4_MINIMUM: u16 = 576;
    let hop = view.next_hop.as_ref().ok()?;
    let Service {
        name, forwarding, ..
    } = service;
    let overhead = forwarding.overhead(view.backend.address.ip());
    let left = hop.mtu.saturating_sub(overhead);
    let (family, minimum) = match service.listen.is_ipv4() {
        true => ("IPv4", IPV4_MINIMUM),
        false => ("IPv6", IPV6_MINIMUM),
    };
    (forwarding.is_tunnel() && left < minimum).then(|| {
        format!(
            "backend {} of {name}: the MTU of {} towards it leaves {left} bytes for an {family} packet inside of {forwarding}, which has to have {minimum}: raise it by at least {}",
            view.backend.name,
            hop.mtu,
            minimum - left
        )
    })
}
