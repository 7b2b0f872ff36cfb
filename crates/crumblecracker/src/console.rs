//! What the guest's kernel says: kept for error messages, and shown where asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use device_backends::HostEnd;

use crate::{Error, Result};

/// How much of the console is kept, in bytes.
const KEPT: usize = 64 << 10;

/// Just too short for a large page, which the host could else give to the first byte touched.
const STACK_LEN: usize = 0x1f_0000;

/// Receives console output as it comes. Must not ask for what the console said.
pub type ConsoleSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The last of what a console said. Clones are the same console.
#[derive(Clone, Default)]
pub(crate) struct ConsoleLog {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    kept: VecDeque<u8>,
    consoles: Vec<(HostEnd, Option<ConsoleSink>)>,
}

impl Shared {
    /// Takes what the consoles have said until now.
    fn catch_up(&mut self) {
        let mut bytes = [0; 4096];
        for (console, sink) in &self.consoles {
            while let count @ 1.. = console.read_available(&mut bytes) {
                if let Some(sink) = sink {
                    sink(&bytes[..count]);
                }
                self.kept.extend(&bytes[..count]);
                let excess = self.kept.len().saturating_sub(KEPT);
                self.kept.drain(..excess);
            }
        }
    }
}

impl ConsoleLog {
    /// Reads `console` on a thread until it ends.
    pub(crate) fn follow(&self, console: HostEnd, sink: Option<ConsoleSink>) -> Result<JoinHandle<()>> {
        self.lock().consoles.push((console.clone(), sink));
        let log = self.clone();
        let follow = move || {
            while console.wait_readable() {
                log.lock().catch_up();
            }
        };
        thread::Builder::new()
            .name("console".to_owned())
            .stack_size(STACK_LEN)
            .spawn(follow)
            .map_err(|source| Error::Host {
                doing: "start a thread",
                source,
            })
    }

    /// The last lines, printable, at most `count`.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let lines = self.lines();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }

    /// The lines from the first that contains `text` on, at most `count`; none where none does.
    pub(crate) fn lines_from(&self, text: &str, count: usize) -> Vec<String> {
        self.lines()
            .into_iter()
            .skip_while(|line| !line.contains(text))
            .take(count)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> Vec<String> {
        let mut shared = self.lock();
        // Whoever asks wants all of it, also what no thread had the time to read.
        shared.catch_up();
        let kept: Vec<u8> = shared.kept.iter().copied().collect();
        drop(shared);
        let text = String::from_utf8_lossy(&kept);
        let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
        text.lines()
            .map(printable)
            .filter(|line| !line.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use device_backends::{ByteStream, byte_pipe};

    use super::*;

    #[test]
    fn lines_are_printable_and_bounded() {
        let (device, host) = byte_pipe(1 << 20);
        let log = ConsoleLog::default();
        let mut text = Vec::new();
        for number in 0..20_000 {
            write!(text, "line {number}\r\n\x1b").unwrap();
        }
        assert_eq!(device.write(&text), text.len());
        drop(device);
        log.follow(host, None).unwrap().join().unwrap();
        assert_eq!(log.last_lines(2), ["line 19998", "line 19999"]);
        assert_eq!(log.lines_from("19997", 2), ["line 19997", "line 19998"]);
        assert!(log.lines_from("line 3 ", 2).is_empty());
        assert!(log.lines().len() < 10_000);
    }
}
