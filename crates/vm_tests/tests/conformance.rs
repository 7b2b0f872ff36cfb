//! The conformance suite on this host's hardware virtualization: one test a guest program. What a program does there
//! is what it does on the CPU in software.

use std::sync::{Arc, LazyLock};

use hypervisor::Hypervisor;
use hypervisor::conformance::{Bench, assert_passes};
use hypervisor::x86_64::CpuProfile;

fn run(name: &str) {
    static HYPERVISOR: LazyLock<Arc<dyn Hypervisor>> = LazyLock::new(|| {
        let cache = std::env::temp_dir();
        native_cpu::open_usable(&cache).unwrap_or_else(|error| panic!("no guest can run here: {error}"))
    });
    let new_doorbell = || native_cpu::event_doorbell().expect("an event can be made");
    let bench = |hypervisor| Bench {
        hypervisor,
        new_doorbell: &new_doorbell,
    };
    let native = bench(&**HYPERVISOR);
    let done = assert_passes(&native, name);
    // Only what both can do can be compared.
    if native.hypervisor.capabilities().doorbells && name == "doorbells" {
        return;
    }
    let software = soft_cpu::open();
    assert_eq!(assert_passes(&bench(&*software), name), done);
}

hypervisor::conformance_tests!(run);

#[test]
fn probe_measures_and_opening_remembers() {
    let cache = tempfile::tempdir().expect("a folder can be made");

    let report = native_cpu::probe(cache.path());

    assert!(report.usable, "{}", report.sentence);
    assert!(native_cpu::open_usable(cache.path()).is_ok());
}

#[test]
fn named_profiles_up_to_v3_are_shown_alike_by_hardware_and_software() {
    let hardware = native_cpu::open_usable(&std::env::temp_dir()).expect("hardware virtualization");
    let software = soft_cpu::open();

    for profile in [CpuProfile::X86_64V2, CpuProfile::X86_64V3] {
        let leaves = [&hardware, &software].map(|backend| profile.apply(&backend.capabilities().cpuid));
        let [shown, here] = leaves.map(|leaves| leaves.unwrap_or_else(|error| panic!("{error}")));
        assert_eq!(shown, here, "{profile}");
    }
}
