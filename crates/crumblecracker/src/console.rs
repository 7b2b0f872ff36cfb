//! What the guest's kernel says: kept for error messages, and shown where asked.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use device_backends::HostEnd;

use crate::{Error, Result};

/// How much of the console is kept, in bytes.
const KEPT: usize = 64 << 10;

/// Just too short for a large page, which the host could else give to the first byte touched.
const STACK_LEN: usize = 0x1f_0000;

/// Receives console output as it comes.
pub type ConsoleSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The last of what a console said. Clones are the same console.
#[derive(Clone, Default)]
pub(crate) struct ConsoleLog {
    kept: Arc<Mutex<VecDeque<u8>>>,
}

impl ConsoleLog {
    /// Reads `console` on a thread until it ends.
    pub(crate) fn follow(&self, mut console: HostEnd, sink: Option<ConsoleSink>) -> Result<JoinHandle<()>> {
        let kept = self.kept.clone();
        let follow = move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = console.read(&mut bytes) {
                if let Some(sink) = &sink {
                    sink(&bytes[..count]);
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&bytes[..count]);
                let excess = kept.len().saturating_sub(KEPT);
                kept.drain(..excess);
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

    fn lines(&self) -> Vec<String> {
        let kept: Vec<u8> = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect();
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
