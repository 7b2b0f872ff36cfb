//! A command in the guest with this program around it: streams, terminal, signals, time.

use std::io::{self, ErrorKind};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crumblecracker::Error;
use crumblecracker::session::{ExitStatus, Process, ProcessControl, ProcessOutput};
use signal_hook::consts::SIGTERM;

use crate::signals::{self, Signal};
use crate::terminal::{self, Raw};
use crate::{FAILED, print, streams};

/// Exit status of a command that ran out of time, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// How long a command may go on once it was told to end.
const GRACE: Duration = Duration::from_secs(2);
/// Two interrupts within this time end this program, whatever the command does.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// How a command is attached.
pub(crate) struct Attachment {
    /// What messages call the command.
    pub(crate) name: String,
    /// Whether standard input goes to the command.
    pub(crate) forward_input: bool,
    /// Whether the command has a terminal.
    pub(crate) terminal: bool,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
}

enum Happening {
    Ended(crumblecracker::Result<ExitStatus>, Vec<io::Error>),
    Signal(Signal),
}

/// Stays until the command has ended and its output is written; gives the exit status.
///
/// # Errors
/// A guest that is gone; streams or signals of this program that cannot be had.
pub(crate) fn follow(mut process: Process, attachment: &Attachment) -> Result<u8> {
    let (sender, happenings) = mpsc::channel();
    let tell = sender.clone();
    // Signals before raw mode: an end between the two would leave the terminal raw.
    signals::watch(move |signal| tell.send(Happening::Signal(signal)).is_ok())
        .context("cannot watch signals")?;
    let raw = if attachment.terminal && attachment.forward_input && terminal::is_input() {
        Some(Raw::enter().context("cannot set the terminal's modes")?)
    } else {
        None
    };
    let mut course = Course {
        control: process.control(),
        raw,
        terminal: attachment.terminal,
        deadline: attachment.timeout.map(|timeout| Instant::now() + timeout),
        ending: None,
        interrupted: None,
    };
    // The terminal may have changed before anybody watched.
    course.resize();
    let input = process.stdin.take();
    // A terminal whose input is closed hangs up: without forwarding it stays open and silent.
    let _silent = match input {
        Some(input) if attachment.forward_input => {
            let mut from = streams::unbuffered(io::stdin()).context("standard input")?;
            spawn("stdin", move || streams::copy_input(&mut from, input))?;
            None
        }
        silent => silent,
    };
    watch_end(process, sender)?;
    loop {
        let happening = match course.deadline {
            Some(deadline) => happenings.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => happenings.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match happening {
            Ok(Happening::Ended(status, lost)) => {
                drop(course.raw.take());
                return match course.ending {
                    Some(ending) => Ok(ending),
                    None => Ok(with_losses(told(status?, &attachment.name), &lost)),
                };
            }
            Ok(Happening::Signal(signal)) => {
                if let Some(status) = course.signal(signal, Instant::now()) {
                    return Ok(status);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = course.out_of_time() {
                    return Ok(status);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(FAILED),
        }
    }
}

/// Where this program stands between the command's start and its end.
struct Course {
    control: ProcessControl,
    raw: Option<Raw>,
    terminal: bool,
    deadline: Option<Instant>,
    /// The exit status once this program has decided to end.
    ending: Option<u8>,
    /// When the last interrupt came.
    interrupted: Option<Instant>,
}

impl Course {
    /// Acts on a signal; gives an exit status where this program must end at once.
    fn signal(&mut self, signal: Signal, now: Instant) -> Option<u8> {
        match signal {
            Signal::Resized => self.resize(),
            Signal::Continued => {
                if let Some(raw) = &self.raw {
                    raw.enter_again();
                }
                self.resize();
            }
            Signal::End(number) => {
                if signal == Signal::INTERRUPT {
                    let last = self.interrupted.replace(now);
                    if last.is_some_and(|last| now - last < IMPATIENCE) {
                        return Some(128 + number);
                    }
                }
                self.send(u32::from(number));
                // Keys reach the command as bytes: who signals this program by other means wants it gone.
                if self.terminal && self.ending.is_none() {
                    self.end_soon(128 + number);
                }
            }
        }
        None
    }

    /// The first time the command is told to end, the second time this program ends without it.
    fn out_of_time(&mut self) -> Option<u8> {
        if self.ending.is_some() {
            return self.ending;
        }
        self.send(SIGTERM as u32);
        self.end_soon(TIMED_OUT);
        None
    }

    fn end_soon(&mut self, status: u8) {
        self.ending = Some(status);
        self.deadline = Some(Instant::now() + GRACE);
    }

    fn send(&self, number: u32) {
        // A guest that is gone tells so by the command's end.
        let _ = self.control.signal(number);
    }

    fn resize(&self) {
        if self.terminal
            && let Some((rows, columns)) = terminal::size()
        {
            // As above.
            let _ = self.control.resize(rows, columns);
        }
    }
}

/// Forwards output on threads of its own and tells the end once all of it is written.
fn watch_end(mut process: Process, sender: Sender<Happening>) -> Result<()> {
    let stdout = forward(
        process.stdout.take(),
        "stdout",
        streams::unbuffered(io::stdout())?,
    )?;
    let stderr = forward(
        process.stderr.take(),
        "stderr",
        streams::unbuffered(io::stderr())?,
    )?;
    spawn("end", move || {
        let status = process.wait();
        let ends = [stdout, stderr].into_iter().flatten().map(JoinHandle::join);
        let lost = ends.filter_map(|end| end.ok().and_then(Result::err)).collect();
        // Nobody listens where this program has ended before the command.
        let _ = sender.send(Happening::Ended(status, lost));
    })?;
    Ok(())
}

/// Copies one output on a thread. The command's end of it is closed as soon as nobody takes it here.
fn forward(
    output: Option<ProcessOutput>,
    name: &str,
    mut to: std::fs::File,
) -> Result<Option<JoinHandle<io::Result<()>>>> {
    output
        .map(|output| spawn(name, move || streams::copy_output(output, &mut to)))
        .transpose()
}

fn spawn<T: Send + 'static>(name: &str, act: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(act)
        .context("cannot start a thread")
}

/// The command's exit status, said where it never ran.
fn told(status: ExitStatus, command: &str) -> u8 {
    if let ExitStatus::NotExecuted(failure) = status {
        print::error_line(&format!("{command}: {}", Error::Exec(failure)));
    }
    status.code()
}

/// Output that could not be written makes a success a failure; a reader who has seen enough does not.
fn with_losses(status: u8, lost: &[io::Error]) -> u8 {
    let mut status = status;
    for error in lost.iter().filter(|error| error.kind() != ErrorKind::BrokenPipe) {
        print::error_line(&format!("output of the command is lost: {error}"));
        status = if status == 0 { FAILED } else { status };
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_turn_success_into_failure() {
        let full = [io::Error::from(ErrorKind::StorageFull)];

        assert_eq!(with_losses(0, &full), FAILED);
        assert_eq!(with_losses(3, &full), 3);
    }

    #[test]
    fn losses_to_a_closed_pipe_are_none() {
        assert_eq!(with_losses(0, &[io::Error::from(ErrorKind::BrokenPipe)]), 0);
    }
}
