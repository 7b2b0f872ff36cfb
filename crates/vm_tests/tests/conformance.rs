//! The conformance suite on this host's hardware virtualization: one test a guest program.

use std::sync::{Arc, LazyLock};

use host_os::Event;
use hypervisor::conformance::{Bench, TestDoorbell, assert_passes};
use hypervisor::{Doorbell, Hypervisor};

/// A doorbell that KVM rings through an event of the host.
struct EventDoorbell(Event);

impl Doorbell for EventDoorbell {
    fn ring(&self) {
        self.0.signal();
    }

    fn event_handle(&self) -> Option<usize> {
        Some(self.0.raw_handle())
    }
}

impl TestDoorbell for EventDoorbell {
    fn take(&self) -> bool {
        self.0.take()
    }
}

fn run(name: &str) {
    static HYPERVISOR: LazyLock<Arc<dyn Hypervisor>> = LazyLock::new(|| {
        let cache = std::env::temp_dir();
        native_cpu::open_usable(&cache).unwrap_or_else(|error| panic!("no guest can run here: {error}"))
    });
    let new_doorbell =
        || -> Arc<dyn TestDoorbell> { Arc::new(EventDoorbell(Event::new().expect("an event can be made"))) };
    let bench = Bench {
        hypervisor: &**HYPERVISOR,
        new_doorbell: &new_doorbell,
    };
    assert_passes(&bench, name);
}

hypervisor::conformance_tests!(run);

#[test]
fn probe_measures_and_opening_remembers() {
    let cache = tempfile::tempdir().expect("a folder can be made");

    let report = native_cpu::probe(cache.path());

    assert!(report.usable, "{}", report.sentence);
    assert!(native_cpu::open_usable(cache.path()).is_ok());
}
