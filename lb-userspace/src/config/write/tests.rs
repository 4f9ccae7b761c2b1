use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    config::{DaemonSettings, Echo, WantedMode},
    model::{Desired, Forwarding, Profile, Weight},
};

#[test]
fn a_saved_file_is_for_people() {
    let text = r#"
            [[interface]]
            name = "eth0"

            [[service]]
            name = "web"
            listen = "192.0.2.10:80"
            timeouts.established = "3h"
            check = { type = "http", path = "/healthz", interval = "1500ms" }

            [[service.backend]]
            address = "10.0.1.11:8080"

            [[service.backend]]
            name = "web-2"
            address = "10.0.1.12:8080"
            weight = 0
            admin = "drain"

            [[service]]
            name = "raw6"
            listen = "[2001:db8::10]:9000"
            table_size = 251
            check.type = "none"

            [[service]]
            name = "far"
            listen = "192.0.2.11:80"
            forwarding = "gue"
            tunnel_source = ["100.64.0.0/10", "2001:db8:1::/64"]
            tunnel_port = 6081
            no_backend = "icmp"
            on_expiry = "reset"
            on_backend_down = "reset"
            profile = "rfc"
            check.type = "none"

            [[service]]
            name = "full"
            listen = "192.0.2.12:80"
            forwarding = "full-nat"
            snat = "10.0.0.5"
            check.type = "none"
            "#;
    let expected = r#"[daemon]
socket = "/run/lb/lbd.sock"
state_dir = "/var/lib/lb"
bpffs = "/sys/fs/bpf/lb"

[[interface]]
name = "eth0"
mode = "auto"

[conntrack]
capacity = 1_000_000
capacity_ipv6 = 250_000
profile = "edge"

[[service]]
name = "web"
listen = "192.0.2.10:80"
protocol = "tcp"
forwarding = "nat"
scheduler = "maglev"

[service.timeouts]
established = "3h"

[service.check]
type = "http"
path = "/healthz"
interval = "1s500ms"
timeout = "1s"
rise = 2
fall = 3

[[service.backend]]
name = "10.0.1.11:8080"
address = "10.0.1.11:8080"
weight = 100

[[service.backend]]
name = "web-2"
address = "10.0.1.12:8080"
weight = 0
admin = "drain"

[[service]]
name = "raw6"
listen = "[2001:db8::10]:9000"
protocol = "tcp"
forwarding = "nat"
scheduler = "maglev"
table_size = 251

[service.check]
type = "none"

[[service]]
name = "far"
listen = "192.0.2.11:80"
protocol = "tcp"
forwarding = "gue"
tunnel_source = ["100.64.0.0/10", "2001:db8:1::/64"]
tunnel_port = 6081
scheduler = "maglev"
no_backend = "icmp"
on_expiry = "reset"
on_backend_down = "reset"
profile = "rfc"

[service.check]
type = "none"

[[service]]
name = "full"
listen = "192.0.2.12:80"
protocol = "tcp"
forwarding = "full-nat"
snat = ["10.0.0.5"]
scheduler = "maglev"

[service.check]
type = "none"
"#;
    let config = Config::parse(text, "lb.toml").unwrap();
    assert_eq!(config.to_toml(), expected);
}

proptest! {
    #[test]
    fn a_saved_configuration_reads_back_the_same(config in configs()) {
        let text = config.to_toml();
        match Config::parse(&text, "saved") {
            Ok(read) => prop_assert_eq!(read, config),
            Err(error) => prop_assert!(false, "{}
{}", error, text),
        }
    }
}

fn configs() -> impl Strategy<Value = Config> {
    let daemon = [r"/[^\p{Cc}]{0,20}"; 3].prop_map(|[socket, state_dir, bpffs]| DaemonSettings {
        socket: socket.into(),
        state_dir: state_dir.into(),
        bpffs: bpffs.into(),
    });
    let capacity = || ConntrackSettings::MIN_CAPACITY..=ConntrackSettings::MAX_CAPACITY;
    let conntrack = (capacity(), capacity(), profiles(), 1..100_000_000_u32).prop_map(
        |(capacity, capacity_ipv6, profile, flood_limit)| ConntrackSettings {
            capacity,
            capacity_ipv6,
            profile,
            flood_limit,
        },
    );
    let icmp = select(vec![Echo::Answer, Echo::Pass]).prop_map(|echo| IcmpSettings { echo });
    let modes = select(vec![
        WantedMode::Auto,
        WantedMode::Native,
        WantedMode::Generic,
    ]);
    let interfaces = vec(modes, 0..4);
    (daemon, interfaces, conntrack, icmp, vec(services(), 0..5)).prop_map(
        |(daemon, modes, conntrack, icmp, services)| Config {
            daemon,
            interfaces: modes
                .into_iter()
                .enumerate()
                .map(|(index, mode)| InterfaceSettings {
                    name: format!("eth{index}"),
                    mode,
                })
                .collect(),
            conntrack,
            icmp,
            desired: Desired {
                services: services
                    .into_iter()
                    .enumerate()
                    .map(|(index, service)| numbered(service, index))
                    .collect(),
            },
        },
    )
}

/// Names and addresses that keep the rules among services: each with its number.
fn numbered(mut service: Service, index: usize) -> Service {
    let ipv6 = service.listen.is_ipv6();
    let address = |ipv6: bool, net: u8, host: usize| -> IpAddr {
        if ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host as u16 + 1).into()
        } else {
            Ipv4Addr::new(10, net, 0, host as u8 + 1).into()
        }
    };
    let forwarding = service.forwarding;
    service.name = format!("{}{index}", service.name).parse().unwrap();
    service.listen.set_ip(address(ipv6, 0, index));
    for (number, backend) in service.backends.iter_mut().enumerate() {
        backend.name = format!("{}{number}", backend.name).parse().unwrap();
        let other_family = forwarding.is_tunnel() && number % 2 == 1;
        backend
            .address
            .set_ip(address(ipv6 != other_family, 1, number));
        if forwarding.keeps_destination() {
            backend.address.set_port(service.listen.port());
        }
    }
    for (number, snat) in service.snat.iter_mut().enumerate() {
        *snat = address(ipv6, 2, number);
    }
    service
}

fn profiles() -> impl Strategy<Value = Profile> {
    select(vec![Profile::Edge, Profile::Rfc])
}

/// A mode with what it needs; the addresses to send from are made by [`numbered`].
fn means() -> impl Strategy<Value = (Forwarding, Vec<IpAddr>, Tunnel)> {
    let default = Tunnel::default();
    let source4 = prop_oneof![
        Just(default.source_ipv4),
        (1_u32..0xe000_0000, 0..=32_u8)
            .prop_map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap().trunc())
            .prop_filter("a source", |prefix| !prefix.network().is_unspecified()),
    ];
    let source6 = prop_oneof![
        Just(default.source_ipv6),
        (any::<u64>(), 16..=128_u8).prop_map(|(low, length)| {
            let address = u128::from(low) | 0x2001_0db8 << 96;
            Ipv6Net::new(address.into(), length).unwrap().trunc()
        }),
    ];
    let tunnel = (source4, source6, 1_u16..).prop_map(|(source_ipv4, source_ipv6, port)| Tunnel {
        source_ipv4,
        source_ipv6,
        port,
    });
    let snat = vec(Just(IpAddr::V4(Ipv4Addr::LOCALHOST)), 1..=16);
    let plain = |mode| (mode, Vec::new(), Tunnel::default());
    prop_oneof![
        Just(plain(Forwarding::Nat)),
        Just(plain(Forwarding::Dsr)),
        snat.prop_map(|snat| (Forwarding::FullNat, snat, Tunnel::default())),
        tunnel.clone().prop_map(|tunnel| {
            let port = Tunnel::GUE_PORT;
            (Forwarding::Ipip, Vec::new(), Tunnel { port, ..tunnel })
        }),
        tunnel.prop_map(|tunnel| (Forwarding::Gue, Vec::new(), tunnel)),
    ]
}

fn endings() -> impl Strategy<Value = (NoBackend, OnExpiry, OnBackendDown)> {
    (
        select(vec![NoBackend::Rst, NoBackend::Drop, NoBackend::Icmp]),
        select(vec![OnExpiry::Forget, OnExpiry::Reset]),
        select(vec![OnBackendDown::Keep, OnBackendDown::Reset]),
    )
}

fn services() -> impl Strategy<Value = Service> {
    let name = "[A-Za-z0-9._:][A-Za-z0-9._:-]{0,50}";
    let ip = prop_oneof![
        Just(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Just(IpAddr::V6(Ipv6Addr::LOCALHOST))
    ];
    let size = select(vec![251, 1009, 65_521, 65_537]);
    let backend = (name, 1u16.., any::<u16>(), 0..3usize);
    (
        (name, ip, 1u16.., size),
        means(),
        endings(),
        timeouts(),
        checks(),
        vec(backend, 0..6),
    )
        .prop_map(
            |((name, ip, port, size), means, endings, timeouts, check, backends)| Service {
                name: name.parse().unwrap(),
                listen: SocketAddr::new(ip, port),
                protocol: Default::default(),
                forwarding: means.0,
                scheduler: Default::default(),
                table_size: TableSize::try_from(size).unwrap(),
                check,
                timeouts,
                snat: means.1,
                tunnel: means.2,
                no_backend: endings.0,
                on_expiry: endings.1,
                on_backend_down: endings.2,
                backends: backends
                    .into_iter()
                    .map(|(name, port, weight, admin)| Backend {
                        name: name.parse().unwrap(),
                        address: SocketAddr::new(ip, port),
                        weight: Weight(weight),
                        admin: [Admin::Enabled, Admin::Drain, Admin::Maint][admin],
                    })
                    .collect(),
            },
        )
}

fn timeouts() -> impl Strategy<Value = TimeoutOverrides> {
    let timeout = option::of((1u64..=604_800).prop_map(Duration::from_secs));
    (vec(timeout, 6), option::of(profiles())).prop_map(|(set, profile)| TimeoutOverrides {
        profile,
        half_open: set[0],
        established: set[1],
        fin_wait: set[2],
        closing: set[3],
        time_wait: set[4],
        reset: set[5],
    })
}

fn checks() -> impl Strategy<Value = Check> {
    let kind = prop_oneof![
        Just(CheckKind::None),
        Just(CheckKind::Tcp),
        ("/[!-~&&[^#]]{0,30}", option::of("[A-Za-z0-9.:-]{1,30}"))
            .prop_map(|(path, host)| CheckKind::Http { path, host }),
    ];
    let times = prop_oneof![
        Just((2_000, 1_000)),
        (100u64..=3_600_000, 10u64..=3_600_000)
    ];
    (kind, times, 1u16.., 1u16..).prop_map(|(kind, (interval, timeout), rise, fall)| Check {
        kind,
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(timeout),
        rise,
        fall,
    })
}
