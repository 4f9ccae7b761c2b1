//! Every kind of mistake with its place and text, hostile texts, and what is right.

mod example;
mod forwarding;
mod hostile;
mod keys;
mod values;

use std::time::Duration;

use crate::{
    config::{Config, ConfigError, Mistake},
    model::{Check, CheckKind},
};

/// Three lines; what a test adds begins on the fourth.
const WEB: &str = "[[service]]\nname = \"web\"\nlisten = \"192.0.2.10:80\"\n";

fn mistakes(text: &str) -> Vec<Mistake> {
    match Config::parse(text, "lb.toml") {
        Err(ConfigError::Invalid { mistakes, more: 0 }) => mistakes,
        other => panic!("{text}\n{other:?}"),
    }
}

/// `line:column: message` of the only mistake.
#[track_caller]
fn assert_mistake(text: &str, expected: &str) {
    let found: Vec<String> = mistakes(text)
        .iter()
        .map(|m| format!("{}:{}: {}", m.place.line, m.place.column, m.message))
        .collect();
    assert_eq!(found, [expected], "{text}");
}

/// The same of something added to a service.
#[track_caller]
fn assert_service_mistake(added: &str, expected: &str) {
    assert_mistake(&format!("{WEB}{added}"), expected);
}

#[test]
fn an_error_shows_the_line_and_a_caret() {
    let text = "[daemon]\nsokcet = \"/run/x\"\n";
    let error = Config::parse(text, "/etc/lb/lb.toml").unwrap_err();
    let expected = r#"
/etc/lb/lb.toml:2:1: unknown key "sokcet" in [daemon]: did you mean "socket"?
    2 | sokcet = "/run/x"
      | ^^^^^^"#;
    assert_eq!(error.to_string(), expected.trim_start());
}

#[test]
fn services_that_share_an_address_are_both_shown() {
    let text = format!("{WEB}[[service]]\nlisten = '192.0.2.10:80'\nname = \"api\"\n");
    let error = Config::parse(&text, "lb.toml").unwrap_err();
    let expected = r#"
lb.toml:5:10: 192.0.2.10:80 (tcp) is already the listen address of service web: give this service another address or port, or put its backends into web
    5 | listen = '192.0.2.10:80'
      |          ^^^^^^^^^^^^^^^
lb.toml:3:10: it collides with this
    3 | listen = "192.0.2.10:80"
      |          ^^^^^^^^^^^^^^^"#;
    assert_eq!(error.to_string(), expected.trim_start());
}

#[test]
fn independent_mistakes_are_reported_together_in_the_order_of_the_file() {
    let text = format!(
        "[daemon]\nsocket = 1\n{WEB}scheduler = \"random\"\n[[service.backend]]\nweight = -1\n[[service]]\n"
    );
    let places: Vec<_> = mistakes(&text).iter().map(|m| m.place.line).collect();
    assert_eq!(places, [2, 6, 7, 8, 9, 9]);
}

#[test]
fn a_list_of_mistakes_is_bounded() {
    let text: String = (0..21).map(|i| format!("nonsense{i} = 1\n")).collect();
    let error = Config::parse(&text, "lb.toml").unwrap_err().to_string();
    assert!(error.ends_with("\nand 1 more mistake"), "{error}");
    assert_eq!(error.matches("lb.toml:").count(), 20);
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_service_mistake(
        "check = { type = \"http\", host = \"ü\", rise = 1 }",
        "4:33: host: a host is a name or an address and perhaps a port, as in \"www.example.com\"; it cannot have 'ü'",
    );
    let after = mistakes("daemon = { 'ü' = 1, socket = 5 }");
    assert_eq!(after[1].place.column, 30);
}

#[test]
fn collisions_point_at_both_places() {
    let backends = |first: &str, second: &str| {
        format!("{WEB}[[service.backend]]\n{first}\n[[service.backend]]\n{second}\n")
    };
    for (text, place, other, message) in [
        (
            format!("{WEB}[[service]]\nname = \"web\"\nlisten = \"192.0.2.11:80\"\n"),
            (5, 8),
            (2, 8),
            "there is a service called web already: give one of the two another name",
        ),
        (
            backends("address = \"10.0.0.1:80\"", "address = \"10.0.0.1:80\""),
            (7, 11),
            (5, 11),
            "10.0.0.1:80 is already backend 10.0.0.1:80 of service web: remove one of the two; for a larger share raise the weight",
        ),
        (
            backends(
                "address = \"10.0.0.1:80\"\nname = \"b\"",
                "address = \"10.0.0.2:80\"\nname = \"b\"",
            ),
            (9, 8),
            (6, 8),
            "service web has a backend called b already: give one of the two another name",
        ),
        (
            format!(
                "{WEB}[[service.backend]]\naddress = \"192.0.2.11:80\"\n[[service]]\nname = \"b\"\nlisten = \"192.0.2.11:80\""
            ),
            (5, 11),
            (8, 10),
            "192.0.2.11:80 is the listen address of service b, so its packets would come back to the load balancer: name the address of the server itself",
        ),
    ] {
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].message, message);
        assert_eq!(
            (found[0].place.line, found[0].place.column),
            place,
            "{text}"
        );
        let first = found[0].other.as_ref().unwrap();
        assert_eq!((first.line, first.column), other, "{text}");
    }
}

#[test]
fn a_check_takes_what_it_lacks_from_its_interval_and_the_defaults() {
    let check = |lines: &str| {
        let text = format!("{WEB}[service.check]\n{lines}");
        Config::parse(&text, "lb.toml").unwrap().desired.services[0]
            .check
            .clone()
    };
    assert_eq!(check(""), Check::default());
    assert_eq!(
        check("interval = \"500ms\"").timeout,
        Duration::from_millis(500)
    );
    // Longer than the interval: only when asked for.
    assert_eq!(check("timeout = \"5s\"").timeout, Duration::from_secs(5));
    let http = CheckKind::Http {
        path: "/".into(),
        host: None,
    };
    assert_eq!(check("type = \"http\"").kind, http);
}

#[test]
fn ipv6_has_a_quarter_of_the_capacity() {
    let config = Config::parse("[conntrack]\ncapacity = 5000", "lb.toml").unwrap();
    assert_eq!(config.conntrack.capacity_ipv6, 1250);
}
