//! Commands in one guest: what they see, what they give back.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crumblecracker::{Command, Instance, InstanceOptions};
use vm_tests::{Host, Output, bash, command, finish, run};

/// One guest for all these tests: it must bear them all.
static GUEST: LazyLock<Mutex<Instance>> = LazyLock::new(|| {
    let options = InstanceOptions {
        hostname: "crumb".to_owned(),
        ..InstanceOptions::default()
    };
    Mutex::new(
        Host::open()
            .and_then(|host| Ok(host.start(&options)?))
            .expect("a guest"),
    )
});

fn guest() -> MutexGuard<'static, Instance> {
    GUEST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn printed(line: &str) -> String {
    let output = bash(&guest(), line).unwrap();
    assert_eq!(
        (output.status, output.stderr.as_str()),
        (0, ""),
        "{line}: {output:?}"
    );
    output.stdout
}

#[test]
fn exit_status_is_the_commands() {
    assert_eq!(bash(&guest(), "exit 7").unwrap().status, 7);
    assert_eq!(bash(&guest(), "kill -TERM $$").unwrap().status, 128 + 15);
}

#[test]
fn missing_and_forbidden_programs_are_127_and_126() {
    assert_eq!(run(&guest(), &command(&["no-such-program"])).unwrap().status, 127);
    assert_eq!(run(&guest(), &command(&["/etc/passwd"])).unwrap().status, 126);
    // The guest outlives them.
    assert_eq!(printed("echo alive"), "alive\n");
}

#[test]
fn standard_streams_stay_apart() {
    let output = bash(&guest(), "echo out; echo err >&2").unwrap();
    assert_eq!(
        output,
        Output {
            status: 0,
            stdout: "out\n".into(),
            stderr: "err\n".into()
        }
    );
}

#[test]
fn standard_input_of_megabytes_arrives_whole() {
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let sum = Command {
        stdin: true,
        ..command(&["cksum"])
    };
    let process = guest().spawn(&sum).unwrap();
    let output = finish(process, &bytes).unwrap();
    let mut host = std::process::Command::new("cksum");
    let mut child = host
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let expected = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, String::from_utf8(expected.stdout).unwrap());
}

#[test]
fn output_of_megabytes_arrives_whole() {
    let output = bash(&guest(), "seq 1 300000").unwrap();
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(output.stdout == expected, "{} bytes", output.stdout.len());
}

#[test]
fn user_groups_home_and_folder_are_as_asked() {
    let as_mail = Command {
        user: Some("mail".into()),
        working_dir: Some("/made/here".into()),
        ..command(&["bash", "-c", "id -un; id -gn; echo $HOME; pwd; echo $X"])
    };
    let as_mail = Command {
        env: vec!["X=y z".into()],
        ..as_mail
    };
    assert_eq!(
        run(&guest(), &as_mail).unwrap().stdout,
        "mail\nmail\n/var/mail\n/made/here\ny z\n"
    );
    let by_number = Command {
        user: Some("1234:5678".into()),
        ..command(&["id", "-u"])
    };
    assert_eq!(run(&guest(), &by_number).unwrap().stdout, "1234\n");
}

#[test]
fn kernel_file_systems_are_mounted() {
    let types = printed("findmnt -rno TARGET,FSTYPE | sort");
    for line in [
        "/ virtiofs",
        "/dev devtmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/proc proc",
        "/run tmpfs",
    ] {
        assert!(
            types.lines().any(|mounted| mounted == line),
            "{line} is missing in\n{types}"
        );
    }
    assert!(
        types.contains("/sys sysfs") && types.contains("/sys/fs/cgroup cgroup2"),
        "{types}"
    );
    assert_eq!(printed("uname -n; cat /etc/hostname"), "crumb\ncrumb\n");
}

#[test]
fn files_written_are_read_back_and_links_and_modes_hold() {
    let line = "cd /root && printf abc >a && ln a b && ln -s b c && chmod 640 a && mkdir d && mv c d/ && \
                stat -c '%h %a %s' b && readlink d/c && rm -r d && ls";
    assert_eq!(printed(line), "2 640 3\nb\na\nb\n");
}

#[test]
fn interpreters_do_real_work() {
    assert_eq!(
        printed("python3 -c 'print(2**100)'"),
        "1267650600228229401496703205376\n"
    );
    assert_eq!(
        printed("perl -e 'print join(q(,), map { $_ ** 2 } 1..5)'"),
        "1,4,9,16,25"
    );
    assert_eq!(
        printed("seq 1 1000 | sort -R | sort -n | tail -1; echo $((7 * 6))"),
        "1000\n42\n"
    );
}

#[test]
fn many_commands_at_once_do_not_disturb_each_other() {
    let guest = guest();
    let processes: Vec<_> = (0..20)
        .map(|n| {
            guest
                .spawn(&command(&[
                    "bash",
                    "-c",
                    &format!("sleep 0.2; echo {n}; exit {n}"),
                ]))
                .unwrap()
        })
        .collect();
    for (n, process) in (0..).zip(processes) {
        let output = finish(process, b"").unwrap();
        assert_eq!((output.status, output.stdout), (n, format!("{n}\n")));
    }
}

#[test]
fn unread_output_of_one_command_does_not_stop_another() {
    let guest = guest();
    let stalled = guest
        .spawn(&command(&["bash", "-c", "yes | head -c 2000000"]))
        .unwrap();
    assert_eq!(bash(&guest, "echo on").unwrap().stdout, "on\n");
    let output = finish(stalled, b"").unwrap();
    assert_eq!((output.status, output.stdout.len()), (0, 2_000_000));
}

#[test]
fn signals_reach_the_command() {
    let process = guest().spawn(&command(&[
        "bash",
        "-c",
        "trap 'echo got; exit 3' INT; echo up; sleep 60 & wait",
    ]));
    let mut process = process.unwrap();
    let control = process.control();
    let mut up = [0; 3];
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut up).unwrap();
    control.signal(2).unwrap();
    let output = finish(process, b"").unwrap();
    assert_eq!((output.status, output.stdout.as_str()), (3, "got\n"));
}

#[test]
fn terminal_has_the_size_asked_for_and_follows_changes() {
    let terminal = Command {
        terminal: Some((30, 99)),
        stdin: true,
        ..command(&[
            "bash",
            "-c",
            "tty; stty size; trap 'stty size; exit 0' WINCH; while :; do sleep 0.1; done",
        ])
    };
    let process = guest().spawn(&terminal).unwrap();
    let control = process.control();
    std::thread::sleep(Duration::from_millis(1500));
    control.resize(40, 120).unwrap();
    let output = finish(process, b"").unwrap();
    assert_eq!(output.stdout.replace('\r', ""), "/dev/pts/0\n30 99\n40 120\n");
}

#[test]
fn orphans_are_reaped() {
    printed("for n in 1 2 3 4 5; do (sleep 0.1 &) ; done");
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(printed("ps -e -o stat= | cut -c1 | sort -u | tr -dc Z"), "");
}
