//! An index stays with its owner while a connection may name it.

use std::time::{Duration, Instant};

use super::*;

const PAUSE: Duration = Duration::from_secs(2);

struct Fixture {
    kernel: FakeKernel,
    life: Life,
    directory: tempfile::TempDir,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::default();
        Self {
            life: Life::start(&kernel, directory.path(), two_services()),
            kernel,
            directory,
            now: Instant::now(),
        }
    }

    fn tick_after(&mut self, time: Duration) {
        self.now += time;
        self.life.core.tick(self.now);
    }

    /// Connections that a service has had, as the API adds them up.
    fn service_connections(&self, service: &str) -> u64 {
        let view = self.life.service(service);
        let indices = view.backends.iter().map(|b| b.index);
        let counted: u64 = indices
            .chain(view.removed.iter().copied())
            .map(|index| self.kernel.backend_counters(index).unwrap().connections)
            .sum();
        counted + view.retired.connections
    }
}

#[test]
fn a_removed_backend_is_forwarded_until_its_connections_end() {
    let mut fixture = Fixture::new();
    let index = fixture.life.backend("web", "web-2").index;
    fixture.kernel.set_connections(index, 1);
    fixture.kernel.count(index, 7);
    fixture.life.core.change(remove("web", "web-2")).unwrap();

    for _ in 0..3 {
        fixture.tick_after(PAUSE);
        let record = fixture.kernel.maps().backends[&index].clone();
        assert!(!record.accepts_new);
        assert_eq!(record.address, address("10.0.0.2:80"));
        assert_eq!(fixture.life.service("web").removed, [index]);
        let wanted = wanted_addresses(&fixture.life.snapshot());
        assert!(wanted.contains(&record.address.ip()));
    }

    fixture.kernel.set_connections(index, 0);
    fixture.tick_after(PAUSE);
    assert!(
        fixture.kernel.maps().backends.contains_key(&index),
        "one reading is not enough"
    );
    fixture.tick_after(PAUSE / 2);
    assert!(
        fixture.kernel.maps().backends.contains_key(&index),
        "nor are two at once"
    );
    assert_eq!(fixture.service_connections("web"), 7);
    fixture.tick_after(PAUSE / 2);
    assert!(!fixture.kernel.maps().backends.contains_key(&index));
    assert!(
        !fixture
            .kernel
            .maps()
            .endpoints
            .contains_key(&address("10.0.0.2:80"))
    );
    assert_eq!(fixture.life.service("web").removed, []);
    assert_eq!(fixture.life.service("web").retired.connections, 7);
    assert_eq!(fixture.service_connections("web"), 7);
    assert_sound(&fixture.kernel.maps());
}

#[test]
fn a_connection_between_two_readings_starts_the_wait_afresh() {
    let mut fixture = Fixture::new();
    let index = fixture.life.backend("web", "web-2").index;
    fixture.life.core.change(remove("web", "web-2")).unwrap();
    fixture.tick_after(PAUSE);
    fixture.kernel.set_connections(index, 1);
    fixture.tick_after(PAUSE);
    fixture.kernel.set_connections(index, 0);
    fixture.tick_after(PAUSE);
    assert!(fixture.kernel.maps().backends.contains_key(&index));
    fixture.tick_after(PAUSE);
    assert!(!fixture.kernel.maps().backends.contains_key(&index));
}

#[test]
fn who_comes_back_in_time_has_the_old_index_and_a_fresh_health() {
    let mut fixture = Fixture::new();
    let before = fixture.life.backend("web", "web-2");
    let down = health("web", "web-2", Health::Down, "refused");
    fixture.life.core.observe([down]);
    fixture.life.core.change(remove("web", "web-2")).unwrap();
    let again = Change::AddBackend {
        service: name("web"),
        backend: backend("other", "10.0.0.2:80"),
    };
    fixture.life.core.change(again).unwrap();
    let now = fixture.life.backend("web", "other");
    assert_eq!(now.index, before.index);
    assert_eq!(now.health, Health::Unknown);
    assert!(now.slots > 0);
}

#[test]
fn a_freed_index_is_reused_last() {
    let mut fixture = Fixture::new();
    let freed = fixture.life.backend("web", "web-2").index;
    fixture.life.core.change(remove("web", "web-2")).unwrap();
    fixture.tick_after(PAUSE);
    fixture.tick_after(PAUSE);
    assert!(!fixture.kernel.maps().backends.contains_key(&freed));
    let again = Change::AddBackend {
        service: name("web"),
        backend: backend("web-2", "10.0.0.2:80"),
    };
    fixture.life.core.change(again).unwrap();
    assert_eq!(fixture.life.backend("web", "web-2").index, BackendIndex(7));
}

#[test]
fn a_removed_service_is_unlistened_first_and_cleared_last() {
    let mut fixture = Fixture::new();
    let id = fixture.life.service("tls").id;
    let index = fixture.life.backend("tls", "tls-5").index;
    fixture.kernel.set_connections(index, 1);
    fixture.kernel.take_writes();
    let mut desired = two_services();
    desired.services.pop();
    fixture.life.core.change(Change::Replace(desired)).unwrap();
    let writes = fixture.kernel.take_writes();
    assert!(
        matches!(writes.first(), Some(MapWrite::Unlisten { .. })),
        "{writes:?}"
    );
    let lingering = fixture.life.snapshot().lingering;
    assert_eq!(lingering.len(), 2);
    assert!(
        lingering
            .iter()
            .all(|backend| backend.service_name == name("tls"))
    );

    for _ in 0..3 {
        fixture.tick_after(PAUSE);
    }
    let maps = fixture.kernel.maps();
    assert!(maps.services.contains_key(&id), "a connection is left");
    assert!(maps.backends.contains_key(&index));
    assert_eq!(fixture.life.snapshot().lingering.len(), 1);
    // The other service still uses the server that they shared.
    assert_eq!(chain(&maps, address("10.0.0.1:80")).len(), 1);

    fixture.kernel.set_connections(index, 0);
    fixture.tick_after(PAUSE);
    fixture.tick_after(PAUSE);
    let maps = fixture.kernel.maps();
    assert!(!maps.services.contains_key(&id));
    assert!(!maps.tables.contains_key(&id));
    assert!(!maps.backends.contains_key(&index));
}

#[test]
fn an_index_is_not_freed_while_the_maps_are_behind() {
    let mut fixture = Fixture::new();
    let index = fixture.life.backend("web", "web-2").index;
    fixture.kernel.fail_after(0);
    fixture
        .life
        .core
        .change(remove("web", "web-2"))
        .unwrap_err();
    for _ in 0..3 {
        fixture.tick_after(PAUSE);
    }
    assert_eq!(fixture.life.service("web").removed, [index]);
    fixture.kernel.recover();
    fixture.tick_after(PAUSE);
    assert!(fixture.kernel.maps().backends.contains_key(&index));
    fixture.tick_after(PAUSE);
    assert!(!fixture.kernel.maps().backends.contains_key(&index));
}

/// A SIGKILL after the index was freed in the state, before it was cleared in the maps.
#[test]
fn counters_are_retired_once_whatever_happens() {
    let mut fixture = Fixture::new();
    let index = fixture.life.backend("web", "web-2").index;
    fixture.kernel.count(index, 7);
    fixture.life.core.change(remove("web", "web-2")).unwrap();
    fixture.tick_after(PAUSE);
    fixture.kernel.fail_after(0);
    fixture.tick_after(PAUSE);
    assert!(
        fixture.kernel.maps().backends.contains_key(&index),
        "not cleared"
    );

    fixture.kernel.recover();
    fixture.life = Life::start(&fixture.kernel, fixture.directory.path(), two_services());
    assert_eq!(fixture.service_connections("web"), 7);
    assert!(
        !fixture.kernel.maps().backends.contains_key(&index),
        "cleared by the next life"
    );
    assert_eq!(
        fixture.kernel.backend_counters(index).unwrap().connections,
        0
    );
}

#[test]
fn an_endpoint_that_lingers_too_often_is_refused_for_now() {
    let web = |n: u8| {
        service(
            &format!("s{n}"),
            &format!("192.0.2.{n}:80"),
            &[("b", "10.0.0.1:80")],
        )
    };
    let mut allocation = Allocation::default();
    let desired = |services: std::ops::Range<u8>| Desired {
        services: services.map(web).collect(),
    };
    allocation = allocation.assign(&desired(0..8)).unwrap();
    let refusal = allocation.assign(&desired(1..9));
    let address = address("10.0.0.1:80");
    assert_eq!(refusal, Err(AllocationError::SharedEndpoint { address }));
    let lingering = allocation.lingering(&desired(1..8));
    for (index, service) in lingering {
        allocation.release_backend(service, index);
    }
    allocation.assign(&desired(1..9)).unwrap();
}

#[test]
fn indices_run_out_with_a_clear_word_and_are_then_reused_in_turn() {
    let backends = |range: std::ops::Range<u16>| -> Desired {
        let mut web = service("web", "192.0.2.1:80", &[]);
        web.backends = range
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                backend(&format!("b{n}"), &format!("10.0.{high}.{low}:80"))
            })
            .collect();
        Desired {
            services: vec![web],
        }
    };
    let mut allocation = Allocation::default().assign(&backends(0..16_383)).unwrap();
    let later = backends(2..16_385);
    let refusal = allocation.assign(&later).unwrap_err();
    assert_eq!(refusal, AllocationError::Backends { lingering: 2 });
    for (index, service) in allocation.lingering(&later).into_iter().rev() {
        allocation.release_backend(service, index);
    }
    let allocation = allocation.assign(&later).unwrap();
    assert!(allocation.is_consistent());
    // The one that was freed first is taken first.
    let index = |at| allocation.backend_index(ServiceId(1), address(at)).unwrap();
    assert_eq!(index("10.0.63.255:80"), BackendIndex(2));
    assert_eq!(index("10.0.64.0:80"), BackendIndex(1));
}
