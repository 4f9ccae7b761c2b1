//! The JSON that scripts rely on: the fields of the contract, and what they hold.

use serde_json::{Value, json};

use crate::fake::{Daemon, WEB_CONNECTIONS};

/// Fails when `document` lacks one of these fields; a dot goes one level down.
#[track_caller]
fn assert_fields(document: &Value, fields: &[&str]) {
    for field in fields {
        let found = field
            .split('.')
            .try_fold(document, |value, key| value.get(key));
        assert!(found.is_some(), "no {field} in {document:#}");
    }
}

#[tokio::test]
async fn json_of_services_keeps_the_contract() {
    let daemon = Daemon::start().await;
    let list = daemon.json(&["service", "list"]).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    for service in list.as_array().unwrap() {
        assert_fields(
            service,
            &[
                "name",
                "listen",
                "protocol",
                "forwarding",
                "scheduler",
                "backends",
                "healthy",
                "table.slots",
                "table.checksum",
                "counters.connections",
                "counters.packets",
                "counters.bytes",
                "counters.drops",
                "snat",
                "tunnel",
                "no_backend",
                "on_expiry",
                "on_backend_down",
            ],
        );
    }
    let (web, mail) = (&list[0], &list[1]);
    assert_eq!(web["tunnel"], Value::Null);
    assert_eq!(web["snat"], json!([]));
    assert_eq!(
        mail["tunnel"],
        json!({"sources": ["100.64.0.0/10", "100::/112"], "port": 6080})
    );
    assert_eq!(mail["forwarding"], "gue");
    assert_eq!(mail["no_backend"], "icmp");
    assert_eq!(mail["on_expiry"], "reset");
    assert_eq!(mail["on_backend_down"], "keep");
    assert_eq!(web["listen"], "192.0.2.10:80");
    assert_eq!(web["protocol"], "tcp");
    assert_eq!(web["forwarding"], "nat");
    assert_eq!(web["scheduler"], "maglev");
    assert_eq!((&web["backends"], &web["healthy"]), (&json!(2), &json!(1)));
    assert_eq!(web["table"]["checksum"], "0000000000001234");
    // Backends 1, 2, the removed 4, and 1000 of those whose index was freed.
    assert_eq!(web["counters"]["connections"], 1_007);
    assert_eq!(web["counters"]["packets"], 210);
    assert_eq!(web["counters"]["bytes"], 21_000);
    assert_eq!(web["counters"]["drops"], 10);
    assert_eq!(web["active_connections"], 250);

    let detail = daemon.json(&["service", "show", "web"]).await;
    assert_fields(
        &detail,
        &[
            "name",
            "table.base_checksum",
            "check.type",
            "timeouts.half_open",
            "timeouts.profile",
        ],
    );
    assert_eq!(detail["members"].as_array().unwrap().len(), 2);
    assert_eq!(
        detail["removed"],
        json!({"backends": 1, "active_connections": 1})
    );
    assert_eq!(detail["reasons"][0]["reason"], "ttl_expired");
}

#[tokio::test]
async fn json_of_backends_keeps_the_contract() {
    let daemon = Daemon::start().await;
    let all = daemon.json(&["backend", "list"]).await;
    assert_eq!(all.as_array().unwrap().len(), 3);
    for backend in all.as_array().unwrap() {
        assert_fields(
            backend,
            &[
                "service",
                "name",
                "address",
                "weight",
                "admin",
                "health",
                "reason",
                "slots",
                "active_connections",
                "counters.connections",
                "counters.packets",
                "counters.bytes",
            ],
        );
    }
    let web_2 = &all[1];
    assert_eq!(web_2["address"], "10.0.1.12:8080");
    assert_eq!(web_2["weight"], 100);
    assert_eq!(web_2["admin"], "enabled");
    assert_eq!(web_2["health"], "down");
    assert_eq!(web_2["reason"], "connection refused");
    assert_eq!(web_2["active_connections"], 125);
    assert_eq!(web_2["next_hop"], Value::Null);
    assert_eq!(all[0]["next_hop"]["vlans"], json!([7]));
    assert_eq!(all[2]["health"], "unknown");

    let of_mail = daemon.json(&["backend", "list", "--service", "mail"]).await;
    assert_eq!(of_mail.as_array().unwrap().len(), 1);
    assert_eq!(of_mail[0]["name"], "mail-1");
}

#[tokio::test]
async fn json_of_connections_keeps_the_contract() {
    let daemon = Daemon::start().await;
    let all = daemon.json(&["conntrack", "list"]).await;
    let all = all.as_array().unwrap();
    // JSON has no limit; the connection of the service that is no more is left out.
    assert_eq!(all.len(), usize::from(WEB_CONNECTIONS));
    for connection in all {
        assert_fields(
            connection,
            &[
                "service", "backend", "client", "vip", "state", "age_s", "idle_s",
            ],
        );
    }
    assert_eq!(
        all[1],
        json!({
            "service": "web", "backend": "web-2", "client": "198.51.100.7:1025",
            "vip": "192.0.2.10:80", "state": "established", "age_s": 125, "idle_s": 3
        })
    );
    assert_eq!(all[0]["backend"], Value::Null);

    let some = daemon
        .json(&["conntrack", "list", "--backend", "web-1", "--limit", "5"])
        .await;
    let some = some.as_array().unwrap();
    assert_eq!(some.len(), 5);
    assert!(some.iter().all(|c| c["backend"] == "web-1"));
    let none = daemon
        .json(&["conntrack", "list", "--service", "mail"])
        .await;
    assert_eq!(none, json!([]));

    let stats = daemon.json(&["conntrack", "stats"]).await;
    assert_eq!(
        stats,
        json!({
            "capacity": 1_500_000, "used": 250, "established": 240, "half_open": 7,
            "closing": 2, "ended": 1, "untracked_total": 3
        })
    );
}

#[tokio::test]
async fn json_of_status_keeps_the_contract() {
    let daemon = Daemon::start().await;
    let status = daemon.json(&["status"]).await;
    assert_fields(
        &status,
        &[
            "version",
            "interfaces",
            "services",
            "backends",
            "healthy",
            "uptime_s",
            "conntrack",
        ],
    );
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    for interface in status["interfaces"].as_array().unwrap() {
        assert_fields(interface, &["name", "mode"]);
    }
    assert_eq!(status["interfaces"][1]["mode"], "generic");
    assert_eq!(status["services"], 2);
    assert_eq!(status["backends"], 3);
    assert_eq!(status["healthy"], 2);
}

#[tokio::test]
async fn json_of_drops_has_the_last_packets_of_each_reason() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.json(&["stats", "drops"]).await,
        json!([
            {
                "service": "web", "reason": "ttl_expired",
                "description": "the packet may not be forwarded further",
                "dropped": true, "packets": 10,
                "samples": [
                    {
                        "source": "[2001:db8::7]:40000", "destination": "[2001:db8::10]:80",
                        "interface": "eth0", "age_s": 3.21
                    },
                    {
                        "source": "2001:db8::8", "destination": "2001:db8::10",
                        "interface": "eth0", "age_s": 125.0
                    }
                ]
            },
            {
                "service": null, "reason": "not_ours", "description": "aimed at no service",
                "dropped": false, "packets": 1_234_567, "samples": []
            }
        ])
    );
}

#[tokio::test]
async fn json_of_counters_names_services_backends_and_reasons() {
    let daemon = Daemon::start().await;
    let stats = daemon.json(&["stats"]).await;
    assert_fields(
        &stats["services"][0],
        &["name", "counters.drops", "reasons"],
    );
    assert_fields(
        &stats["backends"][2],
        &["service", "name", "counters.bytes_out"],
    );
    assert_eq!(
        stats["reasons"],
        json!([{
            "reason": "not_ours", "description": "aimed at no service",
            "dropped": false, "packets": 1_234_567
        }])
    );
}
