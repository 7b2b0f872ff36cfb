//! Guests that cannot start, and guests that end on their own.

use std::fs;
use std::io::Read;
use std::time::Duration;

use crumblecracker::{Error, InstanceOptions, KernelChoice};
use vm_tests::kernels::{HANG, TRIPLE_FAULT, kernel};
use vm_tests::program::{cc_run, cc_run_under, quiet_output, said};
use vm_tests::{Host, USERLAND, bash, command};

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

/// What `cc` says of a run that fails for its own reasons: the line, and those below it.
fn failed(words: &[&str]) -> (String, Vec<String>) {
    let (status, stdout, stderr) = said(&cc_run(words).output().unwrap());
    assert_eq!((status, stdout.as_str()), (Some(125), ""), "{stderr}");
    let mut lines = stderr.lines().map(str::to_owned);
    let first = lines.next().unwrap();
    (
        first.strip_prefix("cc: ").unwrap_or(&first).to_owned(),
        lines.collect(),
    )
}

#[test]
fn cc_run_boot_that_hangs_ends_at_its_deadline_with_the_last_console_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    fs::write(&path, kernel("here it ends", HANG)).unwrap();
    let path = path.to_str().unwrap();

    let told = failed(&["--kernel", path, "--boot-timeout", "2.5", USERLAND, "true"]);

    let line = "the guest ended while it started: nothing within 2.5 seconds";
    let below = ["its console said:", "  here it ends"].map(str::to_owned);
    assert_eq!(told, (line.to_owned(), below.to_vec()));
}

#[test]
fn cc_run_kernel_that_loses_control_is_told_with_the_last_console_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    fs::write(&path, kernel("here it falls", TRIPLE_FAULT)).unwrap();

    let told = failed(&["--kernel", path.to_str().unwrap(), USERLAND, "true"]);

    let line = "the guest ended while it started: its CPU shut down after a triple fault";
    let below = ["its console said:", "  here it falls"].map(str::to_owned);
    assert_eq!(told, (line.to_owned(), below.to_vec()));
}

#[test]
fn cc_run_kernel_that_cannot_be_loaded_is_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    let mut outside = kernel("", HANG);
    // Its place in memory (ELF-64, `p_paddr`).
    outside[88..96].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let cut = kernel("", HANG)[..100].to_vec();
    for bytes in [b"".to_vec(), b"#!/bin/sh\n".to_vec(), outside, cut] {
        fs::write(&path, bytes).unwrap();

        let (line, below) = failed(&["--kernel", path.to_str().unwrap(), USERLAND, "true"]);

        assert!(
            line.starts_with(&format!("kernel {}: ", path.display())),
            "{line}"
        );
        assert!(below.is_empty(), "{below:?}");
    }
}

#[test]
fn cc_run_more_memory_than_the_host_gives_is_refused_in_one_line() {
    let starter = ["sh", "-c", "ulimit -v 3000000 && exec \"$@\"", "sh"];
    let mut run = cc_run_under(&starter, &["--memory", "4G", USERLAND, "true"]);

    let (status, stdout, stderr) = said(&run.output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(125), ""), "{stderr}");
    assert!(
        stderr.contains("does not give the guest 4096 MiB of memory; give it less"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn cc_run_guest_that_panics_is_told_with_the_kernels_words() {
    let (line, below) = failed(&[USERLAND, "--", "sh", "-c", "echo c >/proc/sysrq-trigger"]);

    assert_eq!(line, "the guest is gone: its kernel panicked");
    assert!(
        below[1].contains("Kernel panic - not syncing: sysrq"),
        "{below:?}"
    );
}

#[test]
fn cc_run_command_without_memory_is_killed_and_the_guest_goes_on() {
    let script = "tail /dev/zero; echo $?";

    let output = cc_run(&["--memory", "128M", USERLAND, "--", "bash", "-c", script]).output();

    let (status, stdout, stderr) = said(&output.unwrap());
    assert_eq!((status, stdout.as_str()), (Some(0), "137\n"), "{stderr}");
}

#[test]
fn cc_run_killed_leaves_nothing_behind_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let volume = format!("{}:/share", folder.path().display());
    let script = "echo whole >/share/made && echo up && sleep 600";
    let words = ["-v", &volume, USERLAND, "--", "sh", "-c", script];
    let mut cc = cc_run(&words).spawn().unwrap();
    let mut up = [0; 3];
    cc.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();

    cc.kill().unwrap();

    let ended = said(&cc.wait_with_output().unwrap());
    assert_eq!(ended, (None, String::new(), String::new()));
    assert_eq!(fs::read_to_string(folder.path().join("made")).unwrap(), "whole\n");
    assert_eq!(quiet_output(&[USERLAND, "true"]), (Some(0), String::new()));
}

#[test]
fn a_boot_that_takes_too_long_ends_at_its_deadline() {
    let error = refused(&InstanceOptions {
        boot_deadline: Duration::from_millis(300),
        snapshots: false,
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
