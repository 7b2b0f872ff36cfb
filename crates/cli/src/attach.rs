//! A command in the guest with this program around it: streams, terminal, signals, time.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crumblecracker::instances::RemoteControl;
use crumblecracker::session::{Ended, ProcessControl, Streams};
use signal_hook::consts::SIGTERM;

use crate::signals::{self, Signal};
use crate::terminal::{self, Raw};
use crate::{FAILED, print};

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

/// What reaches a command, wherever its guest is.
pub(crate) trait Control {
    /// Sends it a signal. A guest that is gone tells so by the command's end.
    fn signal(&self, number: u32);
    /// Tells its terminal the size. As above.
    fn resize(&self, rows: u16, columns: u16);
}

impl Control for ProcessControl {
    fn signal(&self, number: u32) {
        let _ = Self::signal(self, number);
    }

    fn resize(&self, rows: u16, columns: u16) {
        let _ = Self::resize(self, rows, columns);
    }
}

impl Control for RemoteControl {
    fn signal(&self, number: u32) {
        let _ = Self::signal(self, number);
    }

    fn resize(&self, rows: u16, columns: u16) {
        let _ = Self::resize(self, rows, columns);
    }
}

enum Happening {
    Ended(crumblecracker::Result<Ended>),
    Signal(Signal),
}

/// This program's own streams for a command, without standard input where that is not forwarded.
///
/// # Errors
/// One that is closed.
pub(crate) fn streams(forward_input: bool) -> Result<Streams> {
    let unbuffered = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(File::from);
    let input = match forward_input {
        true => Some(unbuffered(&io::stdin()).context("standard input")?),
        false => None,
    };
    Ok(Streams {
        input,
        output: unbuffered(&io::stdout()).context("standard output")?,
        error: unbuffered(&io::stderr()).context("standard error")?,
    })
}

/// Stays until `until_end` has seen the command end, which it begins to copy the streams of; gives the exit status.
///
/// # Errors
/// A guest that is gone; signals or a terminal of this program that cannot be had.
pub(crate) fn follow(
    control: impl Control,
    until_end: impl FnOnce() -> crumblecracker::Result<Ended> + Send + 'static,
    attachment: &Attachment,
) -> Result<u8> {
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
        control,
        raw,
        terminal: attachment.terminal,
        deadline: attachment.timeout.map(|timeout| Instant::now() + timeout),
        ending: None,
        interrupted: None,
    };
    // The terminal may have changed before anybody watched.
    course.resize();
    let end = thread::Builder::new().name("end".to_owned());
    // Nobody listens where this program has ended before the command.
    end.spawn(move || sender.send(Happening::Ended(until_end())))
        .context("cannot start a thread")?;
    loop {
        let happening = match course.deadline {
            Some(deadline) => happenings.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => happenings.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match happening {
            Ok(Happening::Ended(ended)) => {
                drop(course.raw.take());
                return match course.ending {
                    Some(ending) => Ok(ending),
                    None => Ok(told(&ended?, &attachment.name)),
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
struct Course<C> {
    control: C,
    raw: Option<Raw>,
    terminal: bool,
    deadline: Option<Instant>,
    /// The exit status once this program has decided to end.
    ending: Option<u8>,
    /// When the last interrupt came.
    interrupted: Option<Instant>,
}

impl<C: Control> Course<C> {
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
                self.control.signal(u32::from(number));
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
        self.control.signal(SIGTERM as u32);
        self.end_soon(TIMED_OUT);
        None
    }

    fn end_soon(&mut self, status: u8) {
        self.ending = Some(status);
        self.deadline = Some(Instant::now() + GRACE);
    }

    fn resize(&self) {
        if self.terminal
            && let Some((rows, columns)) = terminal::size()
        {
            self.control.resize(rows, columns);
        }
    }
}

/// The command's exit status, said where it never ran. Output that could not be written makes a success a failure.
fn told(ended: &Ended, command: &str) -> u8 {
    if let Some(reason) = &ended.not_executed {
        print::error_line(&format!("{command}: {reason}"));
    }
    for reason in &ended.lost {
        print::error_line(&format!("output of the command is lost: {reason}"));
    }
    match ended.code {
        0 if !ended.lost.is_empty() => FAILED,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: u8, lost: &[&str]) -> Ended {
        Ended {
            code,
            not_executed: None,
            lost: lost.iter().map(|reason| (*reason).to_owned()).collect(),
        }
    }

    #[test]
    fn losses_turn_success_into_failure() {
        assert_eq!(told(&ended(0, &["no space"]), "x"), FAILED);
        assert_eq!(told(&ended(3, &["no space"]), "x"), 3);
        assert_eq!(told(&ended(0, &[]), "x"), 0);
    }
}
