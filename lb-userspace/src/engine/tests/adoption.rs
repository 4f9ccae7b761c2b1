//! What a daemon makes of what an earlier one has left.

use super::*;
use crate::model::{NoBackend, OnExpiry};

fn kernel_and_directory() -> (FakeKernel, tempfile::TempDir) {
    (FakeKernel::default(), tempfile::tempdir().unwrap())
}

/// Some life: edits, health, next hops.
fn live(life: &mut Life) {
    let hops = (1..=5).map(|host| Observation::NextHop {
        address: [10, 0, 0, host].into(),
        resolution: Ok(next_hop(host)),
    });
    life.core.observe(hops);
    let down = health("web", "web-3", Health::Down, "connection refused");
    life.core.observe([down]);
    life.core.change(set_weight("web", "web-1", 250)).unwrap();
    life.core.change(remove("tls", "tls-1")).unwrap();
}

/// S-CT-4: everything is as it was, bit for bit.
#[test]
fn a_restart_is_seamless() {
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    live(&mut life);
    let (maps, snapshot) = (kernel.maps(), life.snapshot());
    drop(life);
    let mut life = Life::start(&kernel, directory.path(), two_services());
    assert_eq!(kernel.maps(), maps);
    assert_eq!(life.snapshot(), snapshot);
    let view = life.backend("web", "web-3");
    assert_eq!((view.health, view.slots), (Health::Down, 0));
    assert_eq!(view.reason, "connection refused");
    let initial = |life: &Life| {
        let targets = targets(&life.snapshot());
        targets
            .iter()
            .find(|t| t.backend == name("web-3"))
            .unwrap()
            .initial
    };
    assert_eq!(initial(&life), Health::Down);
    // And nothing is left to do.
    kernel.take_writes();
    life.core.observe([]);
    life.core.tick(std::time::Instant::now());
    assert_eq!(kernel.take_writes(), []);
}

/// S-CT-4: the next life takes over nothing but what was in the maps or what should be.
#[test]
fn a_kill_between_any_two_writes_is_made_good() {
    let changed = || {
        let mut desired = two_services();
        desired.services[0].backends.remove(1);
        desired.services[0]
            .backends
            .push(backend("web-6", "10.0.0.5:80"));
        desired.services[1].listen = address("192.0.2.11:443");
        desired
            .services
            .push(service("db", "192.0.2.12:5432", &[("db-1", "10.0.0.1:80")]));
        desired
    };
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    live(&mut life);
    kernel.take_writes();
    life.core.change(Change::Replace(changed())).unwrap();
    let writes = kernel.take_writes().len();
    let wanted = kernel.maps();
    assert!(writes > 10);

    for survived in 0..writes {
        let (kernel, directory) = kernel_and_directory();
        let mut life = Life::start(&kernel, directory.path(), two_services());
        live(&mut life);
        kernel.fail_after(survived);
        life.core.change(Change::Replace(changed())).unwrap_err();
        drop(life);
        assert_sound(&kernel.maps());
        kernel.recover();
        Life::start(&kernel, directory.path(), changed());
        assert_eq!(kernel.maps(), wanted, "killed after {survived} writes");
    }
}

/// S-CT-4: from any mode to any other, with a backend of the other family wherever that is possible.
#[test]
fn a_kill_while_a_mode_changes_is_made_good() {
    let desired_in = |mode| {
        let mut desired = two_services();
        let web = &mut desired.services[0];
        web.backends.push(backend("web-6", "[2001:db8::6]:80"));
        *web = in_mode(web.clone(), mode);
        desired
    };
    for (before, after) in MODES
        .iter()
        .flat_map(|a| MODES.iter().map(move |b| (*a, *b)))
    {
        let (kernel, directory) = kernel_and_directory();
        let mut life = Life::start(&kernel, directory.path(), desired_in(before));
        kernel.take_writes();
        life.core
            .change(Change::Replace(desired_in(after)))
            .unwrap();
        let writes = kernel.take_writes().len();
        let wanted = kernel.maps();
        assert_sound(&wanted);
        assert_eq!(writes > 0, before != after);
        let mode = wanted.services[&life.service("web").id].forwarding;
        assert_eq!(mode, after);

        for survived in 0..writes {
            let (kernel, directory) = kernel_and_directory();
            let mut life = Life::start(&kernel, directory.path(), desired_in(before));
            kernel.fail_after(survived);
            let change = Change::Replace(desired_in(after));
            life.core.change(change).unwrap_err();
            drop(life);
            assert_sound(&kernel.maps());
            assert_families(&kernel.maps(), &wanted);
            kernel.recover();
            Life::start(&kernel, directory.path(), desired_in(after));
            let case = format!("{before} to {after}, killed after {survived} writes");
            assert_eq!(kernel.maps(), wanted, "{case}");
        }
    }
}

/// One that was written when there was only one mode.
#[test]
fn an_older_state_is_read() {
    let (kernel, directory) = kernel_and_directory();
    let life = Life::start(&kernel, directory.path(), two_services());
    let maps = kernel.maps();
    drop(life);
    let path = directory.path().join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let younger = [
        "snat",
        "tunnel",
        "no_backend",
        "on_expiry",
        "on_backend_down",
    ];
    let mut forgotten = 0;
    for list in ["desired", "file"] {
        for service in state["content"][list]["services"].as_array_mut().unwrap() {
            let service = service.as_object_mut().unwrap();
            forgotten += younger
                .map(|key| service.remove(key))
                .into_iter()
                .flatten()
                .count();
            let timeouts = service["timeouts"].as_object_mut().unwrap();
            forgotten += usize::from(timeouts.remove("profile").is_some());
        }
    }
    assert_eq!(forgotten, 4 * (younger.len() + 1));
    std::fs::write(&path, state.to_string()).unwrap();
    Life::start(&kernel, directory.path(), two_services());
    assert_eq!(kernel.maps(), maps);
}

/// Also one that came from `lbctl`, so that only the state knows of it.
#[test]
fn an_edit_is_recorded_before_the_first_write() {
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    kernel.fail_after(0);
    let edit = set_weight("web", "web-1", 250);
    let error = life.core.change(edit).unwrap_err();
    assert!(matches!(error, ChangeError::DataPlane(_)), "{error}");
    drop(life);
    kernel.recover();
    let life = Life::start(&kernel, directory.path(), two_services());
    assert_eq!(life.backend("web", "web-1").backend.weight, Weight(250));
    assert_eq!(kernel.maps(), life.core.effective().maps);
}

/// A first start that is killed, and an adoption that is.
#[test]
fn a_kill_while_starting_is_made_good() {
    let (kernel, directory) = kernel_and_directory();
    Life::start(&kernel, directory.path(), two_services());
    let wanted = kernel.maps();
    let writes = kernel.take_writes().len();
    for survived in 0..writes {
        let (kernel, directory) = kernel_and_directory();
        kernel.fail_after(survived);
        let failed = Life::try_start(&kernel, directory.path(), two_services());
        assert!(failed.is_err());
        assert_sound(&kernel.maps());
        kernel.recover();
        Life::start(&kernel, directory.path(), two_services());
        assert_eq!(kernel.maps(), wanted, "killed after {survived} writes");
    }
}

#[test]
fn edits_survive_a_restart_and_give_way_to_a_changed_file() {
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    life.core.change(set_weight("web", "web-1", 250)).unwrap();
    drop(life);
    let weight = |life: &Life| life.backend("web", "web-1").backend.weight;
    let life = Life::start(&kernel, directory.path(), two_services());
    assert_eq!(weight(&life), Weight(250));
    drop(life);

    let mut changed = two_services();
    changed.services[1].backends[0].weight = Weight(5);
    let life = Life::start(&kernel, directory.path(), changed.clone());
    assert_eq!(weight(&life), Weight::DEFAULT);
    assert_eq!(kernel.maps(), life.core.effective().maps);
    drop(life);

    // From now on it is this file that edits are kept beside.
    let mut life = Life::start(&kernel, directory.path(), changed.clone());
    life.core.change(set_weight("web", "web-1", 7)).unwrap();
    drop(life);
    let life = Life::start(&kernel, directory.path(), changed);
    assert_eq!(weight(&life), Weight(7));
}

#[test]
fn edits_are_told_one_by_one() {
    let mut running = two_services();
    running.services[0].no_backend = NoBackend::Drop;
    running.services[0].backends[0].weight = Weight(250);
    running.services[0].backends[1].admin = Admin::Drain;
    running.services[0].backends.remove(2);
    running.services[0]
        .backends
        .push(backend("new", "10.0.0.9:80"));
    running.services.pop();
    let told = edits(&two_services(), &running);
    let lines: Vec<String> = told.iter().map(Edit::to_string).collect();
    assert_eq!(
        lines,
        [
            "service web has no_backend drop, not rst",
            "service web: backend web-1 has weight 250, not 100",
            "service web: backend web-2 has admin drain, not enabled",
            "service web: backend new (10.0.0.9:80) added, with weight 100",
            "service web: backend web-3 removed",
            "service tls removed",
        ]
    );
    // A file that says some of it itself drops only the rest.
    let mut file = two_services();
    file.services[0].no_backend = NoBackend::Drop;
    file.services[0].on_expiry = OnExpiry::Reset;
    file.services[0].backends[0].weight = Weight(250);
    file.services[0]
        .backends
        .push(backend("new", "10.0.0.9:80"));
    let kept: Vec<bool> = told
        .iter()
        .map(|edit| edit.is_in_both(&running, &file))
        .collect();
    assert_eq!(kept, [true, true, false, true, false, false]);
}

#[test]
fn what_nobody_knows_is_removed() {
    let (kernel, directory) = kernel_and_directory();
    Life::start(&kernel, directory.path(), two_services());
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = two_services();
    other.services.remove(0);
    let life = Life::start(&kernel, elsewhere.path(), other);
    assert_eq!(kernel.maps(), life.core.effective().maps);
    assert_eq!(kernel.maps().listens.len(), 1);
}

#[test]
fn connections_of_nobody_knows_whom_are_left_alone() {
    let (kernel, directory) = kernel_and_directory();
    kernel.set_connections(BackendIndex(3), 2);
    let refused = Life::try_start(&kernel, directory.path(), two_services()).err();
    assert!(
        matches!(
            refused,
            Some(EngineError::UnknownConnections { connections: 2, .. })
        ),
        "{refused:?}"
    );
    assert_eq!(kernel.take_writes(), []);
}

#[test]
fn a_damaged_state_is_refused_with_what_to_do() {
    let (kernel, directory) = kernel_and_directory();
    Life::start(&kernel, directory.path(), two_services());
    kernel.take_writes();
    let path = directory.path().join("state.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let twice = good.replacen("\"index\":2", "\"index\":1", 1);
    assert_ne!(twice, good);
    for (bad, says) in [
        (good[..good.len() / 2].to_owned(), "is damaged: EOF while"),
        (String::new(), "is damaged: EOF while"),
        (
            good.replacen("\"version\":1", "\"version\":9", 1),
            "is of version 9",
        ),
        (twice, "indices contradict each other"),
        (
            good.replace("192.0.2.10:443", "192.0.2.10:80"),
            "is already the listen address",
        ),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let refusal = Life::try_start(&kernel, directory.path(), two_services()).err();
        let refusal = refusal.unwrap().to_string();
        assert!(refusal.contains(says), "{refusal}");
        assert!(refusal.contains("lbctl detach"), "{refusal}");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            bad,
            "left as it was"
        );
        assert_eq!(kernel.take_writes(), []);
    }
}

#[test]
fn observations_may_be_lost() {
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    live(&mut life);
    drop(life);
    std::fs::write(directory.path().join("observed.json"), "{").unwrap();
    let life = Life::start(&kernel, directory.path(), two_services());
    assert_eq!(life.backend("web", "web-3").health, Health::Unknown);
    assert_eq!(life.backend("web", "web-1").backend.weight, Weight(250));
}

#[test]
fn a_state_that_cannot_be_written_forbids_changes_but_not_failover() {
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    kernel.take_writes();
    let before = kernel.maps();
    directory.close().unwrap();
    let refusal = life.core.change(set_weight("web", "web-1", 5)).unwrap_err();
    assert!(matches!(refusal, ChangeError::State(_)), "{refusal}");
    assert_eq!(kernel.maps(), before);
    assert_eq!(life.backend("web", "web-1").backend.weight, Weight::DEFAULT);

    life.core
        .observe([health("web", "web-1", Health::Down, "refused")]);
    assert_eq!(life.backend("web", "web-1").slots, 0);
    assert_ne!(kernel.maps(), before);
}

#[test]
fn the_state_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (kernel, directory) = kernel_and_directory();
    let mut life = Life::start(&kernel, directory.path(), two_services());
    live(&mut life);
    for file in ["state.json", "observed.json"] {
        let meta = std::fs::metadata(directory.path().join(file)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}
