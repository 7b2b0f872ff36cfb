//! How a guest ended, and what its console said last.

use std::fmt;

use machine::Outcome;

use crate::console::ConsoleLog;

/// How many lines of the console are shown.
const LINES_SHOWN: usize = 15;

/// Why a guest is gone, or does not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostMortem {
    /// How it ended, a clause.
    pub how: String,
    /// What its console said about it, printable lines: where the kernel panicked its first words about that,
    /// else the last ones.
    pub console: Vec<String>,
}

impl PostMortem {
    pub(crate) fn new(outcome: Option<Outcome>, console: &ConsoleLog) -> Self {
        let panic = console.lines_from("Kernel panic", LINES_SHOWN);
        let how = match outcome {
            Some(Outcome::Reset | Outcome::TripleFault) if !panic.is_empty() => {
                "its kernel panicked".to_owned()
            }
            Some(Outcome::PoweredOff) => "it switched itself off".to_owned(),
            Some(Outcome::Reset) => "it asked for a restart".to_owned(),
            Some(Outcome::TripleFault) => "its CPU shut down after a triple fault".to_owned(),
            Some(Outcome::Stopped) => "it was stopped".to_owned(),
            Some(Outcome::Failed(reason)) => reason,
            None => "it does not answer".to_owned(),
        };
        // What a kernel says when it panics ends in registers and addresses: its first lines tell more.
        let console = if panic.is_empty() {
            console.last_lines(LINES_SHOWN)
        } else {
            panic
        };
        Self { how, console }
    }
}

/// The clause, and the console's lines below it.
impl fmt::Display for PostMortem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.how)?;
        match &self.console[..] {
            [] => write!(f, "; its console said nothing"),
            lines => write!(f, "; its console said:\n  {}", lines.join("\n  ")),
        }
    }
}
