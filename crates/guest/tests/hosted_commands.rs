//! The guest program as init of a container: commands, their identity and their end.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Guest, command};
use guest_protocol::{ExecFailure, ExitStatus, Stage, Stdio, Stream, ToGuest, wire};

const SILENT: Stdio = Stdio::Pipes {
    stdin: false,
    stdout: false,
    stderr: false,
};

#[test]
fn hello_names_this_machine() {
    let guest = Guest::start();

    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let hex: String = guest
        .hello
        .boot_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(guest.hello.release, release.trim());
    assert_eq!(hex, boot_id.trim().replace('-', ""));
    assert_eq!(guest.hello.slots, wire::MAX_PROCESSES);
}

#[test]
fn command_exiting_with_zero_and_seven_reports_them() {
    let mut guest = Guest::start();

    assert_eq!(guest.run(command(&["true"]), b"").shell_code(), 0);
    assert_eq!(guest.run(command(&["sh", "-c", "exit 7"]), b"").shell_code(), 7);
}

#[test]
fn command_killed_by_signal_reports_it() {
    let mut guest = Guest::start();

    let process = guest.run(command(&["sh", "-c", "kill -9 $$"]), b"");

    assert_eq!(
        process.exited.unwrap().status,
        ExitStatus::Signal {
            signal: 9,
            core_dumped: false
        }
    );
    assert_eq!(process.shell_code(), 137);
}

#[test]
fn command_that_burns_time_reports_its_use() {
    let mut guest = Guest::start();

    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    let exited = guest.run(command(&["sh", "-c", script]), b"").exited.unwrap();

    assert!(exited.user_us > 0);
    assert!(exited.max_rss_kib > 0);
}

#[test]
fn program_that_does_not_exist_fails_as_127() {
    let mut guest = Guest::start();

    let process = guest.run(command(&["no-such-program"]), b"");

    assert_eq!(
        process.failed,
        Some(ExecFailure {
            errno: 2,
            stage: Stage::Exec
        })
    );
    assert_eq!(process.shell_code(), 127);
}

#[test]
fn program_that_may_not_be_executed_fails_as_126() {
    let mut guest = Guest::start();

    let process = guest.run(command(&["/etc/passwd"]), b"");

    assert_eq!(
        process.failed,
        Some(ExecFailure {
            errno: 13,
            stage: Stage::Exec
        })
    );
    assert_eq!(process.shell_code(), 126);
}

#[test]
fn program_of_unknown_format_fails_as_126() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd");
    std::fs::write(&path, "no interpreter line\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut guest = Guest::start();

    let process = guest.run(command(&[path.to_str().unwrap()]), b"");

    assert_eq!(
        process.failed,
        Some(ExecFailure {
            errno: 8,
            stage: Stage::Exec
        })
    );
    assert_eq!(process.shell_code(), 126);
}

#[test]
fn path_search_uses_the_commands_own_path_and_passes_over_what_it_may_not_execute() {
    let directory = tempfile::tempdir().unwrap();
    for (name, mode, answer) in [("first", 0o644, "wrong"), ("second", 0o755, "right")] {
        let path = directory.path().join(name).join("answer");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\necho {answer}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let root = directory.path().display();
    let mut exec = command(&["answer"]);
    exec.env = vec![format!("PATH=/nowhere:{root}/first:/etc/passwd:{root}/second:/bin").into_bytes()];
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), "right\n");
}

#[test]
fn environment_is_exactly_what_was_sent() {
    let mut exec = command(&["/usr/bin/env"]);
    exec.env = vec![b"A=1".to_vec(), b"B=two words".to_vec()];
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), "A=1\nB=two words\n");
}

#[test]
fn identity_is_the_one_asked_for() {
    let mut exec = command(&["sh", "-c", "id -u; id -g; id -G"]);
    (exec.uid, exec.gid, exec.groups) = (1234, 2345, vec![2345, 77, 88]);
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), "1234\n2345\n2345 77 88\n");
}

#[test]
fn unprivileged_command_can_open_its_own_stdout_again() {
    let mut exec = command(&["sh", "-c", "echo again > /proc/self/fd/1"]);
    (exec.uid, exec.gid) = (1234, 2345);
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), "again\n");
}

#[test]
fn working_directory_is_entered_before_privileges_are_given_up() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = directory.path().to_str().unwrap();
    let mut exec = command(&["readlink", "/proc/self/cwd"]);
    (exec.cwd, exec.uid, exec.gid) = (path.as_bytes().to_vec(), 1234, 2345);
    let mut guest = Guest::start();

    assert_eq!(guest.run(exec, b"").stdout(), format!("{path}\n"));
}

#[test]
fn working_directory_that_is_missing_fails_unless_it_may_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/c");
    let mut exec = command(&["pwd"]);
    exec.cwd = path.to_str().unwrap().as_bytes().to_vec();
    let mut guest = Guest::start();

    let failure = guest.run(exec.clone(), b"").failed;
    exec.create_cwd = true;
    let made = guest.run(exec, b"").stdout();

    assert_eq!(
        failure,
        Some(ExecFailure {
            errno: 2,
            stage: Stage::Cwd
        })
    );
    assert_eq!(made, format!("{}\n", path.display()));
}

#[test]
fn command_starts_with_clean_signals_descriptors_and_session() {
    let mut guest = Guest::start();

    let signals = guest.run_sh("grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'");
    let descriptors = guest.run(command(&["ls", "/proc/self/fd"]), b"").stdout();
    let session = guest.run_sh("cut -d' ' -f1,5,6 /proc/$$/stat | tr ' ' '\\n' | uniq | wc -l");

    assert_eq!(signals, "SigBlk:0000000000000000SigIgn:0000000000000000");
    assert_eq!(descriptors, "0\n1\n2\n3\n", "3 is the directory ls reads");
    assert_eq!(session, "1\n", "pid, group and session are one number");
}

#[test]
fn streams_not_asked_for_are_dev_null() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let script = format!("seen=$(readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2); echo $seen > {path}");
    let mut exec = command(&["sh", "-c", &script]);
    exec.stdio = SILENT;
    let mut guest = Guest::start();

    guest.run(exec, b"");

    assert_eq!(
        std::fs::read_to_string(file.path()).unwrap(),
        "/dev/null /dev/null /dev/null\n"
    );
}

#[test]
fn signal_reaches_the_whole_process_group() {
    let mut guest = Guest::start();
    let id = guest.sh("sleep 1000 & echo ready; wait");
    guest.wait_output(id, "ready");

    guest.send(id, ToGuest::Signal(15));

    // Both outputs end only when the sleep is gone as well.
    assert_eq!(guest.wait_over(id).shell_code(), 128 + 15);
}

#[test]
fn signal_sent_right_after_exec_is_not_lost() {
    let mut guest = Guest::start();

    let id = guest.exec(command(&["sleep", "1000"]), b"");
    guest.send(id, ToGuest::Signal(10));

    assert_eq!(guest.wait_over(id).shell_code(), 128 + 10);
}

#[test]
fn orphans_are_reaped() {
    let mut guest = Guest::start();

    guest.run_sh("(sleep 0.1 & sleep 0.1 & sleep 0.1 &) > /dev/null 2>&1");

    let script = "while grep -l sleep /proc/[0-9]*/comm; do sleep 0.05; done > /dev/null 2>&1; \
                  cat /proc/[0-9]*/stat | grep -c ' Z '";
    assert_eq!(guest.run_sh(script), "0\n");
}

#[test]
fn exit_is_reported_while_a_background_process_holds_the_output() {
    let mut guest = Guest::start();
    let id = guest.sh("sleep 1000 & echo done");

    guest.wait(|guest| guest.processes[&id].exited.is_some());

    assert_eq!(
        guest.processes[&id].stdout(),
        "done\n",
        "all it wrote came before Exited"
    );
    assert_eq!(guest.processes[&id].eof, [false, false]);
}

#[test]
fn exit_is_reported_while_a_background_process_keeps_writing() {
    let mut guest = Guest::start();
    let id = guest.sh("yes & echo $! > /dev/null");

    guest.wait(|guest| guest.processes[&id].exited.is_some());

    guest.send(id, ToGuest::Close(Stream::Stdout));
    guest.send(id, ToGuest::Close(Stream::Stderr));
    guest.ping();
}

#[test]
fn closed_outputs_of_an_ended_process_free_its_slot() {
    let mut guest = Guest::start();
    for _ in 0..wire::MAX_PROCESSES + 10 {
        let id = guest.sh("sleep 1000 &");
        guest.wait(|guest| guest.processes[&id].exited.is_some());
        guest.send(id, ToGuest::Close(Stream::Stdout));
        guest.send(id, ToGuest::Close(Stream::Stderr));
    }

    assert_eq!(guest.run_sh("echo still here"), "still here\n");
}

#[test]
fn as_many_commands_as_slots_run_at_once_and_one_more_is_refused() {
    let mut guest = Guest::start();
    let ids: Vec<u32> = (0..wire::MAX_PROCESSES)
        .map(|n| guest.sh(&format!("read line; echo {n}")))
        .collect();
    // Their stdin has ended already, so they end as soon as they like; new ones that wait take all slots.
    for id in ids {
        guest.wait_over(id);
    }
    let mut waiting = Vec::new();
    for _ in 0..wire::MAX_PROCESSES {
        let mut exec = command(&["sleep", "1000"]);
        exec.stdio = SILENT;
        waiting.push(guest.exec(exec, b""));
    }

    let refused = guest.run(command(&["true"]), b"").failed;
    for id in &waiting {
        guest.send(*id, ToGuest::Signal(9));
        assert_eq!(guest.wait_over(*id).shell_code(), 137);
    }

    assert_eq!(
        refused,
        Some(ExecFailure {
            errno: 11,
            stage: Stage::Slot
        })
    );
    assert_eq!(guest.run_sh("echo again"), "again\n");
}

#[test]
fn shutdown_with_grace_lets_commands_finish() {
    let mut guest = Guest::start();
    let path = tempfile::NamedTempFile::new().unwrap();
    let script = format!(
        "trap 'echo saved > {}; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
        path.path().display()
    );
    let id = guest.sh(&script);
    guest.wait_output(id, "ready");

    assert_eq!(guest.shut_down(10_000), Some(0));
    assert_eq!(std::fs::read_to_string(path.path()).unwrap(), "saved\n");
}

#[test]
fn shutdown_without_grace_reports_what_it_killed() {
    let mut guest = Guest::start();
    let id = guest.sh("echo ready; sleep 1000");
    guest.wait_output(id, "ready");

    let request = guest.request(ToGuest::Shutdown(guest_protocol::Shutdown {
        restart: false,
        grace_ms: 0,
    }));
    guest.wait_done(request);

    assert_eq!(guest.processes[&id].shell_code(), 137);
}

#[test]
fn host_that_hangs_up_ends_everything() {
    let mut guest = Guest::start();
    let id = guest.sh("echo ready; sleep 1000");
    guest.wait_output(id, "ready");

    assert_eq!(guest.hang_up(), Some(0));
}
