//! What people see.

use crate::fake::{Daemon, WEB_CONNECTIONS};

#[tokio::test]
async fn status_shows_interfaces_use_and_what_needs_attention() {
    let daemon = Daemon::start().await;
    let text = daemon.table(&["status"]).await;
    let (head, rest) = text.split_once('\n').unwrap();
    assert!(head.starts_with(concat!("lbd ", env!("CARGO_PKG_VERSION"), " (pid ")));
    assert!(head.ends_with(&format!(
        ", configuration {}",
        daemon.path("lb.toml").display()
    )));
    assert_eq!(
        rest,
        "
INTERFACE  MODE     NOTE
eth0       native
eth1       generic  its driver has no XDP

services     2
backends     3, 2 healthy
connections  250 of 1.50M (0.0%): 240 established, 7 half-open, 2 closing, 1 ended

warning: backend web-2 of web is down: connection refused
warning: backend web-2 of web has no next hop: no neighbour answers for 10.0.1.12 on eth0
warning: backend mail-1 of mail: the MTU of 1300 towards it leaves 1252 bytes for an IPv6 packet inside of gue, which has to have 1280: raise it by at least 28
"
    );
}

#[tokio::test]
async fn lists_are_plain_aligned_tables() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.table(&["service", "list"]).await,
        "\
NAME  LISTEN             PROTOCOL  FORWARDING  SCHEDULER  HEALTHY  ACTIVE  CONNECTIONS  PACKETS     BYTES  DROPS  CHECKSUM
web   192.0.2.10:80      tcp       nat         maglev         1/2     250         1007      210  20.5 KiB     10  0000000000001234
mail  [2001:db8::10]:25  tcp       gue         maglev         1/1       0            3       90  8.79 KiB     20  0000000000000007
"
    );
    assert_eq!(
        daemon.table(&["backend", "list"]).await,
        "\
SERVICE  NAME    ADDRESS              WEIGHT  ADMIN    HEALTH   SLOTS  ACTIVE  CONNECTIONS  PACKETS     BYTES  NEXT-HOP                           REASON
web      web-1   10.0.1.11:8080          100  enabled  up       65537     124            1       30  2.93 KiB  02:00:00:00:00:11 via eth0 vlan 7  HTTP 200 from GET /healthz
web      web-2   10.0.1.12:8080          100  enabled  down         0     125            2       60  5.86 KiB  -                                  connection refused; no next hop: no neighbour answers for 10.0.1.12 on eth0
mail     mail-1  [2001:db8:1::11]:25     100  enabled  unknown  65537       0            3       90  8.79 KiB  02:00:00:00:00:11 via eth0 vlan 7
"
    );
}

#[tokio::test]
async fn a_service_is_shown_with_all_there_is_to_say() {
    let daemon = Daemon::start().await;
    let text = daemon.table(&["service", "show", "web"]).await;
    for line in [
        "listen       192.0.2.10:80 (tcp)",
        "forwarding   nat",
        "policy       no backend: rst, on expiry: forget, on backend down: keep",
        "check        http GET /healthz every 2s, timeout 1s, up after 2, down after 3",
        "table        65537 slots, checksum 0000000000001234, base ffffffffffffffff",
        "connections  250 active, 1007 since the start; 1 of them on 1 backend that was removed",
        "traffic      in 70 packets, 6.84 KiB; out 140 packets, 13.7 KiB",
        "dropped      10 packets",
        "untracked    1 connection",
        "ttl_expired  dropped       10  the packet may not be forwarded further",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    let text = daemon.table(&["service", "show", "mail"]).await;
    assert!(text.contains("checksum 0000000000000007, every backend usable\n"));
    for line in [
        "forwarding   gue from 100.64.0.0/10 and 100::/112 to UDP port 6080",
        "policy       no backend: icmp, on expiry: reset, on backend down: keep",
        "timeouts     half-open 4m, established 2h4m, fin-wait 4m, closing 4m, time-wait 4m, reset 4m (profile rfc)",
        "check        none",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
}

#[tokio::test]
async fn a_table_of_connections_is_cut_short_and_says_so() {
    let daemon = Daemon::start().await;
    let text = daemon.table(&["conntrack", "list"]).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 100 + 1);
    assert_eq!(
        lines[..3],
        [
            "SERVICE  BACKEND    CLIENT             VIP            STATE          AGE  IDLE",
            "web      (removed)  198.51.100.7:1024  192.0.2.10:80  established  2m05s    3s",
            "web      web-2      198.51.100.7:1025  192.0.2.10:80  established  2m05s    3s",
        ]
    );
    assert_eq!(lines[101], "and 150 more; --limit shows more of them");

    let text = daemon
        .table(&["conntrack", "list", "--limit", "1000"])
        .await;
    assert_eq!(text.lines().count(), 1 + usize::from(WEB_CONNECTIONS));
}

#[tokio::test]
async fn counters_are_shown_with_their_reasons() {
    let daemon = Daemon::start().await;
    let text = daemon.table(&["stats"]).await;
    for line in [
        "web      ttl_expired  dropped       10  the packet may not be forwarded further",
        "-        not_ours     -          1.23M  aimed at no service",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    assert_eq!(
        daemon.table(&["conntrack", "stats"]).await,
        "\
capacity     1500000
used         250 (0.0%)
established  240
half-open    7
closing      2
ended        1
untracked    3 since the start
"
    );
}

#[tokio::test]
async fn drops_are_shown_with_the_last_packets() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.table(&["stats", "drops"]).await,
        "\
SERVICE  REASON       VERDICT  PACKETS  DESCRIPTION
web      ttl_expired  dropped       10  the packet may not be forwarded further
-        not_ours     -          1.23M  aimed at no service

SERVICE  REASON       PACKET                                   INTERFACE        AGE
web      ttl_expired  [2001:db8::7]:40000 → [2001:db8::10]:80  eth0        3.2s ago
web      ttl_expired  2001:db8::8 → 2001:db8::10               eth0       2m05s ago
"
    );
}
