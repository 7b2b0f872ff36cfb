//! Signals that this program gets while a command runs.

use std::fs;
use std::io;
use std::thread;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What a signal means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal has another size.
    Resized,
    /// This program goes on after it was stopped.
    Continued,
    /// Somebody wants an end: the signal's number, the same on every Unix.
    End(u8),
}

impl Signal {
    pub(crate) const INTERRUPT: Self = Self::End(SIGINT as u8);
}

/// Tells every signal from now on to `tell` on a thread. Once that says `false`, signals do again what they do
/// by default. Signals ignored from the start, as under nohup, stay so.
///
/// # Errors
/// What the host says.
pub(crate) fn watch(tell: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let endings = [SIGHUP, SIGINT, SIGQUIT, SIGTERM]
        .into_iter()
        .filter(|number| !is_ignored(&status, *number));
    let mut signals = Signals::new(endings.chain([SIGWINCH, SIGCONT]))?;
    let watch = move || {
        let mut listening = true;
        for number in signals.forever() {
            listening = listening && tell(meaning(number));
            if !listening {
                // An unknown number cannot come; a default action that fails leaves things as they are.
                let _ = emulate_default_handler(number);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(())
}

fn meaning(number: i32) -> Signal {
    match number {
        SIGWINCH => Signal::Resized,
        SIGCONT => Signal::Continued,
        other => Signal::End(u8::try_from(other).unwrap_or(SIGTERM as u8)),
    }
}

/// Whether the `SigIgn` mask in the text of proc_pid_status(5) has the signal.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ignored_reads_the_mask() {
        let status = "Name:\tcc\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";

        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }

    #[test]
    fn meaning_of_endings_keeps_the_number() {
        assert_eq!(meaning(SIGINT), Signal::INTERRUPT);
        assert_eq!(meaning(SIGTERM), Signal::End(15));
        assert_eq!(meaning(SIGWINCH), Signal::Resized);
    }
}
