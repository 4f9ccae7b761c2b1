//! What a change or an observation does, and what is said about it.

use std::time::Instant;

use super::*;
use crate::model::{NoBackend, OnBackendDown, OnExpiry, Unresolved};

struct Fixture {
    kernel: FakeKernel,
    life: Life,
    /// Removed with this.
    directory: tempfile::TempDir,
}

fn running() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::default();
    let life = Life::start(&kernel, directory.path(), two_services());
    kernel.take_writes();
    Fixture {
        kernel,
        life,
        directory,
    }
}

#[test]
fn a_start_brings_the_file_into_effect() {
    let Fixture {
        kernel,
        life,
        directory: _directory,
    } = running();
    let maps = kernel.maps();
    assert_sound(&maps);
    assert_eq!(maps.listens.len(), 2);
    assert_eq!(maps.backends.len(), 6);
    let web = life.service("web");
    assert_eq!(web.slots, 251);
    assert_eq!(web.checksum, web.base_checksum);
    assert_eq!(web.backends.iter().map(|b| b.slots).sum::<u32>(), 251);
    // The server that both services use.
    let shared = [
        life.backend("web", "web-1").index,
        life.backend("tls", "tls-1").index,
    ];
    assert_eq!(chain(&maps, address("10.0.0.1:80")), shared);
    for (index, record) in &maps.backends {
        assert_eq!(record.shares_address, shared.contains(index), "{index:?}");
    }
    assert_eq!(targets(&life.snapshot()).len(), 6);
    assert_eq!(wanted_addresses(&life.snapshot()).len(), 5);
}

#[test]
fn a_change_is_planned_written_and_shown() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let added = Change::AddBackend {
        service: name("web"),
        backend: backend("web-5", "10.0.0.6:80"),
    };
    let lines = life.core.change(added).unwrap();
    let slots = life.backend("web", "web-5").slots;
    assert!((50..=51).contains(&slots));
    assert_eq!(
        lines,
        [format!(
            "service web: backend web-5 (10.0.0.6:80) is new, with weight 100: it takes {slots} slots from 4 others"
        )]
    );
    let kinds = kernel.take_writes();
    assert!(
        matches!(
            kinds.as_slice(),
            [
                MapWrite::WriteBackend { .. },
                MapWrite::BindEndpoint { .. },
                MapWrite::WriteTable { .. }
            ]
        ),
        "{kinds:?}"
    );

    let lines = life.core.change(set_weight("web", "web-5", 0)).unwrap();
    assert_eq!(
        lines,
        [format!(
            "service web: backend web-5 has weight 0 now, 100 before: its {slots} slots go to 4 others"
        )]
    );
    assert_eq!(life.backend("web", "web-5").slots, 0);
    kernel.take_writes();
    assert_eq!(
        life.core.change(set_weight("web", "web-5", 0)).unwrap(),
        [""; 0]
    );
    assert_eq!(kernel.take_writes(), []);
}

#[test]
fn a_drain_or_maintenance_moves_new_connections_only() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let base = life.service("web").base_checksum;
    let mut set = |admin| {
        let change = Change::SetAdmin {
            service: name("web"),
            backend: name("web-2"),
            admin,
        };
        life.core.change(change).unwrap()
    };
    let slots = 63;
    assert_eq!(
        set(Admin::Drain),
        [format!(
            "service web: backend web-2 drains: its {slots} slots go to 3 others"
        )]
    );
    assert_eq!(
        set(Admin::Maint),
        ["service web: backend web-2 has admin maint, not drain"]
    );
    assert_eq!(
        set(Admin::Enabled),
        [format!(
            "service web: backend web-2 is enabled: it takes {slots} slots from 3 others"
        )]
    );
    set(Admin::Maint);
    let view = life.backend("web", "web-2");
    let record = &kernel.maps().backends[&view.index];
    assert!(!record.accepts_new);
    assert_eq!(view.slots, 0);
    assert_eq!(life.service("web").base_checksum, base);
    let probed = targets(&life.snapshot());
    assert!(probed.iter().all(|target| target.backend != name("web-2")));
}

/// S-DSR-3: probes are told of the way that traffic takes, and of its next hop as it is known.
#[test]
fn probes_of_one_way_modes_know_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut desired = two_services();
    desired.services[0].forwarding = Forwarding::Ipip;
    let mut life = Life::start(&FakeKernel::default(), directory.path(), desired.clone());
    let unresolved = Unresolved::InterfaceDown("eth1".to_owned());
    life.core.observe([Observation::NextHop {
        address: address("10.0.0.1:80").ip(),
        resolution: Err(unresolved.clone()),
    }]);
    for target in targets(&life.snapshot()) {
        if target.service == name("tls") {
            assert_eq!(target.path, None);
            continue;
        }
        let path = target.path.unwrap();
        assert_eq!(Some(path.way), crate::health::Way::of(&desired.services[0]));
        let expected = match target.backend.as_str() {
            "web-1" => unresolved.clone(),
            _ => Unresolved::Pending,
        };
        assert_eq!(path.next_hop, Err(expected));
    }
}

#[test]
fn health_is_told_with_its_reason_and_a_flap_restores_the_table() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let before = kernel.maps();
    let checksum = life.service("web").checksum;
    for _ in 0..2 {
        let down = health("web", "web-2", Health::Down, "connection refused");
        life.core.observe([down]);
        let view = life.backend("web", "web-2");
        assert_eq!((view.health, view.slots), (Health::Down, 0));
        assert_eq!(view.reason, "connection refused");
        assert_ne!(life.service("web").checksum, checksum);
        assert_eq!(life.service("web").base_checksum, checksum);

        life.core.observe([health("web", "web-2", Health::Up, "")]);
        assert_eq!(kernel.maps(), before);
        assert_eq!(life.service("web").checksum, checksum);
    }
}

#[test]
fn a_plan_says_why_as_an_operator_would() {
    let Fixture {
        mut life,
        directory: _directory,
        ..
    } = running();
    let mut lines = |observations: Vec<Observation>| {
        let before = life.core.effective();
        life.core.observe(observations);
        summary(&plan(&before, &life.core.effective()))
    };
    assert_eq!(
        lines(vec![health(
            "web",
            "web-2",
            Health::Down,
            "connection refused"
        )]),
        ["service web: backend web-2 is down (connection refused): its 63 slots go to 3 others"]
    );
    let said = lines(vec![
        health("web", "web-2", Health::Up, "2 of 2 probes"),
        health("web", "web-3", Health::Down, "no answer within 1s"),
    ]);
    assert!(
        said[2].starts_with(
            "service web: backend web-2 is up (2 of 2 probes), backend web-3 is down (no answer within 1s): "
        ),
        "{said:?}"
    );
    let said = lines(vec![Observation::NextHop {
        address: "10.0.0.4".parse().unwrap(),
        resolution: Ok(next_hop(4)),
    }]);
    assert_eq!(
        said,
        ["service web: backend web-4 is reached through eth1 at 02:00:00:00:00:04"]
    );
    let said = lines(vec![Observation::NextHop {
        address: "10.0.0.4".parse().unwrap(),
        resolution: Err(Unresolved::NoRoute("10.0.0.4".parse().unwrap())),
    }]);
    assert_eq!(
        said,
        ["service web: backend web-4 has no next hop: no route to 10.0.0.4"]
    );
    let said = lines(vec![
        health("tls", "tls-1", Health::Down, "refused"),
        health("tls", "tls-5", Health::Down, "refused"),
    ]);
    assert!(
        said.last().unwrap().contains("backend tls-5 is down"),
        "{said:?}"
    );
}

#[test]
fn observations_that_come_together_make_one_plan() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let down = ["web-1", "web-2", "web-3"].map(|b| health("web", b, Health::Down, "refused"));
    life.core.observe(down);
    let tables = kernel.take_writes();
    let tables = tables
        .iter()
        .filter(|write| matches!(write, MapWrite::WriteTable { .. }));
    assert_eq!(tables.count(), 1);
    assert_eq!(life.backend("web", "web-4").slots, 251);
}

#[test]
fn without_a_usable_backend_no_slot_has_an_owner() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    life.core.observe([
        health("tls", "tls-1", Health::Down, "refused"),
        health("tls", "tls-5", Health::Down, "refused"),
    ]);
    let table = &kernel.maps().tables[&life.service("tls").id];
    let slots = table.slots.clone().unwrap();
    assert_eq!(slots.len(), 251);
    assert!(slots.iter().all(|slot| slot.primary.is_none()));
}

#[test]
fn a_probe_of_a_backend_that_is_gone_says_nothing() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    life.core.observe([
        health("web", "web-9", Health::Down, "refused"),
        health("nobody", "web-1", Health::Down, "refused"),
    ]);
    assert_eq!(kernel.take_writes(), []);
}

#[test]
fn a_misspelt_name_gets_a_suggestion() {
    let Fixture {
        mut life,
        directory: _directory,
        ..
    } = running();
    let mut refusal = |service, backend| {
        let change = set_weight(service, backend, 1);
        life.core.change(change).unwrap_err().to_string()
    };
    assert_eq!(
        refusal("wbe", "web-1"),
        "there is no service called wbe: did you mean web?"
    );
    assert_eq!(
        refusal("web", "wb-4"),
        "service web has no backend called wb-4: did you mean web-4?"
    );
    assert_eq!(
        refusal("database", "web-1"),
        "there is no service called database"
    );
}

#[test]
fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let before = life.snapshot();
    let again = Change::AddBackend {
        service: name("web"),
        backend: backend("web-9", "10.0.0.1:80"),
    };
    let refusal = life.core.change(again).unwrap_err();
    assert!(matches!(refusal, ChangeError::Conflict(_)), "{refusal}");
    assert_eq!(life.snapshot(), before);
    assert_eq!(kernel.take_writes(), []);
}

#[test]
fn a_rename_touches_no_map() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let mut desired = two_services();
    desired.services[0].name = name("www");
    desired.services[0].backends[0].name = name("www-1");
    let index = life.backend("web", "web-1").index;
    let lines = life.core.change(Change::Replace(desired)).unwrap();
    assert_eq!(lines, ["service www added", "service web removed"]);
    assert_eq!(kernel.take_writes(), []);
    assert_eq!(life.backend("www", "www-1").index, index);
}

/// Each by its key, whether or not it stands in the maps.
#[test]
fn changed_settings_are_told() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let mut desired = two_services();
    let mut change = |alter: &dyn Fn(&mut Service)| {
        alter(&mut desired.services[0]);
        let change = Change::Replace(desired.clone());
        life.core.change(change).unwrap()
    };
    assert_eq!(
        change(&|web| {
            web.no_backend = NoBackend::Icmp;
            web.timeouts.profile = Some(Profile::Rfc);
            web.timeouts.reset = Some(std::time::Duration::from_secs(5));
            web.on_expiry = OnExpiry::Reset;
        }),
        [
            "service web has no_backend icmp, not rst, has profile rfc, not that of [conntrack], has timeouts.reset 5s, not that of the profile",
            "service web has on_expiry reset, not forget"
        ]
    );
    kernel.take_writes();
    assert_eq!(
        change(&|web| {
            web.on_backend_down = OnBackendDown::Reset;
            web.check.rise = 7;
        }),
        [
            "service web has on_backend_down reset, not keep",
            "service web has check.rise 7, not 2"
        ]
    );
    assert_eq!(kernel.take_writes(), []);
    assert_eq!(
        change(&|web| web.table_size = TableSize::try_from(257).unwrap())[0],
        "service web has table_size 257, not 251"
    );
}

#[test]
fn a_change_of_the_mode_says_what_becomes_of_connections() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let mut change = |mode| {
        let mut desired = two_services();
        desired.services[0] = in_mode(desired.services[0].clone(), mode);
        let lines = life.core.change(Change::Replace(desired)).unwrap();
        lines.join("\n")
    };
    let breaks = ": the connections that it has break, as backends know them by other addresses";
    assert_eq!(
        change(Forwarding::FullNat),
        format!(
            "service web has forwarding full-nat, not nat, has snat 10.0.9.9, not none{breaks}"
        )
    );
    let told = change(Forwarding::Dsr);
    assert!(
        told.contains(&format!(
            "service web has forwarding dsr, not full-nat, has snat none, not 10.0.9.9{breaks}"
        )),
        "{told}"
    );
    assert_eq!(
        change(Forwarding::Gue),
        "service web has forwarding gue, not dsr"
    );
    assert_eq!(
        change(Forwarding::Ipip),
        "service web has forwarding ipip, not gue"
    );
    assert!(change(Forwarding::Nat).contains(breaks));
    assert_eq!(kernel.maps(), life.core.effective().maps);
}

/// Replies are looked for where they come by, and nowhere else.
#[test]
fn only_backends_that_answer_through_us_are_chained() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let mut desired = two_services();
    desired.services[0] = in_mode(desired.services[0].clone(), Forwarding::Dsr);
    life.core.change(Change::Replace(desired)).unwrap();
    let maps = kernel.maps();
    let chained = chain(&maps, address("10.0.0.1:80"));
    assert_eq!(chained, [life.backend("tls", "tls-1").index]);
    assert!(!maps.backends.values().any(|record| record.shares_address));
    assert_eq!(chain(&maps, address("10.0.0.2:80")), []);
    life.core.change(Change::Replace(two_services())).unwrap();
    assert_eq!(chain(&kernel.maps(), address("10.0.0.1:80")).len(), 2);
}

/// It goes on to be counted, and comes back with the mode that can reach it.
#[test]
fn a_removed_backend_of_another_family_is_closed_while_no_tunnel_leads_to_it() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    let with = |mode| {
        let mut desired = two_services();
        let web = &mut desired.services[0];
        web.backends.push(backend("far", "[2001:db8::6]:80"));
        *web = in_mode(web.clone(), mode);
        Change::Replace(desired)
    };
    life.core.change(with(Forwarding::Ipip)).unwrap();
    let index = life.backend("web", "far").index;
    kernel.set_connections(index, 1);
    kernel.count(index, 7);
    assert!(kernel.maps().backends[&index].is_reachable());
    let lines = life.core.change(with(Forwarding::Nat)).unwrap();
    assert!(!kernel.maps().backends[&index].is_reachable());
    assert_eq!(kernel.backend_counters(index).unwrap().connections, 7);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("backend far is removed")),
        "{lines:?}"
    );
    life.core.change(with(Forwarding::Gue)).unwrap();
    assert!(kernel.maps().backends[&index].is_reachable());
    assert_eq!(life.backend("web", "far").index, index);
}

/// S-ICMP-5. In generic mode the kernel hands over what is larger than any packet was.
#[test]
fn packets_are_held_against_the_mtu_where_they_come_as_they_were() {
    let Fixture {
        kernel,
        mut life,
        directory,
    } = running();
    let hops = (1..=5).map(|host| Observation::NextHop {
        address: [10, 0, 0, host].into(),
        resolution: Ok(next_hop(host)),
    });
    life.core.observe(hops);
    let limits = |kernel: &FakeKernel| -> BTreeSet<u16> {
        let maps = kernel.maps();
        maps.backends.values().map(|b| b.max_packet).collect()
    };
    assert_eq!(limits(&kernel), [0].into(), "not known yet");
    let attached = |all_native| Observation::Attached { all_native };
    let before = life.core.effective();
    life.core.observe([attached(true)]);
    assert_eq!(limits(&kernel), [1500].into());
    assert_eq!(
        summary(&plan(&before, &life.core.effective())),
        [
            "service tls: packets for its backends are held against the MTU",
            "service web: packets for its backends are held against the MTU"
        ]
    );
    let mut desired = two_services();
    for (service, mode) in desired
        .services
        .iter_mut()
        .zip([Forwarding::Ipip, Forwarding::Nat])
    {
        *service = in_mode(service.clone(), mode);
    }
    life.core.change(Change::Replace(desired.clone())).unwrap();
    assert_eq!(limits(&kernel), [1480, 1500].into());
    life.core.observe([attached(false)]);
    assert_eq!(
        limits(&kernel),
        [0, 1480].into(),
        "a tunnel's packets must fit"
    );
    life.core.observe([attached(true)]);
    drop(life);
    Life::start(&kernel, directory.path(), desired);
    assert_eq!(
        limits(&kernel),
        [1480, 1500].into(),
        "known after a restart"
    );
}

#[test]
fn a_failed_write_is_reported_and_tried_again() {
    let Fixture {
        kernel,
        mut life,
        directory: _directory,
    } = running();
    kernel.fail_after(1);
    let added = Change::AddBackend {
        service: name("web"),
        backend: backend("web-5", "10.0.0.6:80"),
    };
    let error = life.core.change(added).unwrap_err();
    assert!(matches!(error, ChangeError::DataPlane(_)), "{error}");
    assert_sound(&kernel.maps());
    let done = kernel.take_writes();
    assert!(matches!(done.as_slice(), [MapWrite::WriteBackend { .. }]));

    life.core.tick(Instant::now());
    assert_eq!(kernel.take_writes(), []);
    kernel.recover();
    life.core.tick(Instant::now());
    let done = kernel.take_writes();
    assert!(
        matches!(
            done.as_slice(),
            [MapWrite::BindEndpoint { .. }, MapWrite::WriteTable { .. }]
        ),
        "{done:?}"
    );
    assert_eq!(kernel.maps(), life.core.effective().maps);
}

/// The thread, the channel and the snapshots.
#[tokio::test]
async fn the_handle_leads_to_the_engine_and_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::default();
    let settings = EngineSettings {
        state_dir: directory.path().to_owned(),
        profile: Profile::Edge,
        file_desired: two_services(),
    };
    let (handle, thread) =
        Engine::start(Box::new(kernel.clone()), Arc::new(kernel.clone()), settings).unwrap();
    assert_eq!(handle.snapshot().services.len(), 2);

    handle
        .change(set_weight("web", "web-1", 300))
        .await
        .unwrap();
    let weight = handle.snapshot().services[0].backends[0].backend.weight;
    assert_eq!(weight, Weight(300));
    let mut snapshots = handle.subscribe();
    handle
        .observe(health("web", "web-1", Health::Down, "refused"))
        .await;
    let down = |snapshot: &Arc<Snapshot>| snapshot.services[0].backends[0].health == Health::Down;
    snapshots.wait_for(down).await.unwrap();

    drop(handle);
    thread.await.unwrap();
    assert!(
        snapshots.has_changed().is_err(),
        "nobody publishes any more"
    );
}
