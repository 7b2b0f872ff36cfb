//! The command line in real guests: `CC_PROGRAM` is `cc`, `CC_REGISTRY_IMAGE` an image it pulled from a
//! registry, which tells its user, folder, variable and words and then exits with status 9.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use vm_tests::USERLAND;
use vm_tests::program::{cc_run, quiet_output, said};

/// Feeds a child and waits for it.
fn fed(mut child: Child, input: &[u8]) -> Output {
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn cc_run_python_prints_what_it_computes() {
    let output = quiet_output(&[USERLAND, "python3", "-c", "print(2**100)"]);

    assert_eq!(output, (Some(0), "1267650600228229401496703205376\n".to_owned()));
}

#[test]
fn cc_run_piped_input_is_the_commands() {
    let guest = cc_run(&[USERLAND, "--", "sha256sum"])
        .stdin(Stdio::piped())
        .spawn();
    let host = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();

    let (guest, host) = (fed(guest.unwrap(), b"abc"), fed(host.unwrap(), b"abc"));

    assert_eq!(said(&guest), (Some(0), said(&host).1, String::new()));
}

#[test]
fn cc_run_file_written_to_a_volume_is_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let volume = format!("{}:/share", folder.path().display());
    let script = "seq 1 100000 >/share/made && mkdir /share/in && mv /share/made /share/in/";

    let output = quiet_output(&["-v", &volume, USERLAND, "--", "sh", "-c", script]);

    assert_eq!(output, (Some(0), String::new()));
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let made = fs::read_to_string(folder.path().join("in/made")).unwrap();
    assert!(made == expected, "{} bytes", made.len());
}

#[test]
fn cc_run_variables_folder_user_and_status_are_as_asked() {
    let script = "echo $A; echo $B; pwd; id -u; id -g; exit 7";
    let words = [
        &[
            "-e",
            "A=one two",
            "-e",
            "B",
            "-w",
            "/made/here",
            "-u",
            "1234:5678",
        ][..],
        &[USERLAND, "--", "sh", "-c", script],
    ]
    .concat();

    let output = cc_run(&words).env("B", "the host's").output().unwrap();

    let printed = "one two\nthe host's\n/made/here\n1234\n5678\n".to_owned();
    assert_eq!(said(&output), (Some(7), printed, String::new()));
}

#[test]
fn cc_run_image_that_is_not_in_the_cache_is_refused_in_one_line() {
    let (status, stdout, stderr) = said(&cc_run(&["no/such:image", "true"]).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(125), ""));
    assert!(
        stderr.contains("no/such:image") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn cc_run_missing_program_is_127_and_named_in_one_line() {
    let (status, stdout, stderr) = said(&cc_run(&[USERLAND, "no-such-program"]).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(127), ""));
    assert!(
        stderr.contains("no-such-program") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn cc_run_with_two_cpus_runs_busy_processes_on_both() {
    // The processor is the 39th field of a process's `stat` (proc_pid_stat(5)).
    let busy = "for ((n = 0; n < 20000; n++)); do :; done; read -ra f </proc/$BASHPID/stat; echo ${f[38]}";
    let script = format!(
        "nproc; busy() {{ {busy}; }}; export -f busy
         {{ taskset -c 0 bash -c busy & taskset -c 1 bash -c busy & wait; }} | sort"
    );

    let output = quiet_output(&["--cpus", "2", USERLAND, "--", "bash", "-c", &script]);

    assert_eq!(output, (Some(0), "2\n0\n1\n".to_owned()));
}

#[test]
fn cc_run_more_cpus_than_there_can_be_is_refused_in_one_line() {
    let (status, stdout, stderr) = said(&cc_run(&["--cpus", "100000", USERLAND, "true"]).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(125), ""));
    assert!(
        stderr.contains("100000 vCPUs is out of range") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn cc_run_timeout_ends_the_command_with_124() {
    let script = "echo up; sleep 600; echo late";
    let words = ["--timeout", "12", USERLAND, "--", "sh", "-c", script];

    let (status, stdout, _) = said(&cc_run(&words).output().unwrap());

    assert_eq!((status, stdout.as_str()), (Some(124), "up\n"));
}

#[test]
fn cc_run_terminate_signal_reaches_the_command() {
    let script = "trap 'echo got; exit 3' TERM; echo up; sleep 600 & wait";
    let mut cc = cc_run(&[USERLAND, "--", "bash", "-c", script]).spawn().unwrap();
    let mut up = [0; 3];
    cc.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();

    let kill = Command::new("sh")
        .args(["-c", "kill -TERM $0", &cc.id().to_string()])
        .status();

    assert!(kill.unwrap().success());
    let output = cc.wait_with_output().unwrap();
    assert_eq!(said(&output), (Some(3), "got\n".to_owned(), String::new()));
}

#[test]
fn cc_run_image_from_a_registry_runs_as_its_configuration_says() {
    let image = env::var("CC_REGISTRY_IMAGE").expect("CC_REGISTRY_IMAGE names the image");

    let output = quiet_output(&[&image]);

    assert_eq!(
        output,
        (Some(9), "1234\n/srv/app\nhello\napp from cmd\n".to_owned())
    );
}
