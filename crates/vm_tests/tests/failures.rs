//! Guests that cannot start, and guests that end on their own.

use std::fs;
use std::time::Duration;

use crumblecracker::{Error, InstanceOptions, KernelChoice};
use vm_tests::{Host, bash, command};

fn refused(options: &InstanceOptions) -> Error {
    Host::open()
        .unwrap()
        .start(options)
        .err()
        .expect("it must not start")
}

#[test]
fn too_little_memory_names_what_is_needed() {
    let error = refused(&InstanceOptions {
        memory_mib: 8,
        ..InstanceOptions::default()
    });
    assert!(error.to_string().contains("80 to "), "{error}");
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    let error = refused(&InstanceOptions {
        kernel: KernelChoice::File(path.clone()),
        ..InstanceOptions::default()
    });
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("neither a bzImage nor an ELF"),
        "{text}"
    );
}

#[test]
fn a_boot_that_takes_too_long_ends_at_its_deadline() {
    let error = refused(&InstanceOptions {
        boot_deadline: Duration::from_millis(300),
        ..InstanceOptions::default()
    });
    assert!(error.to_string().contains("nothing within"), "{error}");
}

#[test]
fn a_guest_that_panics_is_told_with_its_last_lines() {
    let guest = Host::open().unwrap().start(&InstanceOptions::default()).unwrap();
    let process = guest
        .spawn(&command(&["bash", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]))
        .unwrap();
    let error = process.wait().expect_err("the guest is gone");
    assert!(matches!(error, Error::GuestGone(_)), "{error}");
    let told = guest.post_mortem().to_string();
    assert!(
        told.contains("kernel panicked") && told.contains("sysrq"),
        "{told}"
    );
}

#[test]
fn a_guest_that_switches_itself_off_is_told() {
    let guest = Host::open().unwrap().start(&InstanceOptions::default()).unwrap();
    let ended = bash(&guest, "echo o >/proc/sysrq-trigger; sleep 60");
    assert!(ended.is_err());
    assert!(
        guest.post_mortem().how.contains("switched itself off"),
        "{}",
        guest.post_mortem()
    );
}
