//! A running monitor, and what its guest says on the serial console.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;

/// `USER_HZ` of Linux on x86-64: the unit of the times in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// One line of the console.
pub(super) struct Line {
    /// When it was complete.
    pub(super) when: Instant,
    /// Processor time that the whole monitor had used by then, in seconds.
    pub(super) processor_seconds: f64,
    pub(super) text: String,
}

/// A monitor, killed when dropped.
pub(super) struct Monitor {
    process: Process,
    lines: Receiver<Line>,
    started: Instant,
    said: Vec<String>,
}

impl Monitor {
    /// Starts it; its standard output is the console.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) fn start(mut command: Command) -> Result<Monitor> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut process = Process(command.spawn().context("could not be started")?);
        let stdout = process.0.stdout.take().context("its standard output")?;
        let id = process.0.id();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = Line {
                    when: Instant::now(),
                    processor_seconds: processor_seconds(id).unwrap_or(f64::NAN),
                    text: String::from_utf8_lossy(&line).trim_end().to_owned(),
                };
                // Nobody listens any more once all is measured.
                let _ = sender.send(line);
            }
        });
        Ok(Monitor {
            process,
            lines,
            started,
            said: Vec::new(),
        })
    }

    /// The process's number.
    pub(super) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// From its start until `line`.
    pub(super) fn seconds_until(&self, line: &Line) -> f64 {
        (line.when - self.started).as_secs_f64()
    }

    /// Waits for a line with `text` in it, for each line before it at most `silence`.
    ///
    /// # Errors
    /// [`Silent`] where none comes.
    pub(super) fn wait_for(&mut self, text: &str, silence: Duration) -> Result<Line> {
        while let Ok(line) = self.lines.recv_timeout(silence) {
            if line.text.contains(text) {
                return Ok(line);
            }
            self.said.push(line.text);
        }
        bail!(Silent(text.to_owned(), self.said.join("\n")))
    }
}

/// A guest that does not speak.
#[derive(Debug)]
pub(super) struct Silent(String, String);

impl std::fmt::Display for Silent {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "the guest did not say {:?}; it said:\n{}", self.0, self.1)
    }
}

impl std::error::Error for Silent {}

fn processor_seconds(id: u32) -> Option<f64> {
    from_stat(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// User and system time of all threads (proc(5): fields 14 and 15; the second, in brackets, may hold blanks).
fn from_stat(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_name_with_blanks_times_are_found() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 3 0";

        assert_eq!(from_stat(stat), Some(4.0));
    }

    #[test]
    fn monitor_that_speaks_its_line_is_found() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo the second"]);

        let mut monitor = Monitor::start(command).unwrap();
        let line = monitor.wait_for("second", Duration::from_secs(60)).unwrap();

        assert_eq!(line.text, "the second");
    }

    #[test]
    fn monitor_that_ends_error_has_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo something"]);

        let mut monitor = Monitor::start(command).unwrap();
        let error = monitor.wait_for("else", Duration::from_secs(60)).err().unwrap();

        assert!(error.to_string().contains("something"));
    }
}
