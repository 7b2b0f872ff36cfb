//! The guest's files from the host: `Instance::fs` against what commands in the guest see.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use crumblecracker::fs::{Fs, GuestError, Permissions};
use crumblecracker::{Instance, InstanceOptions};
use vm_tests::{Host, bash, command, finish, run};

/// One guest for all these tests: it must bear them all.
static GUEST: LazyLock<Mutex<Instance>> = LazyLock::new(|| {
    Mutex::new(
        Host::open()
            .and_then(|host| Ok(host.start(&InstanceOptions::default())?))
            .expect("a guest"),
    )
});

fn guest() -> MutexGuard<'static, Instance> {
    GUEST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn printed(guest: &Instance, line: &str) -> String {
    let output = bash(guest, line).unwrap();
    assert_eq!(
        (output.status, output.stderr.as_str()),
        (0, ""),
        "{line}: {output:?}"
    );
    output.stdout
}

fn noise(len: u32) -> Vec<u8> {
    (0..len)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// What the host's own `sha256sum` says of bytes.
fn sum(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn guest_file_written_by_the_host_has_its_sum_in_the_guest() {
    let guest = guest();
    let bytes = noise(3_000_001);

    guest.fs().write("/root/from the host", &bytes).unwrap();

    assert_eq!(printed(&guest, "sha256sum <'/root/from the host'"), sum(&bytes));
}

#[test]
fn guest_file_made_in_the_guest_is_read_whole_and_in_pieces() {
    let guest = guest();
    printed(&guest, "seq 1 200000 >/root/seq");
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();

    let whole = guest.fs().read("/root/seq").unwrap();
    let mut middle = [0; 7];
    let mut file = guest.fs().open("/root/seq").unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-7)).unwrap();
    file.read_exact(&mut middle).unwrap();

    assert!(whole == expected.as_bytes(), "{} bytes", whole.len());
    assert_eq!(&middle, b"200000\n");
}

#[test]
fn guest_file_of_the_kernel_is_read_like_any() {
    let guest = guest();

    let version = guest.fs().read_to_string("/proc/version").unwrap();

    assert_eq!(version, printed(&guest, "cat /proc/version"));
    assert!(
        guest
            .fs()
            .metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn guest_file_server_lists_and_removes_five_thousand_entries() {
    let guest = guest();
    printed(
        &guest,
        "mkdir -p /root/many/sub && perl -e 'for (1..5000) { open my $f, q(>), qq(/root/many/name $_) or die }'",
    );
    let fs = guest.fs();

    let entries: Vec<_> = fs.read_dir("/root/many").unwrap().map(Result::unwrap).collect();

    let names: BTreeSet<String> = entries
        .iter()
        .map(|entry| entry.file_name_lossy().into_owned())
        .collect();
    let expected: BTreeSet<String> = (1..=5000)
        .map(|n| format!("name {n}"))
        .chain(["sub".to_owned()])
        .collect();
    assert!(
        entries.len() == 5001 && names == expected,
        "{} entries",
        entries.len()
    );
    let kinds = entries.iter().map(|entry| entry.file_type().unwrap());
    assert_eq!(kinds.filter(|kind| kind.is_dir()).count(), 1);
    drop(entries);
    fs.remove_dir_all("/root/many").unwrap();
    assert_eq!(
        printed(&guest, "ls -d /root/many 2>/dev/null || echo gone"),
        "gone\n"
    );
}

#[test]
fn guest_file_errors_have_their_kinds_and_numbers() {
    let guest = guest();
    printed(
        &guest,
        "mkdir -p /root/e/full /root/ro; touch /root/e/file /root/e/full/x; mount -t tmpfs -o ro none /root/ro",
    );
    let fs = guest.fs();
    let errors = [
        (fs.read("/root/e/none").unwrap_err(), ErrorKind::NotFound, 2),
        (
            fs.read("/root/e/file/x").unwrap_err(),
            ErrorKind::NotADirectory,
            20,
        ),
        (fs.read("/root/e").unwrap_err(), ErrorKind::IsADirectory, 21),
        (fs.write("/root/e", "").unwrap_err(), ErrorKind::IsADirectory, 21),
        (
            fs.read_dir("/root/e/file").unwrap_err(),
            ErrorKind::NotADirectory,
            20,
        ),
        (
            fs.remove_dir("/root/e/full").unwrap_err(),
            ErrorKind::DirectoryNotEmpty,
            39,
        ),
        (
            fs.create_dir("/root/e").unwrap_err(),
            ErrorKind::AlreadyExists,
            17,
        ),
        (
            fs.write("/root/ro/x", "").unwrap_err(),
            ErrorKind::ReadOnlyFilesystem,
            30,
        ),
        (
            fs.write("/sys/kernel/uevent_seqnum", "1").unwrap_err(),
            ErrorKind::PermissionDenied,
            13,
        ),
        (
            fs.rename("/root/e/file", "/root/ro/x").unwrap_err(),
            ErrorKind::CrossesDevices,
            18,
        ),
    ];

    for (error, kind, number) in errors {
        let refusal = error.get_ref().unwrap().downcast_ref::<GuestError>().unwrap();
        assert_eq!((error.kind(), refusal.errno), (kind, number), "{error}");
    }
}

#[test]
fn guest_file_paths_that_are_hostile_are_refused_and_harm_nothing() {
    let guest = guest();
    let fs = guest.fs();
    let kind = |path: &[u8]| fs.read(path).unwrap_err().kind();

    assert_eq!(kind(b"/etc/passwd\0.txt"), ErrorKind::InvalidInput);
    assert_eq!(kind(&[b'/'; 5000]), ErrorKind::InvalidFilename);
    assert_eq!(kind("/x".repeat(2047).as_bytes()), ErrorKind::NotFound);
    assert_eq!(
        kind(format!("/{}", "n".repeat(256)).as_bytes()),
        ErrorKind::InvalidFilename
    );
    assert_eq!(kind(b""), ErrorKind::NotFound);
    assert_eq!(kind(b"/\xff\xfe\n"), ErrorKind::NotFound);
    // No way leads out of the root.
    assert_eq!(
        fs.read("/../../../../etc/hostname").unwrap(),
        fs.read("/etc/hostname").unwrap()
    );
    assert_eq!(printed(&guest, "echo alive"), "alive\n");
}

#[test]
fn guest_files_go_both_ways_at_once_while_a_process_prints() {
    let guest = guest();
    let (up, down) = (noise(2_000_000), noise(1_500_000));
    guest.fs().write("/root/down", &down).unwrap();
    let printing = guest.spawn(&command(&["seq", "1", "300000"])).unwrap();
    let silent = guest
        .spawn(&command(&["bash", "-c", "yes | head -c 1000000"]))
        .unwrap();
    let fs: &Fs = &guest.fs();

    let (printed_lines, read) = thread::scope(|scope| {
        let upwards = scope.spawn(|| fs.write("/root/up", &up));
        let downwards = scope.spawn(|| fs.read("/root/down"));
        let output = finish(printing, b"");
        upwards.join().unwrap().unwrap();
        (output.unwrap().stdout, downwards.join().unwrap().unwrap())
    });

    assert!(read == down, "{} bytes", read.len());
    assert_eq!(printed_lines.lines().count(), 300_000);
    assert_eq!(printed(&guest, "sha256sum </root/up"), sum(&up));
    // Nobody has read this one's output meanwhile.
    assert_eq!(finish(silent, b"").unwrap().stdout.len(), 1_000_000);
}

#[test]
fn guest_files_copied_in_run_and_copied_out_are_the_same() {
    let guest = guest();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = "#!/bin/bash\necho ran as $(id -u) from $0\n";
    std::fs::write(path("script"), script).unwrap();
    let fs = guest.fs();

    fs.create_dir_all("/opt/deep/er").unwrap();
    fs.copy_in(path("script"), "/opt/deep/er/script").unwrap();
    fs.set_permissions("/opt/deep/er/script", Permissions::from_mode(0o755))
        .unwrap();
    fs.symlink("er/script", "/opt/deep/link").unwrap();
    fs.hard_link("/opt/deep/er/script", "/opt/deep/hard").unwrap();
    fs.chown("/opt/deep/hard", Some(8), Some(9)).unwrap();
    fs.rename("/opt/deep/hard", "/opt/deep/moved").unwrap();

    assert_eq!(
        run(&guest, &command(&["/opt/deep/link"])).unwrap().stdout,
        "ran as 0 from /opt/deep/link\n"
    );
    assert_eq!(
        printed(
            &guest,
            "stat -c '%h %a %u %g' /opt/deep/moved; readlink /opt/deep/link"
        ),
        "2 755 8 9\ner/script\n"
    );
    let count = fs.copy_out("/opt/deep/moved", path("back")).unwrap();
    assert_eq!(count, script.len() as u64);
    assert_eq!(std::fs::read_to_string(path("back")).unwrap(), script);
}

#[test]
fn guest_file_server_that_stands_still_or_is_killed_costs_files_only() {
    let guest = guest();
    let fs = guest.fs();
    let file = fs.open("/etc/hostname").unwrap();
    // Besides the first process, only the file server bears its name as a child of it.
    let find =
        "for p in /proc/[0-9]*; do [[ $(<$p/comm) = init && ${p#/proc/} != 1 ]] && echo ${p#/proc/}; done; :";
    let server = printed(&guest, find);
    let server = server.trim();

    printed(&guest, &format!("kill -STOP {server}"));
    let (hostname, said) = thread::scope(|scope| {
        let waiting = scope.spawn(|| fs.read_to_string("/etc/hostname"));
        let said = printed(&guest, &format!("echo on; kill -CONT {server}"));
        (waiting.join().unwrap().unwrap(), said)
    });
    printed(&guest, &format!("kill -KILL {server}"));
    let lost = file.metadata().unwrap_err();

    assert_eq!((hostname.as_str(), said.as_str()), ("crumble\n", "on\n"));
    let number = lost
        .get_ref()
        .unwrap()
        .downcast_ref::<GuestError>()
        .unwrap()
        .errno;
    // Lost on the way, or not known to the next server.
    assert!([5, 9].contains(&number), "{lost}");
    assert_eq!(fs.read_to_string("/etc/hostname").unwrap(), "crumble\n");
}
