//! What the tests of the program share: the program in a home of its own, and images to give it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program includes this and uses its own part"
)]

pub mod layout;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The program with an empty cache, no network's address and no configuration.
pub struct Program {
    home: TempDir,
}

pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it keeps images unless told otherwise.
    pub fn store(&self) -> PathBuf {
        self.home().join(".cache/crumblecracker/images")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        self.command_under(&[], words)
    }

    /// The program, started by another one that takes its words at the end of its own.
    pub fn command_under(&self, starter: &[&str], words: &[&str]) -> Command {
        let all = [starter, &[env!("CARGO_BIN_EXE_crumble")], words].concat();
        let mut command = Command::new(all[0]);
        command
            .args(&all[1..])
            .stdin(Stdio::null())
            .current_dir(self.home());
        command.env_clear().env("HOME", self.home());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    pub fn say(&self, words: &[&str]) -> Said {
        said(&mut self.command(words))
    }

    /// The reason of a failure that must be the program's own and told in one line.
    pub fn refusal(&self, words: &[&str]) -> String {
        refusal(&mut self.command(words))
    }
}

pub fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Said {
        status: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

pub fn refusal(command: &mut Command) -> String {
    let said = said(command);
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (125, ""),
        "{command:?}: {}",
        said.stderr
    );
    let reason = said
        .stderr
        .strip_prefix("crumble: ")
        .unwrap_or_else(|| panic!("{command:?}: {}", said.stderr));
    assert_eq!(reason.matches('\n').count(), 1, "{command:?}: {reason}");
    reason.trim_end().to_owned()
}
