use super::*;
use crate::model::{Admin, Backend, Service, Weight};

#[test]
fn a_sound_state_has_no_conflict() {
    assert_eq!(Desired::default().conflict(), None);
    let state = desired(&[
        ("web", "192.0.2.10:80", &["10.0.0.1:80", "10.0.0.2:80"]),
        ("web6", "[2001:db8::10]:80", &["[2001:db8:1::1]:80"]),
        // The same servers, another port of the same listen address.
        ("tls", "192.0.2.10:443", &["10.0.0.1:80", "10.0.0.2:80"]),
        ("local", "127.0.0.1:80", &["10.0.0.1:81"]),
        ("idle", "192.0.2.11:80", &[]),
    ]);
    assert_eq!(state.conflicts(), []);
}

#[test]
fn each_rule_says_what_is_wrong_and_how_to_mend_it() {
    let backends =
        |addresses: &'static [&'static str]| desired(&[("web", "192.0.2.10:80", addresses)]);
    let listens = |listen: &'static str| desired(&[("web", listen, &[])]);
    for (state, place, other, text) in [
        (
            desired(&[("web", "192.0.2.10:80", &[]), ("web", "192.0.2.11:80", &[])]),
            (1, None),
            Some((0, None)),
            "there is a service called web already: give one of the two another name",
        ),
        (
            desired(&[("web", "192.0.2.10:80", &[]), ("b", "192.0.2.10:80", &[])]),
            (1, None),
            Some((0, None)),
            "192.0.2.10:80 (tcp) is already the listen address of service web: give this service another address or port, or put its backends into web",
        ),
        (
            backends(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"]),
            (0, Some(2)),
            Some((0, Some(0))),
            "10.0.0.1:80 is already backend b0 of service web: remove one of the two; for a larger share raise the weight",
        ),
        (
            backends(&["[2001:db8::1]:80"]),
            (0, Some(0)),
            None,
            "[2001:db8::1]:80 is an IPv6 address and service web listens on IPv4: in forwarding mode nat both must be of one family; use an IPv4 address, or a service of its own for IPv6",
        ),
        (
            desired(&[
                ("a", "192.0.2.1:80", &["192.0.2.2:80"]),
                ("b", "192.0.2.2:80", &[]),
            ]),
            (0, Some(0)),
            Some((1, None)),
            "192.0.2.2:80 is the listen address of service b, so its packets would come back to the load balancer: name the address of the server itself",
        ),
        (
            listens("0.0.0.0:80"),
            (0, None),
            None,
            "cannot listen on 0.0.0.0:80: it stands for any address; name a single one",
        ),
        (
            backends(&["255.255.255.255:80"]),
            (0, Some(0)),
            None,
            "255.255.255.255:80 cannot be a backend: TCP needs a single host and this is the broadcast address",
        ),
    ] {
        let conflict = state.conflict().expect(text);
        assert_eq!(conflict.kind.to_string(), text);
        assert_eq!((conflict.service, conflict.backend), place, "{text}");
        assert_eq!(conflict.other, other, "{text}");
        assert_eq!(state.conflicts().len(), 1, "{text}");
    }
}

/// S-DSR-1.
#[test]
fn what_keeps_its_destination_needs_the_same_port() {
    for forwarding in [Forwarding::Dsr, Forwarding::Ipip, Forwarding::Gue] {
        let mut state = desired(&[("web", "192.0.2.10:80", &["10.0.0.1:8080"])]);
        assert_eq!(state.conflict(), None);
        state.services[0].forwarding = forwarding;
        let conflict = state.conflict().unwrap();
        assert_eq!((conflict.service, conflict.backend), (0, Some(0)));
        assert_eq!(
            conflict.kind.to_string(),
            format!(
                "10.0.0.1:8080 has port 8080 and service web listens on port 80: forwarding mode {forwarding} leaves a packet's port as it is, so the backend has to listen on the same; write 10.0.0.1:80, or use forwarding mode nat or full-nat"
            )
        );
        state.services[0].backends[0].address.set_port(80);
        assert_eq!(state.conflict(), None);
    }
}

#[test]
fn families_meet_in_tunnels_only() {
    let mut state = desired(&[("web", "192.0.2.10:80", &["[2001:db8::1]:80"])]);
    for (forwarding, mixes) in [
        (Forwarding::Nat, false),
        (Forwarding::FullNat, false),
        (Forwarding::Dsr, false),
        (Forwarding::Ipip, true),
        (Forwarding::Gue, true),
    ] {
        state.services[0].forwarding = forwarding;
        let kinds: Vec<_> = state.conflicts().into_iter().map(|c| c.kind).collect();
        match mixes {
            true => assert_eq!(kinds, []),
            false => assert!(
                matches!(kinds[..], [ConflictKind::Family { .. }]),
                "{kinds:?}"
            ),
        }
    }
}

/// Two `full-nat` services; the first sends from these addresses.
fn sending_from(snat: &[&str]) -> Desired {
    let mut state = desired(&[
        ("web", "192.0.2.10:80", &["10.0.0.1:80"]),
        ("tls", "192.0.2.11:443", &["10.0.0.2:80"]),
    ]);
    state.services[0].snat = snat.iter().map(|text| text.parse().unwrap()).collect();
    state.services[1].snat = vec!["10.0.9.9".parse().unwrap()];
    for service in &mut state.services {
        service.forwarding = Forwarding::FullNat;
    }
    state
}

#[test]
fn an_address_to_send_from_is_nobody_else_s() {
    assert_eq!(sending_from(&["10.0.0.5", "10.0.9.9"]).conflict(), None);
    for (snat, other, text) in [
        (
            "2001:db8::5",
            None,
            "2001:db8::5 is an IPv6 address and service web listens on IPv4: full-nat sends from an address of the same family; use an IPv4 address",
        ),
        (
            "192.0.2.11",
            Some((1, None)),
            "192.0.2.11 is the listen address of service tls: full-nat needs an address that nobody connects to; use another one of this host",
        ),
        (
            "10.0.0.2",
            Some((1, Some(0))),
            "10.0.0.2 is a backend of service tls: full-nat needs an address of this host to send from; use one that no server has",
        ),
    ] {
        let state = sending_from(&["10.0.0.5", snat]);
        let [conflict] = &state.conflicts()[..] else {
            panic!("{:?}", state.conflicts());
        };
        assert_eq!(conflict.kind.to_string(), text);
        assert_eq!((conflict.service, conflict.backend), (0, None));
        assert_eq!(conflict.other, other);
        assert_eq!(conflict.kind.snat_address(), Some(snat.parse().unwrap()));
    }
    // Only `full-nat` sends from them.
    let mut state = sending_from(&["10.0.0.2"]);
    state.services[0].forwarding = Forwarding::Nat;
    assert_eq!(state.conflict(), None);
}

/// Those that several services share count once.
#[test]
fn addresses_to_send_from_are_bounded_over_all_services() {
    let services = |count: usize| Desired {
        services: (0..count)
            .map(|i| {
                let (name, listen) = (format!("s{i}"), format!("192.0.2.1:{}", i + 1));
                let mut made = service(&name, &listen, &[]);
                made.forwarding = Forwarding::FullNat;
                let address = format!("10.0.{}.{}", i / 250, i % 250);
                made.snat = vec![address.parse().unwrap(), "10.9.9.9".parse().unwrap()];
                made
            })
            .collect(),
    };
    assert_eq!(services(MAX_SNAT_ADDRESSES - 1).conflict(), None);
    let [conflict] = &services(MAX_SNAT_ADDRESSES).conflicts()[..] else {
        panic!("one conflict");
    };
    assert_eq!(conflict.service, MAX_SNAT_ADDRESSES - 1);
    assert!(matches!(conflict.kind, ConflictKind::TooManySnat { .. }));
}

#[test]
fn backend_names_are_unique_within_a_service_only() {
    let mut state = desired(&[
        ("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80"]),
        ("b", "192.0.2.2:80", &["10.0.0.1:80"]),
    ]);
    assert_eq!(state.conflict(), None);
    state.services[0].backends[1].name = "b0".parse().unwrap();
    let conflict = state.conflict().unwrap();
    assert_eq!((conflict.service, conflict.backend), (0, Some(1)));
    assert_eq!(conflict.other, Some((0, Some(0))));
    assert_eq!(
        conflict.kind.to_string(),
        "service a has a backend called b0 already: give one of the two another name"
    );
    // The same backend once more is one mistake, not two.
    state.services[0].backends[1] = state.services[0].backends[0].clone();
    let kinds: Vec<_> = state.conflicts().into_iter().map(|c| c.kind).collect();
    assert!(matches!(kinds[..], [ConflictKind::BackendAddress { .. }]));
}

#[test]
fn the_ninth_service_of_one_endpoint_is_one_too_many() {
    let services = |count: usize| Desired {
        services: (0..count)
            .map(|i| {
                service(
                    &format!("s{i}"),
                    &format!("192.0.2.1:{}", i + 1),
                    &["10.0.0.1:80"],
                )
            })
            .collect(),
    };
    assert_eq!(services(8).conflict(), None);
    let conflict = services(9).conflict().unwrap();
    assert_eq!((conflict.service, conflict.backend), (8, Some(0)));
    assert!(matches!(conflict.kind, ConflictKind::SharedEndpoint { .. }));

    // Where no reply comes back, none is looked for.
    let mut one_way = services(20);
    for (i, service) in one_way.services.iter_mut().enumerate() {
        service.forwarding = Forwarding::Dsr;
        service.listen = format!("192.0.3.{i}:80").parse().unwrap();
    }
    one_way.services.extend(services(8).services);
    for (i, service) in one_way.services.iter_mut().enumerate() {
        service.name = format!("s{i}").parse().unwrap();
    }
    assert_eq!(one_way.conflict(), None);
}

#[test]
fn indices_are_bounded() {
    let mut state = Desired {
        services: (0..MAX_SERVICES)
            .map(|i| service(&format!("s{i}"), &format!("192.0.2.1:{}", i + 1), &[]))
            .collect(),
    };
    for i in 0..MAX_BACKENDS {
        state.services[i % MAX_SERVICES].backends.push(Backend {
            name: format!("b{i}").parse().unwrap(),
            address: format!("10.0.{}.{}:80", i / 256, i % 256).parse().unwrap(),
            weight: Weight::DEFAULT,
            admin: Admin::Enabled,
        });
    }
    assert_eq!(state.conflict(), None);

    state
        .services
        .push(service("last", "192.0.2.2:80", &["10.1.0.0:80"]));
    let kinds: Vec<_> = state.conflicts().into_iter().map(|c| c.kind).collect();
    assert_eq!(
        kinds,
        [ConflictKind::TooManyServices, ConflictKind::TooManyBackends]
    );
}

fn desired(services: &[(&str, &str, &[&str])]) -> Desired {
    Desired {
        services: services
            .iter()
            .map(|(name, listen, backends)| service(name, listen, backends))
            .collect(),
    }
}

/// Backends are called `b0`, `b1`, …
fn service(name: &str, listen: &str, backends: &[&str]) -> Service {
    Service {
        name: name.parse().unwrap(),
        listen: listen.parse().unwrap(),
        protocol: Default::default(),
        forwarding: Default::default(),
        scheduler: Default::default(),
        table_size: Default::default(),
        check: Default::default(),
        timeouts: Default::default(),
        snat: Vec::new(),
        tunnel: Default::default(),
        no_backend: Default::default(),
        on_expiry: Default::default(),
        on_backend_down: Default::default(),
        backends: backends
            .iter()
            .enumerate()
            .map(|(i, address)| Backend {
                name: format!("b{i}").parse().unwrap(),
                address: address.parse().unwrap(),
                weight: Weight::DEFAULT,
                admin: Admin::Enabled,
            })
            .collect(),
    }
}
