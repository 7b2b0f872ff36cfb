//! Guests that have a name and go on when the command that started them has ended.

use std::fs;
use std::path::Path;
use std::thread;

use rustix::process::Signal;
use vm_tests::USERLAND;
use vm_tests::place::{Place, signal, told, wait_until};
use vm_tests::program::said;

#[test]
fn started_guest_runs_commands_until_it_is_stopped() {
    let place = Place::new();
    place.start_idle("box");

    let table = place.cc(&["ps"]).1;
    assert!(
        table.lines().count() == 2 && table.contains("box") && table.contains("bash"),
        "{table}"
    );
    let line = "echo to stdout; echo to stderr >&2; echo kept > /made; exit 3";
    assert_eq!(
        place.cc(&["exec", "box", "bash", "-c", line]),
        (Some(3), "to stdout\n".to_owned(), "to stderr\n".to_owned())
    );
    assert_eq!(
        place.cc_with(b"of the host\n", &["exec", "box", "cat", "/made", "-"]),
        told(0, "kept\nof the host\n")
    );
    assert_eq!(place.cc(&["stop", "box"]), told(0, ""));

    assert_eq!(place.names(), "");
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 1);
    let (status, _, errors) = place.cc(&["exec", "box", "true"]);
    assert!(
        status == Some(125) && errors.contains("no guest named box"),
        "{errors}"
    );
}

#[test]
fn commands_in_one_guest_do_not_wait_for_each_other() {
    let place = Place::new();
    place.start_idle("box");

    let mut reader = place
        .command(&["exec", "box", "bash", "-c", "mkfifo /f; cat /f"])
        .spawn()
        .unwrap();
    wait_until(|| place.cc(&["exec", "box", "test", "-p", "/f"]).0 == Some(0));
    assert_eq!(
        place.cc(&["exec", "box", "bash", "-c", "echo through > /f"]),
        told(0, "")
    );

    assert_eq!(reader.wait().unwrap().code(), Some(0));
    assert_eq!(said(&reader.wait_with_output().unwrap()).1, "through\n");
}

#[test]
fn large_input_and_output_of_a_command_arrive_whole() {
    let place = Place::new();
    place.start_idle("box");
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|number| b'a' + (number % 23) as u8)
        .collect();

    let (status, output, errors) = place.cc_with(&input, &["exec", "box", "cat"]);

    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert!(output.as_bytes() == input);
}

#[test]
fn names_taken_unknown_and_impossible_are_refused_in_one_line() {
    let place = Place::new();
    place.start_idle("box");

    for (words, reason) in [
        (
            &["start", "--name", "box", "--pull", "never", USERLAND][..],
            "running already",
        ),
        (
            &["start", "--name", "../box", "--pull", "never", USERLAND],
            "no name for a guest",
        ),
        (&["exec", "bag", "true"], "no guest named bag"),
        (&["logs", "bag"], "no guest named bag"),
        (&["stop", "bag"], "no guest named bag"),
        (&["exec", "box", "/not/there"], "/not/there"),
    ] {
        let (status, output, errors) = place.cc(words);
        let expected = if words[1] == "box" { 127 } else { 125 };
        assert_eq!(
            (status, output.as_str()),
            (Some(expected), ""),
            "{words:?}: {errors}"
        );
        assert!(
            errors.lines().count() == 1 && errors.contains(reason),
            "{words:?}: {errors}"
        );
    }
    assert_eq!(place.names(), "box\n");
}

#[test]
fn one_of_several_that_want_a_name_at_once_has_it() {
    let place = Place::new();
    let start = || place.start("box", &["--entrypoint", "", USERLAND]).0;

    let statuses = thread::scope(|scope| {
        let starts = [(); 4].map(|()| scope.spawn(start));
        let mut statuses = starts.map(|start| start.join().unwrap());
        statuses.sort();
        statuses
    });

    assert_eq!(statuses, [Some(0), Some(125), Some(125), Some(125)]);
    assert_eq!(place.cc(&["exec", "box", "true"]), told(0, ""));
}

#[test]
fn stop_ends_running_commands_and_they_tell_how() {
    let place = Place::new();
    place.start_idle("box");
    let line = "touch /ready; exec sleep 1000";
    let mut command = place
        .command(&["exec", "box", "bash", "-c", line])
        .spawn()
        .unwrap();
    wait_until(|| place.cc(&["exec", "box", "test", "-e", "/ready"]).0 == Some(0));

    assert_eq!(place.cc(&["stop", "box"]), told(0, ""));

    assert_eq!(command.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn guest_that_switches_itself_off_is_gone() {
    let place = Place::new();
    place.start_idle("box");

    let (status, _, errors) = place.cc(&[
        "exec",
        "box",
        "bash",
        "-c",
        "echo o > /proc/sysrq-trigger; sleep 1000",
    ]);

    assert!(
        status == Some(125) && errors.contains("the guest is gone"),
        "{errors}"
    );
    wait_until(|| place.names().is_empty());
}

#[test]
fn guest_that_cannot_start_says_why_and_leaves_nothing() {
    let place = Place::new();
    for words in [
        &[USERLAND, "/not/there"][..],
        &["--user", "nobody-of-that-name", USERLAND],
        &["--memory", "1", USERLAND],
    ] {
        let (status, output, errors) = place.start("box", words);
        assert_eq!((status, output.as_str()), (Some(125), ""), "{words:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{words:?}: {errors}");
        assert_eq!(place.names(), "");
    }
}

#[test]
fn main_process_writes_to_the_log_and_its_end_is_the_guests() {
    let place = Place::new();
    let line = "echo $A; id -u >&2; until test -e /end; do sleep 0.1; done";
    let words = ["-e", "A=said", "-u", "7", USERLAND, "bash", "-c", line];
    assert_eq!(place.start("box", &words), told(0, "box\n"));

    wait_until(|| place.cc(&["logs", "box"]).1.lines().count() == 2);
    let mut logged: Vec<_> = place.cc(&["logs", "box"]).1.lines().map(str::to_owned).collect();
    logged.sort();
    assert_eq!(logged, ["7", "said"]);
    // Commands have the variables and the user of the main process, unless they say otherwise.
    let line = "echo $A; id -u";
    assert_eq!(
        place.cc(&["exec", "box", "bash", "-c", line]),
        told(0, "said\n7\n")
    );
    assert_eq!(
        place.cc(&["exec", "-u", "0", "box", "touch", "/end"]),
        told(0, "")
    );

    wait_until(|| place.names().is_empty());
}

#[test]
fn command_with_a_terminal_has_one_and_gets_signals() {
    let place = Place::new();
    place.start_idle("box");
    let (status, output, _) = place.cc(&["exec", "-t", "box", "bash", "-c", "test -t 0 && stty size"]);
    assert_eq!((status, output.as_str()), (Some(0), "24 80\r\n"));

    let line = "trap 'exit 9' TERM; touch /ready; while :; do sleep 0.1; done";
    let mut command = place
        .command(&["exec", "box", "bash", "-c", line])
        .spawn()
        .unwrap();
    wait_until(|| place.cc(&["exec", "box", "test", "-e", "/ready"]).0 == Some(0));
    signal(command.id(), Signal::TERM);

    assert_eq!(command.wait().unwrap().code(), Some(9));
}

#[test]
fn client_that_is_killed_hangs_up_a_terminal_and_nothing_else() {
    let place = Place::new();
    place.start_idle("box");
    let line =
        |name: &str| format!("trap 'touch /{name}-hung-up' HUP; touch /{name}; while :; do sleep 0.1; done");
    for (options, name) in [(&["-t"][..], "terminal"), (&[], "plain")] {
        let line = line(name);
        let words = [&["exec"], options, &["box", "bash", "-c", &line]].concat();
        let mut client = place.command(&words).spawn().unwrap();
        wait_until(|| place.cc(&["exec", "box", "test", "-e", &format!("/{name}")]).0 == Some(0));
        client.kill().unwrap();
        client.wait().unwrap();
    }

    wait_until(|| place.cc(&["exec", "box", "test", "-e", "/terminal-hung-up"]).0 == Some(0));
    let (status, _, _) = place.cc(&["exec", "box", "test", "-e", "/plain-hung-up"]);
    assert_eq!(status, Some(1));
    assert_eq!(
        place.cc(&["exec", "box", "pgrep", "-fc", "touch /plain; w"]).0,
        Some(0)
    );
}

#[test]
fn killed_monitor_is_swept_and_its_name_is_free() {
    let place = Place::new();
    place.start_idle("box");

    place.signal_monitor("box", Signal::KILL);
    wait_until(|| place.names().is_empty());

    assert!(!Path::exists(&place.folder().join("box")));
    place.start_idle("box");
    assert_eq!(place.names(), "box\n");
}

#[test]
fn terminated_monitor_ends_its_guest_in_order() {
    let place = Place::new();
    let shared = tempfile::tempdir().unwrap();
    let volume = format!("{}:/share", shared.path().display());
    let line = "trap 'echo ended > /share/word; exit' TERM; touch /share/ready; while :; do sleep 0.1; done";
    let words = ["-v", &volume, USERLAND, "bash", "-c", line];
    assert_eq!(place.start("box", &words), told(0, "box\n"));
    wait_until(|| shared.path().join("ready").exists());

    place.signal_monitor("box", Signal::TERM);
    wait_until(|| place.names().is_empty());

    assert_eq!(fs::read_to_string(shared.path().join("word")).unwrap(), "ended\n");
}
