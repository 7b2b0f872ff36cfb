//! Bytes between files of the host and a process's standard streams.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::{ExitStatus, Process, ProcessInput};
use crate::{Error, Result};

const BUFFER: usize = 64 << 10;

/// The files of the host that a process's standard streams go to and come from.
#[derive(Debug)]
pub struct Streams {
    /// Standard input; without it, a stream that the process has stays open and silent.
    pub input: Option<File>,
    /// Standard output, and all that a terminal shows.
    pub output: File,
    /// Standard error.
    pub error: File,
}

/// How a process ended whose streams were forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// As [`ExitStatus::code`].
    pub code: u8,
    /// Why the program could not be executed.
    pub not_executed: Option<String>,
    /// Why output could not be written. That a reader has seen enough is no reason.
    pub lost: Vec<String>,
}

/// A process whose streams are copied, on threads of their own.
pub struct Forwarding {
    process: Process,
    outputs: Vec<JoinHandle<io::Result<()>>>,
    /// A terminal whose input is closed hangs up: what is not forwarded is held.
    _silent: Option<ProcessInput>,
    _input: Option<Copying>,
}

impl Forwarding {
    /// Begins to copy between `process` and `streams`.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn begin(mut process: Process, streams: Streams) -> Result<Self> {
        let mut outputs = Vec::new();
        let ends = [
            ("stdout", process.stdout.take(), streams.output),
            ("stderr", process.stderr.take(), streams.error),
        ];
        for (name, from, mut to) in ends {
            if let Some(from) = from {
                outputs.push(spawn(name, move || copy_output(from, &mut to))?);
            }
        }
        let (input, silent) = match (streams.input, process.stdin.take()) {
            (Some(from), Some(to)) => (Some(Copying::begin(from, to)?), None),
            (_, silent) => (None, silent),
        };
        Ok(Self {
            process,
            outputs,
            _silent: silent,
            _input: input,
        })
    }

    /// Waits until the process has ended and all its output is written.
    ///
    /// # Errors
    /// [`GuestGone`](Error::GuestGone).
    pub fn wait(self) -> Result<Ended> {
        let status = self.process.wait();
        let ends = self.outputs.into_iter().map(JoinHandle::join);
        let lost = ends
            .filter_map(|end| end.ok().and_then(io::Result::err))
            .filter(|error| error.kind() != ErrorKind::BrokenPipe)
            .map(|error| error.to_string())
            .collect();
        let status = status?;
        Ok(Ended {
            code: status.code(),
            not_executed: match status {
                ExitStatus::NotExecuted(failure) => Some(Error::Exec(failure).to_string()),
                ExitStatus::Ended(_) => None,
            },
            lost,
        })
    }
}

/// A copy of input that ends when this is dropped: nothing that comes later is taken from the file.
pub(crate) struct Copying(#[expect(dead_code, reason = "its end is what the thread waits for")] OwnedFd);

impl Copying {
    /// Copies on a thread until `from` ends or fails, or `to` takes no more; `to` is closed then.
    pub(crate) fn begin(mut from: File, to: impl Write + Send + 'static) -> Result<Self> {
        let (stop, held) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| Error::Host {
                doing: "make a pipe",
                source: error.into(),
            })?;
        spawn("stdin", move || copy_input(&mut from, to, stop.as_fd()))?;
        Ok(Self(held))
    }
}

fn spawn<T: Send + 'static>(name: &str, act: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(act).map_err(|source| Error::Host {
        doing: "start a thread",
        source,
    })
}

/// Copies until `from` ends.
///
/// # Errors
/// What `to` says when it takes no more.
fn copy_output(mut from: impl Read, to: &mut File) -> io::Result<()> {
    let mut bytes = vec![0; BUFFER];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        write_whole(to, &bytes[..count])?;
    }
}

/// Copies until `from` ends or fails, `to` takes no more or `stop` hangs up.
fn copy_input(from: &mut File, mut to: impl Write, stop: BorrowedFd<'_>) {
    let mut bytes = vec![0; BUFFER];
    loop {
        let mut ends = [
            PollFd::new(&*from, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        if poll(&mut ends, None).is_err() {
            // Interrupted: the next attempt comes at once.
            continue;
        }
        if !ends[1].revents().is_empty() {
            return;
        }
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // To the command, a terminal that is gone and a file that cannot be read have ended.
            Ok(_) | Err(_) => return,
        }
    }
}

fn write_whole(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_passing(&error, to.as_fd(), PollFlags::OUT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether to try again. A stream shared with another program may have been set non-blocking by it: then this
/// waits until the stream is ready.
fn is_passing(error: &io::Error, stream: BorrowedFd<'_>, ready: PollFlags) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => {
            // A wait cut short only makes the next attempt earlier.
            let _ = poll(&mut [PollFd::new(&stream, ready)], None);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn copy_output_to_slow_nonblocking_pipe_loses_nothing() {
        let (mut reader, writer) = pipe().map(|(a, b)| (File::from(a), File::from(b))).unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let bytes = sent.clone();

        let copy = thread::spawn(move || copy_output(&bytes[..], &mut { writer }));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();

        copy.join().unwrap().unwrap();
        assert_eq!(received, sent);
    }

    #[test]
    fn copy_output_to_closed_pipe_is_broken_pipe() {
        let (reader, writer) = pipe().map(|(a, b)| (File::from(a), File::from(b))).unwrap();
        drop(reader);

        let error = copy_output(&b"bytes"[..], &mut { writer }).unwrap_err();

        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn copy_input_from_nonblocking_pipe_waits_for_its_end() {
        let (reader, mut writer) = pipe().map(|(a, b)| (File::from(a), File::from(b))).unwrap();
        fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();

        let copy = thread::spawn(move || {
            let mut received = Vec::new();
            let (stop, _held) = pipe().unwrap();
            copy_input(&mut { reader }, &mut received, stop.as_fd());
            received
        });
        writer.write_all(b"first ").unwrap();
        writer.write_all(b"second").unwrap();
        drop(writer);

        assert_eq!(copy.join().unwrap(), b"first second");
    }

    #[test]
    fn copying_dropped_takes_nothing_more_from_the_file() {
        let (mut reader, mut writer) = pipe().map(|(a, b)| (File::from(a), File::from(b))).unwrap();
        let (mut arrived, to) = pipe().map(|(a, b)| (File::from(a), File::from(b))).unwrap();

        let copying = Copying::begin(reader.try_clone().unwrap(), to).unwrap();
        drop(copying);
        // The thread has ended when nobody can write any more.
        arrived.read_to_end(&mut Vec::new()).unwrap();
        writer.write_all(b"later").unwrap();
        drop(writer);

        let mut left = Vec::new();
        reader.read_to_end(&mut left).unwrap();
        assert_eq!(left, b"later");
    }
}
