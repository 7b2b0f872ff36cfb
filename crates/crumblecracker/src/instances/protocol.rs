//! What is said over a control socket: one JSON value on a line, requests one way and replies the other.
//!
//! A connection begins with `exec`, `stop`, `save` or `fork`. After `exec`, whose line comes with the descriptors of the command's
//! standard streams, follow any number of `signal` and `resize`; it is answered by `started` and `exited`. `stop` is
//! answered by `done`, and the connection ends together with the monitor. `save` is answered by `done` as well. `fork` is
//! answered by `forkable`, which holds for as long as the connection does. `error` may answer anything, and is the end.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fork::Made;
use crate::session::Ended;
use crate::{Command, Error, Result};

/// The longest line, in bytes.
const LINE_MAX: usize = 1 << 20;
/// The most descriptors of a connection.
const FILES_MAX: usize = 3;
/// What is received at once.
const PART: usize = 16 << 10;

/// From who wants something of a guest to its monitor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Start a command. The descriptors of its standard output and error come with it, before them that of its
    /// standard input if it is to have one.
    Exec(Command),
    /// Send that command a signal.
    Signal { number: u32 },
    /// Tell its terminal the size.
    Resize { rows: u16, columns: u16 },
    /// End the guest in order.
    Stop { grace_ms: u32 },
    /// Put the guest by under a name, in this cache folder.
    Save { cache: PathBuf, snapshot: String },
    /// Put the guest by for forks, in this cache folder.
    Fork { cache: PathBuf },
}

/// From the monitor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Reply {
    /// The command is on its way.
    Started {},
    /// It has ended, and all its output is written.
    Exited(Ended),
    /// What was asked for is done.
    Done {},
    /// Forks can be made.
    Forkable(Made),
    /// It cannot be done.
    Error { message: String },
}

/// The end of a connection that messages come out of.
pub(super) struct Receiver {
    stream: Arc<UnixStream>,
    bytes: Vec<u8>,
    /// How many of them are known to end no line.
    searched: usize,
    files: Vec<OwnedFd>,
}

/// The end that they go into. Clones are the same end.
#[derive(Clone)]
pub(super) struct Sender {
    stream: Arc<UnixStream>,
    /// Held while a line is written.
    writing: Arc<Mutex<()>>,
}

/// Both ends of this side of a connection.
pub(super) fn ends(stream: UnixStream) -> (Receiver, Sender) {
    let stream = Arc::new(stream);
    let receiver = Receiver {
        stream: stream.clone(),
        bytes: Vec::new(),
        searched: 0,
        files: Vec::new(),
    };
    let sender = Sender {
        stream,
        writing: Arc::default(),
    };
    (receiver, sender)
}

impl Receiver {
    /// The next message; `None` once the other side is gone.
    ///
    /// # Errors
    /// [`Error::Message`]: nothing that follows can be understood.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let end = loop {
            let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(found) = found {
                break self.searched + found;
            }
            self.searched = self.bytes.len();
            if self.searched > LINE_MAX {
                return Err(Error::Message(format!("it is longer than {LINE_MAX} bytes")));
            }
            if !self.receive_part()? {
                return Ok(None);
            }
        };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        self.searched = 0;
        let message = serde_json::from_slice(&line).map_err(|error| Error::Message(error.to_string()))?;
        Ok(Some(message))
    }

    /// The descriptors that came so far.
    pub(super) fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// False at the end.
    fn receive_part(&mut self) -> Result<bool> {
        let mut part = [0; PART];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut part)];
            match recvmsg(&*self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // Who is gone with something unread resets the connection (unix(7)).
                Err(Errno::CONNRESET) => return Ok(false),
                received => break received.map_err(|error| Error::Message(error.to_string()))?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > FILES_MAX {
            return Err(Error::Message(format!(
                "it comes with more than {FILES_MAX} descriptors"
            )));
        }
        self.bytes.extend_from_slice(&part[..received.bytes]);
        Ok(received.bytes > 0)
    }
}

impl Sender {
    /// Sends one message.
    ///
    /// # Errors
    /// [`Error::Message`] where it is too long, or the other side is gone.
    pub(super) fn send(&self, message: &impl Serialize) -> Result<()> {
        self.send_with(message, &[])
    }

    /// Sends one message with descriptors.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub(super) fn send_with(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> Result<()> {
        let refused = |error: std::io::Error| Error::Message(error.to_string());
        let mut line = serde_json::to_vec(message).map_err(|error| Error::Message(error.to_string()))?;
        if line.len() > LINE_MAX {
            return Err(Error::Message(format!("it is longer than {LINE_MAX} bytes")));
        }
        line.push(b'\n');
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sent = 0;
        if !files.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(refused(ErrorKind::InvalidInput.into()));
            }
            sent = sendmsg(
                &*self.stream,
                &[IoSlice::new(&line)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
            .map_err(|error| refused(error.into()))?;
        }
        (&*self.stream).write_all(&line[sent..]).map_err(refused)
    }

    /// Ends the connection for both sides.
    pub(super) fn close(&self) {
        // One that is closed already needs no more.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Whether the other side runs as our user.
    pub(super) fn is_peer_ours(&self) -> bool {
        host_os::is_peer_ours(self.stream.as_fd()).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn pair() -> (UnixStream, Receiver) {
        let (here, there) = UnixStream::pair().unwrap();
        (here, ends(there).0)
    }

    fn refusal(line: &[u8]) -> String {
        let (mut here, mut receiver) = pair();
        here.write_all(line).unwrap();
        receiver.receive::<Request>().unwrap_err().to_string()
    }

    #[test]
    fn messages_sent_are_received_in_order_and_then_the_end() {
        let (here, mut receiver) = pair();
        let sender = ends(here).1;
        let messages = || {
            [
                Request::Exec(Command {
                    arguments: vec!["a\nb".to_owned()],
                    terminal: Some((24, 80)),
                    ..Command::default()
                }),
                Request::Signal { number: 15 },
                Request::Stop { grace_ms: 7 },
            ]
        };

        messages()
            .iter()
            .for_each(|message| sender.send(message).unwrap());
        sender.close();

        let received: Vec<Request> = std::iter::from_fn(|| receiver.receive().unwrap()).collect();
        assert_eq!(received, messages());
    }

    #[test]
    fn message_with_descriptors_brings_them() {
        let (here, mut receiver) = pair();
        let (reader, writer) = rustix::pipe::pipe().unwrap();

        let request = Request::Stop { grace_ms: 0 };
        ends(here).1.send_with(&request, &[writer.as_fd()]).unwrap();
        drop(writer);

        assert_eq!(receiver.receive::<Request>().unwrap(), Some(request));
        let files = receiver.take_files();
        rustix::io::write(&files[0], b"through").unwrap();
        drop(files);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn messages_with_too_many_descriptors_are_refused() {
        let (here, mut receiver) = pair();
        let sender = ends(here).1;
        let file = File::open("/dev/null").unwrap();

        for _ in 0..2 {
            let files = [file.as_fd(), file.as_fd()];
            sender.send_with(&Request::Signal { number: 1 }, &files).unwrap();
        }

        let results = [receiver.receive::<Request>(), receiver.receive::<Request>()];
        let refused = results.into_iter().find_map(std::result::Result::err).unwrap();
        assert!(refused.to_string().contains("descriptors"), "{refused}");
    }

    #[test]
    fn lines_that_are_no_request_are_refused() {
        for line in [
            "{}\n",
            "null\n",
            "{\"stop\":{}}\n",
            "{\"stop\":{\"grace_ms\":1,\"more\":2}}\n",
            "{\"stop\":{\"grace_ms\":-1}}\n",
            "{\"stop\":{\"grace_ms\":1},\"signal\":{\"number\":1}}\n",
            "{\"exec\":{\"arguments\":[],\"more\":2}}\n",
            "{\"save\":{\"cache\":\"/\"}}\n",
            "{\"fork\":{\"cache\":\"/\",\"n\":1}}\n",
            "{\"dance\":{}}\n",
            "\u{0}\n",
        ] {
            assert!(refusal(line.as_bytes()).contains("refused"), "{line}");
        }
    }

    #[test]
    fn line_without_end_is_refused_before_it_is_kept() {
        let (mut here, mut receiver) = pair();
        let endless = std::thread::spawn(move || {
            let line = vec![b' '; LINE_MAX + 2 * PART];
            // The other side goes away in the middle.
            let _ = here.write_all(&line);
        });

        let refused = receiver.receive::<Request>().unwrap_err();
        assert!(refused.to_string().contains("longer"), "{refused}");
        drop(receiver);
        endless.join().unwrap();
    }

    #[test]
    fn line_cut_short_is_the_end() {
        let (mut here, mut receiver) = pair();
        here.write_all(b"{\"stop\":").unwrap();
        drop(here);

        assert_eq!(receiver.receive::<Request>().unwrap(), None);
    }
}
