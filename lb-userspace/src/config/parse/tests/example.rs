//! `lb.example.toml` does what its comments say.

use std::time::Duration;

use crate::{
    config::{Config, InterfaceSettings, WantedMode, timeouts},
    model::{Admin, Check, CheckKind, Forwarding, Profile, TimeoutOverrides, Weight},
};

const EXAMPLE: &str = include_str!("../../../../lb.example.toml");

/// What its comments say.
#[test]
fn the_example_says_what_it_does() {
    let config = Config::parse(EXAMPLE, "lb.example.toml").unwrap();
    assert_eq!(config.daemon, Default::default());
    assert_eq!(config.conntrack, Default::default());
    assert_eq!(config.icmp, Default::default());
    let interface = |name: &str, mode| InterfaceSettings {
        name: name.into(),
        mode,
    };
    assert_eq!(
        config.interfaces,
        [
            interface("eth0", WantedMode::Auto),
            interface("eth1", WantedMode::Generic)
        ]
    );
    let [web, db, mail, far] = &config.desired.services[..] else {
        panic!("{:?}", config.desired);
    };
    let kind = CheckKind::Http {
        path: "/healthz".into(),
        host: Some("www.example.com".into()),
    };
    assert_eq!(
        web.check,
        Check {
            kind,
            ..Check::default()
        }
    );
    assert_eq!(
        web.backends
            .iter()
            .map(|b| (b.weight, b.admin))
            .collect::<Vec<_>>(),
        [
            (Weight(100), Admin::Enabled),
            (Weight(200), Admin::Enabled),
            (Weight(100), Admin::Drain)
        ]
    );
    assert_eq!(db.check, Check::default());
    assert_eq!(db.timeouts.established, Some(Duration::from_secs(86_400)));
    assert_eq!(db.backends[0].name.as_str(), "2001:db8:1::11:5432");
    assert_eq!(mail.forwarding, Forwarding::FullNat);
    assert_eq!(mail.snat.len(), 2);
    assert_eq!(mail.timeouts.profile, Some(Profile::Rfc));
    assert_eq!(far.forwarding, Forwarding::Gue);
    assert_eq!(far.tunnel, Default::default());
}

/// Without the '#' before a key, the example still says the same: those are the defaults.
#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let shown: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_ne!(shown, EXAMPLE);
    let mut shown = Config::parse(&shown, "shown").unwrap();
    let db = &mut shown.desired.services[1].timeouts;
    let set_by_example = TimeoutOverrides {
        established: db.established,
        ..TimeoutOverrides::default()
    };
    assert_eq!(
        timeouts(Profile::Edge, db),
        timeouts(Profile::Edge, &set_by_example)
    );
    *db = set_by_example;
    assert_eq!(shown, Config::parse(EXAMPLE, "example").unwrap());
}
