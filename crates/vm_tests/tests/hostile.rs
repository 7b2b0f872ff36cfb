//! Guests that attack the monitor: it bears them, and the run ends as it would have ended without.

use std::fs;

use vm_tests::USERLAND;
use vm_tests::program::{cc_run, said};

/// What the guest does to its devices.
const ATTACK: &str = include_str!("attack.py");

#[test]
fn guest_that_attacks_its_devices_harms_only_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("given"), "from the host\n").unwrap();
    let volume = format!("{}:/share", folder.path().display());
    let words = [
        "--timeout",
        "240",
        "-v",
        &volume,
        USERLAND,
        "--",
        "python3",
        "-c",
        ATTACK,
    ];

    let (status, stdout, stderr) = said(&cc_run(&words).output().unwrap());

    let expected = "rng refused 24 attacks and serves\nshare refused 24 attacks and serves\nfrom the host\n";
    assert_eq!((status, stdout.as_str()), (Some(0), expected), "{stderr}");
    assert_eq!(fs::read_to_string(folder.path().join("made")).unwrap(), "made\n");
    // Each of the two devices is told once, and that an interrupt went nowhere.
    assert!(
        !stderr.contains("panicked") && stderr.lines().count() <= 3,
        "{stderr}"
    );
}

/// Breaks the devices that the guest itself lives on, the root and the control channel.
const SABOTAGE: &str = r#"
import os, random, time
exec(open('/attack.py').read().rsplit('main()', 1)[0])
root, console = Device(names('0x105a')[0], []), Device(names('0x1043')[0], [])
print('sabotage', flush=True)
time.sleep(1)
random.seed(1)
for device in (root, console):
    for _ in range(200):
        device.store(random.choice((0, 0x1000, 0x2000, 0x3000)) + random.randrange(0, 0x40, 4), 4, random.getrandbits(32))
for device in (root, console):
    device.common(0x14, 1, 0)
while True:
    pass
"#;

#[test]
fn guest_that_breaks_its_root_and_channel_ends_at_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("attack.py");
    fs::write(&file, ATTACK).unwrap();
    let volume = format!("{}:/attack.py:ro", file.display());
    let words = [
        "--timeout",
        "30",
        "-v",
        &volume,
        USERLAND,
        "--",
        "python3",
        "-c",
        SABOTAGE,
    ];

    let (status, stdout, stderr) = said(&cc_run(&words).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(124), "sabotage\n"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Takes the control channel from the guest program and says what nobody should say there.
const INTERRUPTION: &str = r#"
for my $file (glob '/proc/1/fd/*') {
    next unless (readlink($file) // '') =~ /vport/;
    my ($number) = $file =~ /(\d+)$/;
    my $process = syscall(434, 1, 0);                          # pidfd_open
    my $channel = syscall(438, $process, $number + 0, 0);      # pidfd_getfd
    my $words = "\xff" x 256;
    syscall(1, $channel, $words, length $words);               # write
}
sleep 600;
"#;

#[test]
fn guest_that_breaks_the_control_protocol_is_told() {
    let words = [USERLAND, "--", "perl", "-e", INTERRUPTION];

    let (status, stdout, stderr) = said(&cc_run(&words).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(125), ""), "{stderr}");
    let first = stderr.lines().next().unwrap();
    assert!(
        first.contains("the guest is gone: it broke the control protocol"),
        "{stderr}"
    );
}
