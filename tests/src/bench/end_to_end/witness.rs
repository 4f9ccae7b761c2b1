//! Evidence that packets took the way that they are said to have taken.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    api::{ServiceInfo, Traffic},
    dataplane::decap::DecapStatus,
};

use super::{contender::Contender, stage::Stage};

/// What was counted along the way so far.
pub(super) struct Witness {
    /// Packets that have come in at the balancer's interface towards the client.
    received: u64,
    /// Packets that the balancer's kernel has routed.
    routed: u64,
    /// Connections that the balancer's netfilter knows.
    tracked: u64,
    /// What the load balancer has counted of the service.
    balanced: Traffic,
    /// Packets that were taken out of tunnels.
    decapsulated: u64,
}

/// Packets of neighbour discovery and health probes in a turn, at most.
const FEW: u64 = 200;

impl Witness {
    pub(super) fn now(stage: &Stage, contender: Contender) -> Result<Self> {
        let netns = stage.balancer().netns();
        let [received, routed, tracked] = netns.run(|| -> Result<_> {
            Ok([
                received(&read("/proc/thread-self/net/dev")?)
                    .context("/proc/net/dev has no eth0")?,
                routed(&read("/proc/thread-self/net/snmp")?)
                    .context("/proc/net/snmp has no ForwDatagrams")?,
                // Where netfilter tracks nothing there may be no such file.
                fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
                    .map_or(Ok(0), |count| count.trim().parse())?,
            ])
        })?;
        let mut witness = Self {
            received,
            routed,
            tracked,
            balanced: Traffic::default(),
            decapsulated: 0,
        };
        if let (Contender::Lb(forwarding), Some(lbd)) = (contender, stage.lbd()) {
            let services = lbd.lbctl_json(&["service", "list"])?;
            let services: Vec<ServiceInfo> = serde_json::from_value(services)?;
            let service = services
                .iter()
                .find(|service| service.forwarding == forwarding);
            witness.balanced = service.context("lbd has no such service")?.counters.traffic;
            if forwarding.is_tunnel() {
                let status = stage.decap().json(&["status", "eth0"])?;
                let status: DecapStatus = serde_json::from_value(status)?;
                let name = forwarding.to_string();
                let counted = status.counters.iter().find(|c| c.outcome == name);
                witness.decapsulated = counted.map_or(0, |c| c.packets);
            }
        }
        Ok(witness)
    }

    /// Whether so many connections with at least a request each went the way of the contender
    /// since then.
    pub(super) fn testify(
        &self,
        before: &Self,
        contender: Contender,
        connections: u64,
    ) -> Result<()> {
        let received = self.received - before.received;
        let routed = self.routed - before.routed;
        let past_the_balancer = contender == Contender::Direct;
        ensure!(
            // A connection that came by would have brought several; those of the contender before
            // may still be ending.
            if past_the_balancer {
                received < connections
            } else {
                received >= connections
            },
            "{connections} connections, but {received} packets came to the balancer"
        );
        let by_the_kernel = matches!(contender, Contender::Routed | Contender::Nftables);
        ensure!(
            if by_the_kernel {
                routed >= connections
            } else {
                routed < FEW
            },
            "{connections} connections, but the balancer's kernel routed {routed} packets"
        );
        match contender {
            Contender::Nftables => ensure!(
                self.tracked > 0,
                "netfilter tracks no connection: nothing was translated"
            ),
            Contender::Lb(forwarding) => {
                let before_then = before.balanced;
                let now = self.balanced;
                let opened = now.connections - before_then.connections;
                let replies = now.packets_out - before_then.packets_out;
                ensure!(
                    opened >= connections,
                    "{connections} connections, of which lb counted {opened}"
                );
                ensure!(
                    (replies >= connections) == forwarding.sees_replies()
                        && (replies == 0) != forwarding.sees_replies(),
                    "lb counted {replies} packets of replies"
                );
                let decapsulated = self.decapsulated - before.decapsulated;
                ensure!(
                    (decapsulated >= connections) == forwarding.is_tunnel(),
                    "{decapsulated} packets came out of tunnels"
                );
            }
            _ => {}
        }
        Ok(())
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Packets received at `eth0`, by `/proc/net/dev`.
fn received(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// `ForwDatagrams` of `/proc/net/snmp`: a line of names, then one of values.
fn routed(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let mut names = lines.next()?.split_whitespace();
    let column = names.position(|name| name == "ForwDatagrams")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let dev = "Inter-| Receive\n face |bytes packets\n    lo: 1 2 3\n  eth0: 1000 17 0 0 0\n";
        assert_eq!(received(dev), Some(17));
        let snmp = "Ip: Forwarding DefaultTTL ForwDatagrams\nIp: 1 64 12\nTcp: A\nTcp: 1\n";
        assert_eq!(routed(snmp), Some(12));
        assert_eq!(routed("Ip: Forwarding\nIp: 1\n"), None);
    }
}
