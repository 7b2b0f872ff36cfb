//! The program as people call it, as far as it needs no guest.

mod support;

use std::fs;
use std::process::Stdio;

use support::layout::{Layout, end};
use support::{Program, refusal, said};

#[test]
fn help_names_every_request() {
    let said = Program::new().say(&["--help"]);

    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    for request in ["run", "pull", "images", "rmi", "doctor"] {
        assert!(said.stdout.contains(request), "{request}");
    }
    assert!(!said.stdout.contains("boot-bench"));
}

#[test]
fn version_is_the_package_version() {
    let said = Program::new().say(&["--version"]);

    assert_eq!(said.status, 0);
    assert!(
        said.stdout.trim_end().ends_with(env!("CARGO_PKG_VERSION")),
        "{}",
        said.stdout
    );
}

#[test]
fn wrong_words_are_refused_in_one_line() {
    let program = Program::new();
    for (words, part) in [
        (&[][..], "--help"),
        (&["--nonsense", "alpine"], "--nonsense"),
        (&["run"], "IMAGE"),
        (&["run", "--memory", "much", "alpine"], "much"),
        (&["run", "-v", "here:relative", "alpine"], "relative"),
        (&["run", "-v", "/not/there:/data", "alpine"], "/not/there"),
        (&["run", "--env-file", "/not/there", "alpine"], "/not/there"),
        (&["run", "--kernel", "/not/there", "alpine"], "/not/there"),
        (&["rmi"], "IMAGE"),
    ] {
        let reason = program.refusal(words);
        assert!(reason.contains(part), "{words:?}: {reason}");
    }
}

#[test]
fn run_unknown_image_without_pulling_names_the_image() {
    let program = Program::new();
    for words in [
        &["run", "--pull", "never", "registry.test/nothing", "true"][..],
        &["--pull=never", "registry.test/nothing"],
        &[
            "--quiet",
            "--pull",
            "never",
            "--",
            "registry.test/nothing",
            "--",
            "true",
        ],
    ] {
        let reason = program.refusal(words);
        assert!(reason.contains("registry.test/nothing"), "{words:?}: {reason}");
    }
}

#[test]
fn run_malformed_image_is_refused() {
    Program::new().refusal(&["run", "--pull", "never", "No Image"]);
}

#[test]
fn rmi_tries_every_image() {
    let said = Program::new().say(&["rmi", "registry.test/a", "registry.test/b"]);

    assert_eq!(said.status, 125);
    assert_eq!(said.stderr.lines().count(), 2, "{}", said.stderr);
    assert!(
        said.stderr.contains("registry.test/a") && said.stderr.contains("registry.test/b"),
        "{}",
        said.stderr
    );
}

#[test]
fn images_of_an_empty_cache_is_a_heading() {
    let program = Program::new();

    let said = program.say(&["images", "--cache-dir", "elsewhere"]);

    assert_eq!((said.status, said.stderr.as_str()), (0, ""));
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    assert!(said.stdout.starts_with("NAME"), "{}", said.stdout);
    assert_eq!(program.say(&["images", "--quiet"]).stdout, "");
}

#[test]
fn doctor_status_agrees_with_its_lines() {
    let said = Program::new().say(&["doctor"]);

    assert_eq!(said.stderr, "");
    assert!(said.stdout.starts_with("kvm: "), "{}", said.stdout);
    let usable = said.stdout.lines().any(|line| line.contains(": usable: "));
    assert_eq!(said.status, if usable { 0 } else { 1 });
}

/// Starts what follows it where `/dev` holds nothing but what `script` makes there.
fn with_devices(script: &str) -> [String; 6] {
    let script = format!(
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && {script} && \
         exec setpriv --bounding-set -dac_override,-dac_read_search \"$@\""
    );
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned)
}

#[test]
fn kvm_that_cannot_be_used_is_told_with_the_reason() {
    let (program, image) = (Program::new(), Layout::new().layer(|tar| end(tar, 0)).finish());
    assert_eq!(program.say(&["pull", "--no-kernel", &image.source()]).status, 0);
    for (script, part) in [
        ("true", "is absent: virtualization is off"),
        ("mknod -m 000 /dev/kvm c 10 232", "join its group"),
        ("mknod -m 666 /dev/kvm c 1 3", "is not the device of KVM"),
        ("mknod -m 666 /dev/kvm c 0 0", "cannot be opened"),
    ] {
        let starter = with_devices(script);
        let starter = starter.each_ref().map(String::as_str);
        let source = image.source();

        let reason = refusal(
            &mut program.command_under(&starter, &["run", "--backend=kvm", "--pull=never", &source, "x"]),
        );
        let doctor = said(&mut program.command_under(&starter, &["doctor"]));

        assert!(
            reason.starts_with("kvm is not usable: ") && reason.contains(part),
            "{reason}"
        );
        // The software CPU is there all the same.
        assert_eq!((doctor.status, doctor.stderr.as_str()), (0, ""));
        assert!(
            doctor.stdout.contains(part) && doctor.stdout.lines().count() == 2,
            "{}",
            doctor.stdout
        );
    }
}

#[test]
fn configuration_that_cannot_be_read_is_named() {
    let program = Program::new();
    let path = program.home().join(".config/crumblecracker/config.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{]").unwrap();

    let reason = program.refusal(&["images"]);

    assert!(reason.contains("config.json"), "{reason}");
}

#[test]
fn output_nobody_can_take_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();

    let status = Program::new()
        .command(&["--help"])
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();

    assert_eq!(status.code(), Some(125));
}
