//! The conformance suite on this host's hardware virtualization: one test a guest program.

use std::sync::{Arc, LazyLock};

use hypervisor::Hypervisor;
use hypervisor::conformance::{Bench, assert_passes};

fn run(name: &str) {
    static HYPERVISOR: LazyLock<Arc<dyn Hypervisor>> = LazyLock::new(|| {
        let cache = std::env::temp_dir();
        native_cpu::open_usable(&cache).unwrap_or_else(|error| panic!("no guest can run here: {error}"))
    });
    let new_doorbell = || native_cpu::event_doorbell().expect("an event can be made");
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
