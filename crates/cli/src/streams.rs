//! Bytes between this program's standard streams and the command's.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

const BUFFER: usize = 64 << 10;

/// A standard stream without a buffer of its own.
///
/// # Errors
/// What the host says.
pub(crate) fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// Copies until `from` ends.
///
/// # Errors
/// What `to` says when it takes no more.
pub(crate) fn copy_output(mut from: impl Read, to: &mut File) -> io::Result<()> {
    let mut bytes = vec![0; BUFFER];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        write_whole(to, &bytes[..count])?;
    }
}

/// Copies until `from` ends or fails, or `to` takes no more; `to` is closed then.
pub(crate) fn copy_input(from: &mut File, mut to: impl Write) {
    let mut bytes = vec![0; BUFFER];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
            Err(error) if is_passing(&error, from.as_fd(), PollFlags::IN) => {}
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
            copy_input(&mut { reader }, &mut received);
            received
        });
        writer.write_all(b"first ").unwrap();
        writer.write_all(b"second").unwrap();
        drop(writer);

        assert_eq!(copy.join().unwrap(), b"first second");
    }
}
