//! Two namespaces, and the resolver in one of them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    net::IpAddr,
    os::fd::AsRawFd,
    process::{self, Command},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use lb_userspace::{
    model::{MacAddr, NextHop},
    netlink::{self, Resolution},
};
use tokio::sync::watch;

/// For what the kernel does in milliseconds, or in a few seconds where it probes and gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const BALANCER_MAC: &str = "02:00:00:00:00:01";
pub(crate) const PEER_MAC: &str = "02:00:00:00:00:02";
pub(crate) const OTHER_MAC: &str = "02:00:00:00:00:99";

/// Two namespaces joined by a veth pair, `eth0` in both: the balancer, which is 10.0.0.1 and
/// fd00::1, and its peer, which is 10.0.0.2 and fd00::2.
pub(crate) struct Lab {
    pub(crate) balancer: String,
    peer: String,
}

impl Lab {
    /// `None` without root: the test is to be skipped.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: geteuid(2) takes nothing and always succeeds.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let unique = format!(
            "lb-netlink-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            balancer: format!("{unique}-balancer"),
            peer: format!("{unique}-peer"),
        };
        let Self { balancer, peer } = &lab;
        run_ip(&format!("netns add {balancer}"));
        run_ip(&format!("netns add {peer}"));
        run_ip(&format!(
            "-n {balancer} link add eth0 address {BALANCER_MAC} type veth \
             peer name eth0 address {PEER_MAC} netns {peer}"
        ));
        for (namespace, host) in [(balancer, 1), (peer, 2)] {
            // Without duplicate address detection an IPv6 address can be used at once, and nothing
            // changes later. Neighbours are solicited from the link-local one.
            run_ip(&format!("-n {namespace} link set eth0 addrgenmode none"));
            for address in [
                format!("10.0.0.{host}/24"),
                format!("fd00::{host}/64 nodad"),
                format!("fe80::{host}/64 nodad"),
            ] {
                run_ip(&format!("-n {namespace} address add {address} dev eth0"));
            }
            run_ip(&format!("-n {namespace} link set eth0 up"));
            // The kernel gives up on a neighbour after three probes: in 0.3 s instead of 3 s.
            for table in ["arp_cache", "ndisc_cache"] {
                let change = format!("ntable change name {table} dev eth0 retrans 100");
                run_ip(&format!("-n {namespace} {change}"));
            }
        }
        // A veth has its carrier a moment after both ends are up.
        wait_until("the link has a carrier", || {
            let link = lab.balancer("link show eth0");
            link.contains("LOWER_UP")
        });
        Some(lab)
    }

    /// Runs `ip` in the balancer's namespace, and returns its output.
    pub(crate) fn balancer(&self, arguments: &str) -> String {
        run_ip(&format!("-n {} {arguments}", self.balancer))
    }

    /// Runs `ip` in the peer's namespace.
    pub(crate) fn peer(&self, arguments: &str) {
        run_ip(&format!("-n {} {arguments}", self.peer));
    }

    /// Runs many commands in the balancer's namespace, as fast as they go.
    pub(crate) fn balancer_batch(&self, commands: impl Iterator<Item = String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for command in commands {
            writeln!(file, "{command}").unwrap();
        }
        let path = file.path().to_str().unwrap();
        run_ip(&format!("-n {} -batch {path}", self.balancer));
    }

    pub(crate) fn balancer_ifindex(&self, interface: &str) -> u32 {
        let line = self.balancer(&format!("-oneline link show {interface}"));
        let (index, _) = line.split_once(':').unwrap();
        index.parse().unwrap()
    }

    /// Starts the resolver in the balancer's namespace.
    pub(crate) fn resolver<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> Resolver {
        Resolver::start(&self.balancer, set(addresses))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.balancer, &self.peer] {
            // Its success is not asserted: a lab that failed half-way lacks one.
            ip_command(&format!("netns del {namespace}"));
        }
    }
}

/// The resolver, in a thread of its own because a network namespace is a thread's.
pub(crate) struct Resolver {
    wanted: Option<watch::Sender<BTreeSet<IpAddr>>>,
    pub(crate) found: mpsc::Receiver<(IpAddr, Resolution)>,
    /// Received, and not looked for yet.
    kept: RefCell<Vec<(IpAddr, Resolution)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Resolver {
    fn start(namespace: &str, addresses: BTreeSet<IpAddr>) -> Self {
        let (wanted, wanted_receiver) = watch::channel(addresses);
        let (found_sender, found) = mpsc::channel();
        let namespace = namespace.to_owned();
        let thread = thread::spawn(move || {
            enter(&namespace).block_on(async {
                let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
                let task = netlink::spawn(wanted_receiver, sender).unwrap();
                while let Some(change) = receiver.recv().await {
                    // A test that has seen enough no longer listens.
                    let _ = found_sender.send(change);
                }
                task.await.unwrap();
            });
        });
        Self {
            wanted: Some(wanted),
            found,
            kept: RefCell::default(),
            thread: Some(thread),
        }
    }

    pub(crate) fn want<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        let wanted = self.wanted.as_ref().unwrap();
        wanted.send(set(addresses)).unwrap();
    }

    pub(crate) fn expect_next_hop(&self, address: &str) -> NextHop {
        self.wait_for(address, Resolution::is_ok).unwrap()
    }

    pub(crate) fn expect_mac(&self, address: &str, destination: &str) {
        self.wait_for(address, |resolution| has_mac(resolution, destination))
            .unwrap();
    }

    pub(crate) fn expect(&self, address: &str, expected: Resolution) {
        assert_eq!(self.wait_for(address, |r| *r == expected), expected);
    }

    /// Waits until `address` changes to what is expected; panics with what came instead. Changes of
    /// other addresses are kept for later.
    pub(crate) fn wait_for(
        &self,
        address: &str,
        is_expected: impl Fn(&Resolution) -> bool,
    ) -> Resolution {
        let deadline = Instant::now() + DEADLINE;
        let mut kept = self.kept.borrow_mut();
        let mut unexpected = Vec::new();
        let mut scanned = 0;
        loop {
            while let Some((of, _)) = kept.get(scanned) {
                if *of != ip(address) {
                    scanned += 1;
                    continue;
                }
                let (_, resolution) = kept.remove(scanned);
                if is_expected(&resolution) {
                    return resolution;
                }
                unexpected.push(resolution);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.found.recv_timeout(left) {
                Ok(change) => kept.push(change),
                Err(error) => panic!("{address}: {error}; came: {unexpected:#?}"),
            }
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // This ends the resolver's task, and thereby the thread.
        drop(self.wanted.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the resolver panicked");
        }
    }
}

/// Moves this thread into a network namespace, and makes a runtime that stays in this thread.
pub(crate) fn enter(namespace: &str) -> tokio::runtime::Runtime {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    // SAFETY: setns(2) reads an open descriptor, and changes this thread's namespace only.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "{}", io::Error::last_os_error());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs `ip`, which must succeed, and returns its output.
fn run_ip(arguments: &str) -> String {
    let output = ip_command(arguments);
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip_command(arguments: &str) -> process::Output {
    Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn set<'a>(addresses: impl IntoIterator<Item = &'a str>) -> BTreeSet<IpAddr> {
    addresses.into_iter().map(ip).collect()
}

pub(crate) fn mac(text: &str) -> MacAddr {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddr(bytes.try_into().unwrap())
}

pub(crate) fn has_mac(resolution: &Resolution, wanted: &str) -> bool {
    matches!(resolution, Ok(next_hop) if next_hop.destination_mac == mac(wanted))
}
