use std::fmt::{Display, Write as _};

use super::{Config, ConntrackSettings, InterfaceSettings};
use crate::model::{
    Admin, Backend, Check, CheckKind, Profile, Service, TableSize, TimeoutOverrides,
    format_duration,
};

/// The file of [`Config::to_toml`].
pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Writer::default();
    out.section("[daemon]");
    out.text("socket", config.daemon.socket.to_string_lossy());
    out.text("state_dir", config.daemon.state_dir.to_string_lossy());
    out.text("bpffs", config.daemon.bpffs.to_string_lossy());
    for interface in &config.interfaces {
        write_interface(interface, &mut out);
    }
    write_conntrack(&config.conntrack, &mut out);
    for service in &config.desired.services {
        write_service(service, &mut out);
    }
    out.text
}

fn write_interface(interface: &InterfaceSettings, out: &mut Writer) {
    out.section("[[interface]]");
    out.text("name", &interface.name);
    out.text("mode", interface.mode);
}

fn write_conntrack(conntrack: &ConntrackSettings, out: &mut Writer) {
    out.section("[conntrack]");
    out.bare("capacity", grouped(conntrack.capacity));
    out.bare("capacity_ipv6", grouped(conntrack.capacity_ipv6));
    let profile = match conntrack.profile {
        Profile::Edge => "edge",
        Profile::Rfc => "rfc",
    };
    out.text("profile", profile);
}

fn write_service(service: &Service, out: &mut Writer) {
    out.section("[[service]]");
    out.text("name", &service.name);
    out.text("listen", service.listen);
    out.text("protocol", service.protocol);
    out.text("forwarding", service.forwarding);
    out.text("scheduler", service.scheduler);
    if service.table_size != TableSize::default() {
        out.bare("table_size", service.table_size.slots());
    }
    write_timeouts(&service.timeouts, out);
    write_check(&service.check, out);
    for backend in &service.backends {
        write_backend(backend, out);
    }
}

fn write_timeouts(timeouts: &TimeoutOverrides, out: &mut Writer) {
    if *timeouts == TimeoutOverrides::default() {
        return;
    }
    out.section("[service.timeouts]");
    for (key, timeout) in [
        ("half_open", timeouts.half_open),
        ("established", timeouts.established),
        ("fin_wait", timeouts.fin_wait),
        ("closing", timeouts.closing),
        ("time_wait", timeouts.time_wait),
        ("reset", timeouts.reset),
    ] {
        if let Some(timeout) = timeout {
            out.text(key, format_duration(timeout));
        }
    }
}

fn write_check(check: &Check, out: &mut Writer) {
    out.section("[service.check]");
    match &check.kind {
        CheckKind::None => out.text("type", "none"),
        CheckKind::Tcp => out.text("type", "tcp"),
        CheckKind::Http { path, host } => {
            out.text("type", "http");
            out.text("path", path);
            if let Some(host) = host {
                out.text("host", host);
            }
        }
    }
    let silent = Check {
        kind: CheckKind::None,
        ..Check::default()
    };
    // Where no probe is made, a reader need not see when.
    if *check != silent {
        out.text("interval", format_duration(check.interval));
        out.text("timeout", format_duration(check.timeout));
        out.bare("rise", check.rise);
        out.bare("fall", check.fall);
    }
}

fn write_backend(backend: &Backend, out: &mut Writer) {
    out.section("[[service.backend]]");
    out.text("name", &backend.name);
    out.text("address", backend.address);
    out.bare("weight", backend.weight);
    if backend.admin != Admin::Enabled {
        out.text("admin", backend.admin);
    }
}

#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(title);
        self.text.push('\n');
    }

    /// A value that stands in quotes.
    fn text(&mut self, key: &str, value: impl Display) {
        // The crate knows what TOML wants escaped.
        self.bare(key, toml::Value::String(value.to_string()));
    }

    fn bare(&mut self, key: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }
}

/// `1000000` → `1_000_000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
        time::Duration,
    };

    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;
    use crate::{
        config::{DaemonSettings, WantedMode},
        model::{Desired, Weight},
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
capacity_ipv6 = 500_000
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
        let daemon =
            [r"/[^\p{Cc}]{0,20}"; 3].prop_map(|[socket, state_dir, bpffs]| DaemonSettings {
                socket: socket.into(),
                state_dir: state_dir.into(),
                bpffs: bpffs.into(),
            });
        let capacity = || ConntrackSettings::MIN_CAPACITY..=ConntrackSettings::MAX_CAPACITY;
        let conntrack =
            (capacity(), capacity(), any::<bool>()).prop_map(|(capacity, capacity_ipv6, rfc)| {
                ConntrackSettings {
                    capacity,
                    capacity_ipv6,
                    profile: if rfc { Profile::Rfc } else { Profile::Edge },
                }
            });
        let modes = select(vec![
            WantedMode::Auto,
            WantedMode::Native,
            WantedMode::Generic,
        ]);
        let interfaces = vec(modes, 0..4);
        (daemon, interfaces, conntrack, vec(services(), 0..5)).prop_map(
            |(daemon, modes, conntrack, services)| Config {
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
        let address = |net: u8, host: usize| -> IpAddr {
            if ipv6 {
                Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host as u16 + 1).into()
            } else {
                Ipv4Addr::new(10, net, 0, host as u8 + 1).into()
            }
        };
        service.name = format!("{}{index}", service.name).parse().unwrap();
        service.listen.set_ip(address(0, index));
        for (number, backend) in service.backends.iter_mut().enumerate() {
            backend.name = format!("{}{number}", backend.name).parse().unwrap();
            backend.address.set_ip(address(1, number));
        }
        service
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
            name,
            ip,
            1u16..,
            size,
            timeouts(),
            checks(),
            vec(backend, 0..6),
        )
            .prop_map(
                |(name, ip, port, size, timeouts, check, backends)| Service {
                    name: name.parse().unwrap(),
                    listen: SocketAddr::new(ip, port),
                    protocol: Default::default(),
                    forwarding: Default::default(),
                    scheduler: Default::default(),
                    table_size: TableSize::try_from(size).unwrap(),
                    check,
                    timeouts,
                    snat: Vec::new(),
                    tunnel: Default::default(),
                    no_backend: Default::default(),
                    on_expiry: Default::default(),
                    on_backend_down: Default::default(),
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
        vec(
            option::of((1u64..=604_800).prop_map(Duration::from_secs)),
            6,
        )
        .prop_map(|set| TimeoutOverrides {
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
}
