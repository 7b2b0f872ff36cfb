//! A folder of running guests of a test's own.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::USERLAND;
use crate::program::{cc, said};

/// What a command gave: status, standard output, standard error.
pub type Said = (Option<i32>, String, String);

/// A folder of running guests of its own. Those that still run at its end are ended.
pub struct Place(TempDir);

impl Place {
    /// One with no guest in it.
    ///
    /// # Panics
    /// Where no folder can be made; so do all others where `cc` cannot be started.
    #[expect(clippy::new_without_default, reason = "it makes something")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    /// `cc` with these words after it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = cc(words);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        command
    }

    /// What it gives with empty input.
    pub fn cc(&self, words: &[&str]) -> Said {
        said(&self.command(words).output().expect("cc can be started"))
    }

    /// What it gives with this input.
    pub fn cc_with(&self, input: &[u8], words: &[&str]) -> Said {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("cc can be started");
        let stdin = child.stdin.take();
        thread::scope(|scope| {
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
            said(&child.wait_with_output().expect("cc ends"))
        })
    }

    /// Starts a guest with a name; options, image and command follow.
    pub fn start(&self, name: &str, words: &[&str]) -> Said {
        self.cc(&[&["start", "--pull", "never", "--name", name], words].concat())
    }

    /// Starts a guest that does nothing by itself.
    pub fn start_idle(&self, name: &str) {
        let options = ["--entrypoint", "", USERLAND];
        assert_eq!(self.start(name, &options), told(0, &format!("{name}\n")));
    }

    /// What runs, a name a line.
    pub fn names(&self) -> String {
        let (status, names, errors) = self.cc(&["--quiet", "ps"]);
        assert_eq!((status, errors.as_str()), (Some(0), ""));
        names
    }

    /// Sends a guest's monitor a signal.
    pub fn signal_monitor(&self, name: &str, number: Signal) {
        let about = fs::read_to_string(self.folder().join(name).join("about")).expect("the guest runs");
        let pid = about
            .split("\"pid\":")
            .nth(1)
            .and_then(|rest| rest.split([',', '}']).next());
        let pid = pid.and_then(|digits| digits.parse().ok());
        signal(pid.expect("it says its process id"), number);
    }

    /// Where the running guests are.
    pub fn folder(&self) -> PathBuf {
        self.0.path().join("crumblecracker/instances")
    }
}

/// Sends a process a signal.
///
/// # Panics
/// Where it is gone.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("the process is there");
}

impl Drop for Place {
    fn drop(&mut self) {
        let names = self.cc(&["--quiet", "ps"]).1;
        for name in names.lines() {
            self.cc(&["stop", "--time", "0", name]);
        }
    }
}

/// That status, that output, and nothing on standard error.
pub fn told(status: i32, output: &str) -> Said {
    (Some(status), output.to_owned(), String::new())
}

/// Waits until something is so.
pub fn wait_until(so: impl Fn() -> bool) {
    while !so() {
        thread::sleep(std::time::Duration::from_millis(20));
    }
}
