//! What an idle connection costs in memory.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::model::Forwarding;

use super::{contender::Contender, stage::Stage};
use crate::{lab::wait_for, web::http};

/// Who is asked: in the other modes the load balancer keeps the same record.
pub(super) const CONTENDERS: [Contender; 6] = [
    Contender::Direct,
    Contender::Nftables,
    Contender::Haproxy,
    Contender::NginxStream,
    Contender::Lb(Forwarding::Nat),
    Contender::Lb(Forwarding::FullNat),
];

/// Of an IPv4 connection, in a table that is there from the beginning, so that nothing grows.
pub(super) const RECORD: f64 = 16.0;

/// Bytes that each of so many connections adds while it is open and idle: to the processes on the
/// balancer, and to the kernel, for both ends and whatever is between.
pub(super) fn per_connection(
    stage: &mut Stage,
    contender: Contender,
    connections: usize,
) -> Result<f64> {
    let target = stage.take_turn(contender)?;
    // Connections that are closed are gone: no older ones vanish meanwhile.
    for host in [stage.client(), stage.balancer()] {
        host.netns().sysctl(&[("ipv4/tcp_max_tw_buckets", "0")])?;
    }
    // What is allocated once is there before.
    drop(http::hold(stage.client(), target, connections / 10)?);
    let before = settled(stage)?;
    let mut held = http::hold(stage.client(), target, connections)
        .with_context(|| format!("hold {connections} connections"))?;
    let after = used(stage)?;
    let answered: usize = held.ask_again().values().map(|asked| asked.same).sum();
    ensure!(
        answered == connections,
        "{answered} of {connections} idle connections still worked"
    );
    Ok((after - before) / connections as f64)
}

/// What is used once it no longer falls: the kernel frees sockets a while after they were closed.
fn settled(stage: &Stage) -> Result<f64> {
    const INTERVAL: Duration = Duration::from_millis(300);
    let mut last = used(stage)?;
    let what = "closed connections are forgotten";
    let settled = wait_for(Duration::from_secs(20), what, || {
        thread::sleep(INTERVAL);
        let now = used(stage);
        match now {
            Ok(now) if now < last => {
                last = now;
                None
            }
            now => Some(now),
        }
    });
    settled?
}

fn used(stage: &Stage) -> Result<f64> {
    let slabs = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    let slabs = slab_bytes(&slabs).context("/proc/slabinfo is not as expected")?;
    let mut resident = 0;
    for process in stage.balancer().netns().process_ids()? {
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .with_context(|| format!("process {process} has ended"))?;
        resident += resident_bytes(&status);
    }
    Ok(slabs + resident as f64)
}

/// Of sockets and what belongs to each, and of connections that netfilter tracks. Objects of the
/// general allocator (`kmalloc`) come and go with whatever else happens, and are not counted.
/// (slabinfo(5): name, active objects, objects, size of an object.)
fn slab_bytes(text: &str) -> Option<f64> {
    const OURS: [&str; 9] = [
        "TCP",
        "request_sock_TCP",
        "sock_inode_cache",
        "filp",
        "tcp_bind_bucket",
        "tcp_bind2_bucket",
        "eventpoll_epi",
        "eventpoll_pwq",
        "nf_conntrack",
    ];
    let mut bytes = 0.0;
    for line in text.lines().skip(2) {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let active: f64 = words.next()?.parse().ok()?;
        let size: f64 = words.nth(1)?.parse().ok()?;
        if OURS.contains(&name) {
            bytes += active * size;
        }
    }
    Some(bytes)
}

/// `VmRSS` of proc_pid_status(5); a process that is ending has none.
fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_sockets_counts() {
        let slabs = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                     TCP 10 20 2432 13 8 : tunables 0 0 0\ndentry 99 99 192 21 1 : x\n\
                     ext4_inode_cache 5 5 1000 1 1 : x\nsock_inode_cache 2 3 832 1 1 : x\n";
        assert_eq!(slab_bytes(slabs), Some(10.0 * 2432.0 + 2.0 * 832.0));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t  12 kB\n"), 12 << 10);
        assert_eq!(resident_bytes("Name:\tx\n"), 0);
    }
}
