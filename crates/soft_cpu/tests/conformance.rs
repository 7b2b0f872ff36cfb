//! The conformance suite on the CPU in software: one test a guest program.

use std::sync::Arc;

use hypervisor::Doorbell;
use hypervisor::conformance::{Bench, TestDoorbell, assert_passes};

/// A doorbell that nobody rings: this backend has none to offer.
struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}

    fn event_handle(&self) -> Option<usize> {
        None
    }
}

impl TestDoorbell for Silent {
    fn take(&self) -> bool {
        false
    }
}

fn run(name: &str) {
    let new_doorbell = || -> Arc<dyn TestDoorbell> { Arc::new(Silent) };
    let bench = Bench {
        hypervisor: &*soft_cpu::open(),
        new_doorbell: &new_doorbell,
    };
    assert_passes(&bench, name);
}

hypervisor::conformance_tests!(run);
