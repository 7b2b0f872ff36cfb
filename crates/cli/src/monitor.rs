//! The process that a guest with a name lives in, its monitor: this program once more.
//!
//! It has the words it is given after `--monitor`; its standard input is the lock of the guest's claim, its standard
//! output the pipe on which it says `ready` or what failed, its standard error the guest's log.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use crumblecracker::instances::{Claim, Monitor};
use rustix::process::setsid;
use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::FAILED;
use crate::print::{self, Stderr};
use crate::signals::{self, Signal};

/// What a monitor says when its guest is up.
const READY: &str = "ready\n";

/// A monitor that is about to say whether its guest is up.
pub(crate) struct Starting(ChildStdout);

/// What a monitor said.
pub(crate) enum Said {
    Ready,
    /// Lines for standard error.
    Failed(String),
}

impl Said {
    /// Prints the name of a guest that is up, or why it is not; the exit status.
    pub(crate) fn tell(&self, name: &str) -> u8 {
        match self {
            Self::Ready => print::text(&format!("{name}\n")),
            Self::Failed(lines) => {
                Stderr.say(lines);
                FAILED
            }
        }
    }
}

/// Starts the monitor that is to have `claim`, with these words.
pub(crate) fn spawn(claim: Claim, words: impl IntoIterator<Item = OsString>) -> Result<Starting> {
    let cannot = "cannot start the guest's monitor";
    let log = claim.log()?.file()?;
    let program = env::args_os().next().unwrap_or_default();
    let lock = claim.hand_over().map_or_else(Stdio::null, Stdio::from);
    let mut command = Command::new(env::current_exe().context(cannot)?);
    command
        .arg0(program)
        .arg("--monitor")
        .args(words)
        .stdin(lock)
        .stdout(Stdio::piped())
        .stderr(log);
    let child = command.spawn().context(cannot)?;
    child.stdout.map(Starting).context(cannot)
}

impl Starting {
    /// Waits until it says so.
    pub(crate) fn wait(mut self) -> Result<Said> {
        let mut said = String::new();
        let read = self.0.read_to_string(&mut said);
        read.context("cannot hear the guest's monitor")?;
        match said.as_str() {
            READY => Ok(Said::Ready),
            "" => anyhow::bail!("the guest's monitor ended before the guest was up"),
            _ => Ok(Said::Failed(said)),
        }
    }
}

/// Is a monitor, until the guest ends that `bring_up` makes for the claim with this lock.
pub(crate) fn serve(bring_up: impl FnOnce(File) -> Result<Monitor>) -> Result<u8> {
    let lock = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answer = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    detach().context("cannot leave the terminal")?;
    let monitor = match bring_up(lock) {
        Ok(monitor) => monitor,
        Err(error) => {
            answer.write_all(print::error_text(&error).as_bytes())?;
            return Ok(FAILED);
        }
    };
    let stopper = monitor.stopper();
    let obey = move |signal| {
        if matches!(signal, Signal::End(_)) {
            stopper.stop();
        }
        true
    };
    signals::watch(obey).context("cannot watch signals")?;
    // No file system of the host is held up by a guest.
    env::set_current_dir("/")?;
    // Nobody waits any more where this fails: then nobody wants the guest either.
    answer.write_all(READY.as_bytes())?;
    drop(answer);
    monitor.serve()?;
    Ok(0)
}

/// Leaves the session, so that no terminal ends what goes on without it, and the streams others wait on.
fn detach() -> Result<()> {
    setsid()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    Ok(())
}
