//! How things are told to people: errors in one line, the log, texts on standard output.

use std::env;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crumblecracker::{Error, PostMortem, one_line};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{FAILED, terminal};

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// The name this program was started by.
pub(crate) fn program_name() -> String {
    let word = env::args_os().next().unwrap_or_default();
    let name = Path::new(&word)
        .file_stem()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "cc".to_owned())
}

/// Standard error, where lines stay lines while the terminal is raw.
pub(crate) struct Stderr;

impl Stderr {
    /// Writes lines as they are.
    pub(crate) fn say(mut self, lines: &str) {
        // Nobody can be told that standard error is gone.
        let _ = self.write_all(lines.as_bytes());
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !terminal::is_raw() {
            return io::stderr().write(bytes);
        }
        io::stderr().write_all(&with_carriage_returns(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn with_carriage_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

/// One line on standard error that begins with the program's name.
pub(crate) fn error_line(text: &str) {
    Stderr.say(&line(text));
}

fn line(text: &str) -> String {
    format!("{}: {}\n", program_name(), text.trim_end())
}

/// An error as [`error_text`] has it, on standard error.
pub(crate) fn error(error: &anyhow::Error) {
    // As above.
    let _ = Stderr.write_all(error_text(error).as_bytes());
}

/// An error in one line, and below it what the console of a guest said that is the matter.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let post_mortem = error.downcast_ref().and_then(Error::post_mortem);
    let said = post_mortem.map(said).unwrap_or_default();
    let said = said.into_iter().map(|line| format!("{line}\n"));
    std::iter::once(line(&one_line(error.as_ref())))
        .chain(said)
        .collect()
}

fn said(PostMortem { console, .. }: &PostMortem) -> Vec<String> {
    if console.is_empty() {
        return vec!["its console said nothing".to_owned()];
    }
    let lines = console.iter().map(|line| format!("  {line}"));
    std::iter::once("its console said:".to_owned())
        .chain(lines)
        .collect()
}

/// Writes to standard output; gives the exit status. A reader who has seen enough is no failure.
pub(crate) fn text(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            error_line(&format!("cannot write to standard output: {error}"));
            FAILED
        }
        _ => 0,
    }
}

/// Rows under headings, columns as wide as their widest cell. What an image put into a cell cannot control a
/// terminal.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let printable = |row: &[String; N]| row.each_ref().map(|cell| cell.replace(char::is_control, " "));
    let rows: Vec<_> = rows.iter().map(printable).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("   ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(headings)).chain(rows).collect()
}

/// Sends the log to standard error: warnings, or everything of note where `volume` is high; `CC_LOG`, such as
/// `debug` or `oci=trace`, says otherwise.
pub(crate) fn start_log(volume: Volume) {
    let level = match volume {
        Volume::Quiet => LevelFilter::ERROR,
        Volume::Normal => LevelFilter::WARN,
        Volume::Verbose => LevelFilter::INFO,
    };
    let mut filter = Targets::new().with_default(level);
    if let Ok(wanted) = env::var("CC_LOG")
        && !wanted.is_empty()
    {
        match wanted.parse() {
            Ok(targets) => filter = targets,
            Err(error) => error_line(&format!("CC_LOG is refused: {error}")),
        }
    }
    let lines = tracing_subscriber::fmt::layer()
        .without_time()
        .with_target(false)
        .with_writer(|| Stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_of_a_guest_is_told_line_by_line() {
        let console = vec!["one".to_owned(), "two".to_owned()];
        let silent = PostMortem {
            how: "it was stopped".to_owned(),
            console: Vec::new(),
        };
        let talkative = PostMortem {
            console,
            ..silent.clone()
        };

        assert_eq!(said(&silent), ["its console said nothing"]);
        assert_eq!(said(&talkative), ["its console said:", "  one", "  two"]);
    }

    #[test]
    fn table_columns_are_aligned() {
        let rows = [
            ["a".to_owned(), "1\x1b2".to_owned()],
            ["long name".to_owned(), "3".to_owned()],
        ];

        assert_eq!(
            table(["NAME", "SIZE"], &rows),
            "NAME        SIZE\na           1 2\nlong name   3\n"
        );
    }

    #[test]
    fn carriage_returns_are_added_once() {
        assert_eq!(with_carriage_returns(b"a\nb\r\n\n"), b"a\r\nb\r\n\r\n");
    }
}
