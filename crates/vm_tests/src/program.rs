//! The command line under test, which `CC_PROGRAM` names.

use std::env;
use std::process::{Command, Output, Stdio};

/// `cc` with these words after it.
///
/// # Panics
/// Where `CC_PROGRAM` is not set.
pub fn cc(words: &[&str]) -> Command {
    let program = env::var("CC_PROGRAM").expect("CC_PROGRAM names the program under test");
    captured(&[&[program.as_str()], words].concat())
}

/// `cc run`, which asks no network, with these words after it.
///
/// # Panics
/// Where `CC_PROGRAM` is not set.
pub fn cc_run(words: &[&str]) -> Command {
    cc_run_under(&[], words)
}

/// The same, started by another program that takes it at the end of its words.
///
/// # Panics
/// As [`cc_run`].
pub fn cc_run_under(starter: &[&str], words: &[&str]) -> Command {
    let program = env::var("CC_PROGRAM").expect("CC_PROGRAM names the program under test");
    captured(&[starter, &[&program, "run", "--pull", "never"], words].concat())
}

fn captured(all: &[&str]) -> Command {
    let mut command = Command::new(all[0]);
    command
        .args(&all[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Status, standard output and standard error.
pub fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs a command to its end, which must say nothing on standard error.
///
/// # Panics
/// Where it does, and where it cannot be started.
pub fn quiet_output(words: &[&str]) -> (Option<i32>, String) {
    let output = cc_run(words).output().expect("cc can be started");
    let (status, stdout, stderr) = said(&output);
    assert_eq!(stderr, "", "{words:?}");
    (status, stdout)
}
