//! The guest program as PID 1 of a real kernel, with its root on a virtio-fs server nobody here wrote.

mod common;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use common::files::{READ, WRITE_NEW, in_directory};
use common::qemu::{Machine, busybox_root};
use common::{Guest, terminal};
use guest_protocol::{Arch, Configure, Mount, MountRoot, Stage, ToGuest};

fn exec(argv: &[&str]) -> guest_protocol::Exec {
    guest_protocol::Exec {
        env: vec![b"PATH=/bin".to_vec()],
        ..common::command(argv)
    }
}

fn run(guest: &mut Guest, script: &str) -> String {
    let process = guest.run(exec(&["sh", "-c", script]), b"");
    String::from_utf8_lossy(&process.output.concat()).into_owned()
}

fn configure(guest: &mut Guest) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let configure = Configure {
        version: guest.hello.negotiate().unwrap(),
        hostname: b"crumb".to_vec(),
        wall_clock_ns: u64::try_from(now.as_nanos()).unwrap(),
        entropy: vec![0x5a; 64],
    };
    let id = guest.request(ToGuest::Configure(configure));
    guest.wait_done(id);
}

fn mount_root(guest: &mut Guest, read_only: bool) {
    let id = guest.request(ToGuest::MountRoot(MountRoot {
        tag: b"root".to_vec(),
        read_only,
    }));
    guest.wait_done(id);
}

fn mount(guest: &mut Guest, tag: &str, path: &str, source: &str, read_only: bool) -> u32 {
    guest.request(ToGuest::Mount(Mount {
        tag: tag.into(),
        path: path.into(),
        source: source.into(),
        read_only,
    }))
}

#[test]
fn boot_by_modules_says_hello_and_powers_off() {
    let mut machine = Machine::boot(&[]);

    configure(machine.guest());

    let hello = &machine.guest().hello;
    assert_eq!(hello.arch, Arch::Amd64);
    assert!(!hello.hosted);
    assert!(hello.release.contains("cloud-amd64"), "{}", hello.release);
    assert!(hello.start_ns > 0 && hello.now_ns >= hello.start_ns);
    assert!(machine.shut_down(), "the machine powers off by itself");
}

#[test]
fn root_that_does_not_exist_is_refused_and_can_be_tried_again() {
    let root = busybox_root();
    let mut machine = Machine::boot(&[("root", root.path())]);
    let guest = machine.guest();

    let id = guest.request(ToGuest::MountRoot(MountRoot {
        tag: b"nothing".to_vec(),
        read_only: false,
    }));
    let failure = guest.wait_failed(id);
    mount_root(guest, false);

    assert_eq!((failure.stage, failure.text.as_str()), (Stage::Mount, "nothing"));
    assert_eq!(run(guest, "echo in"), "in\n");
}

#[test]
fn root_on_virtio_fs_has_what_a_userland_expects() {
    let root = busybox_root();
    let mut machine = Machine::boot(&[("root", root.path())]);
    let guest = machine.guest();
    configure(guest);
    mount_root(guest, false);

    let mounts = run(guest, "cat /proc/mounts");
    for place in [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/run",
        "/sys/fs/cgroup",
    ] {
        assert!(
            mounts.lines().any(|line| line.split(' ').nth(1) == Some(place)),
            "{place} in {mounts}"
        );
    }
    assert_eq!(run(guest, "stat -c %a /tmp"), "1777\n");
    assert_eq!(
        run(guest, "echo through > /dev/stdout; echo fd | cat /dev/fd/0"),
        "through\nfd\n"
    );
    assert_eq!(run(guest, "hostname"), "crumb\n");
    assert!(run(guest, "ip addr show lo").contains("127.0.0.1/8"));
    let clock: u64 = run(guest, "date +%s").trim().parse().unwrap();
    assert!(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
            .abs_diff(clock)
            < 120
    );
    let limits = run(guest, "ulimit -n; ulimit -Hn");
    assert_eq!(limits, "1024\n524288\n");
    let mut in_terminal = terminal(&["sh", "-c", "stty size < /dev/tty"], 31, 101);
    in_terminal.env = vec![b"PATH=/bin".to_vec()];
    assert_eq!(guest.run(in_terminal, b"").stdout(), "31 101\r\n");
    assert_eq!(guest.run(exec(&["cat"]), &[7; 300_000]).output[0], [7; 300_000]);
    assert!(machine.shut_down());
}

#[test]
fn files_are_those_of_the_root_and_there_are_none_before_it() {
    const EPERM: u32 = 1;
    let root = busybox_root();
    fs::write(root.path().join("note"), "from the host\n").unwrap();
    let mut machine = Machine::boot(&[("root", root.path())]);
    let guest = machine.guest();

    assert_eq!(guest.open(in_directory(0, "/init"), READ), Err(EPERM));
    mount_root(guest, false);

    let note = guest.open(in_directory(0, "/note"), READ).unwrap();
    assert_eq!(guest.read_all(note), b"from the host\n");
    let made = guest.open(in_directory(0, "/tmp/made"), WRITE_NEW).unwrap();
    assert_eq!(guest.write_at(made, 3, b"abc"), Ok(3));
    assert_eq!(run(guest, "tail -c 3 /tmp/made"), "abc");
    assert_eq!(fs::read(root.path().join("tmp/made")).unwrap(), b"\0\0\0abc");
    // Nothing of the file server's keeps commands from ending.
    assert_eq!(guest.run(exec(&["cat"]), b"on").stdout(), "on");
    assert!(machine.shut_down());
}

#[test]
fn shares_appear_where_they_are_asked_for() {
    let root = busybox_root();
    let share = tempfile::tempdir().unwrap();
    fs::write(share.path().join("note"), "from the host\n").unwrap();
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("config"), "one file\n").unwrap();
    let mut machine = Machine::boot(&[
        ("root", root.path()),
        ("data", share.path()),
        ("files", files.path()),
    ]);
    let guest = machine.guest();
    mount_root(guest, true);

    for id in [
        mount(guest, "data", "/mnt/deep/data", "", false),
        mount(guest, "files", "/etc/app/config", "config", true),
    ] {
        guest.wait_done(id);
    }
    let missing = mount(guest, "absent", "/mnt/absent", "", false);

    assert_eq!(guest.wait_failed(missing).stage, Stage::Mount);
    assert_eq!(
        run(guest, "cat /mnt/deep/data/note /etc/app/config"),
        "from the host\none file\n"
    );
    assert_eq!(run(guest, "echo from the guest > /mnt/deep/data/answer"), "");
    assert_eq!(
        fs::read_to_string(share.path().join("answer")).unwrap(),
        "from the guest\n"
    );
    assert!(run(guest, "echo x > /etc/app/config").contains("Read-only file system"));
    assert!(run(guest, "touch /anything").contains("Read-only file system"));
    assert!(machine.shut_down());
}

#[test]
fn bad_commands_and_floods_leave_the_first_process_alive() {
    let root = busybox_root();
    let mut machine = Machine::boot(&[("root", root.path())]);
    let guest = machine.guest();
    mount_root(guest, false);

    assert_eq!(guest.run(exec(&["no-such-program"]), b"").shell_code(), 127);
    assert_eq!(
        guest
            .run(exec(&["sh", "-c", "kill -9 1; kill -9 -1; echo unharmed"]), b"")
            .shell_code(),
        0
    );
    run(
        guest,
        "i=0; while [ $i -lt 50 ]; do (sleep 0.01 &); i=$((i+1)); done",
    );
    let ids: Vec<u32> = (0..30)
        .map(|n| guest.exec(exec(&["sh", "-c", &format!("exit {n}")]), b""))
        .collect();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(usize::from(guest.wait_over(id).shell_code()), n);
    }

    assert!(machine.shut_down());
}

#[test]
fn frozen_commands_stand_still_until_they_are_thawed() {
    let root = busybox_root();
    let mut machine = Machine::boot(&[("root", root.path())]);
    let guest = machine.guest();
    mount_root(guest, false);
    // What it starts stands still as well.
    let count =
        "echo 0 > /count; (n=0; while :; do n=$((n+1)); echo $n > /next; mv /next /count; done) & wait";
    guest.exec(exec(&["sh", "-c", count]), b"");
    let number = || fs::read_to_string(root.path().join("count")).unwrap_or_default();
    while number().len() <= 2 {
        guest.ping();
    }

    let id = guest.request(ToGuest::Freeze);
    guest.wait_done(id);
    let frozen = number();
    for _ in 0..100 {
        guest.ping();
    }
    assert_eq!(number(), frozen);

    let id = guest.request(ToGuest::Thaw);
    guest.wait_done(id);
    while number() == frozen {
        guest.ping();
    }
}
