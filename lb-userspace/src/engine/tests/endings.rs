//! Whose connections are to be ended (S-CT-6).

use super::*;
use crate::{
    dataplane::Endings,
    engine::endings,
    model::{OnBackendDown, OnExpiry},
};

/// Two services that share a server, with these settings of the first.
fn life(set: impl FnOnce(&mut Service)) -> (Life, tempfile::TempDir) {
    let mut desired = two_services();
    set(&mut desired.services[0]);
    let directory = tempfile::tempdir().unwrap();
    let life = Life::start(&FakeKernel::default(), directory.path(), desired);
    (life, directory)
}

fn all_down() -> [Observation; 3] {
    [("web", "web-1"), ("web", "web-2"), ("tls", "tls-1")]
        .map(|(service, backend)| health(service, backend, Health::Down, "connection refused"))
}

/// S-CT-3: by default nothing is ended.
#[test]
fn connections_are_kept_by_default() {
    let (mut life, _directory) = life(|_| {});
    life.core.observe(all_down());
    assert_eq!(endings(&life.snapshot()), Endings::default());
}

/// S-CT-6: of this service's backends, and not of the same server in another service.
#[test]
fn the_connections_of_a_backend_that_is_down_are_ended() {
    let (mut life, _directory) = life(|service| service.on_backend_down = OnBackendDown::Reset);
    assert_eq!(endings(&life.snapshot()), Endings::default());
    life.core.observe(all_down());
    let [one, two] = ["web-1", "web-2"].map(|called| life.backend("web", called).index);
    let expected = Endings {
        backends: [one, two].into(),
        ..Endings::default()
    };
    assert_eq!(endings(&life.snapshot()), expected);
    life.core.observe([health("web", "web-1", Health::Up, "")]);
    assert_eq!(endings(&life.snapshot()).backends, [two].into());
    // Who was removed takes no probes, and its connections go on.
    let removed = Change::RemoveBackend {
        service: name("web"),
        backend: name("web-2"),
    };
    life.core.change(removed).unwrap();
    assert_eq!(endings(&life.snapshot()), Endings::default());
}

/// S-CT-6
#[test]
fn the_expired_connections_of_a_service_are_ended() {
    let (mut life, _directory) = life(|service| service.on_expiry = OnExpiry::Reset);
    life.core.observe(all_down());
    let expected = Endings {
        expiring: [life.service("web").id].into(),
        ..Endings::default()
    };
    assert_eq!(endings(&life.snapshot()), expected);
}
