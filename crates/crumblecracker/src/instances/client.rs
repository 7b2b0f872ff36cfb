//! What is asked of a running guest from another process than its monitor.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use guest_protocol::wire::MAX_GRACE_MS;
use rustix::pipe::{PipeFlags, pipe_with};

use super::protocol::{Receiver, Reply, Request, Sender, ends};
use super::{Forkable, Instances, with_socket_path};
use crate::session::{Copying, Ended, Streams};
use crate::{Command, Error, Library, Result};

/// A command that runs in a guest of another process.
pub struct RemoteProcess {
    receiver: Receiver,
    sender: Sender,
    /// What is read here for it, and where to.
    input: Option<(File, File)>,
}

/// A handle to send signals to it and to resize its terminal, from any thread.
#[derive(Clone)]
pub struct RemoteControl {
    sender: Sender,
}

impl RemoteControl {
    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Message`] where the monitor is gone.
    pub fn signal(&self, number: u32) -> Result<()> {
        self.sender.send(&Request::Signal { number })
    }

    /// Tells its terminal the size in characters.
    ///
    /// # Errors
    /// As [`RemoteControl::signal`].
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.sender.send(&Request::Resize { rows, columns })
    }
}

impl RemoteProcess {
    /// A handle for signals and terminal size.
    pub fn control(&self) -> RemoteControl {
        RemoteControl {
            sender: self.sender.clone(),
        }
    }

    /// Waits until it has ended and all its output is written.
    ///
    /// # Errors
    /// [`Error::Monitor`], [`Error::GuestGone`].
    pub fn wait(mut self) -> Result<Ended> {
        let _copying = match self.input.take() {
            Some((from, to)) => Some(Copying::begin(from, to)?),
            None => None,
        };
        match answer(&mut self.receiver)? {
            Reply::Exited(ended) => Ok(ended),
            other => Err(unexpected(&other)),
        }
    }
}

impl Instances {
    /// Starts a command in the guest called `name`. Its streams are `streams`; a terminal among them is read by this
    /// process, from [`RemoteProcess::wait`] on, all else by the guest's monitor. Dropping the process hangs up its
    /// terminal if it has one, and lets it go on if it has none.
    ///
    /// # Errors
    /// [`Error::InstanceName`], [`Error::NoInstance`], [`Error::InstanceStarting`], [`Error::ForeignInstances`];
    /// [`Error::Monitor`] with what the monitor says.
    pub fn exec(&self, name: &str, command: &Command, streams: Streams) -> Result<RemoteProcess> {
        let (mut receiver, sender) = self.connect(name)?;
        let mut input = None;
        let mut files = Vec::new();
        match streams.input {
            // Only who stands in the foreground of a terminal may read from it, and is stopped when it does not.
            Some(terminal) if terminal.is_terminal() => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::Host {
                    doing: "make a pipe",
                    source: error.into(),
                })?;
                files.push(File::from(reader));
                input = Some((terminal, File::from(writer)));
            }
            other => files.extend(other),
        }
        let command = Command {
            stdin: !files.is_empty(),
            ..command.clone()
        };
        files.extend([streams.output, streams.error]);
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        sender.send_with(&Request::Exec(command), &files)?;
        match answer(&mut receiver)? {
            Reply::Started {} => Ok(RemoteProcess {
                receiver,
                sender,
                input,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the guest called `name` end in order: processes get SIGTERM and `grace`. Returns when its monitor has
    /// ended too.
    ///
    /// # Errors
    /// As [`Instances::exec`].
    pub fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        let (mut receiver, sender) = self.connect(name)?;
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(MAX_GRACE_MS);
        sender.send(&Request::Stop {
            grace_ms: grace_ms.min(MAX_GRACE_MS),
        })?;
        match answer(&mut receiver) {
            Ok(Reply::Done {}) => {}
            Ok(other) => return Err(unexpected(&other)),
            // Somebody else stopped it, or its main process ended, at the same time.
            Err(Error::GuestGone(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        // Whatever it may say, the end is what is waited for.
        while let Ok(Some(_)) = receiver.receive::<Reply>() {}
        Ok(())
    }

    /// Puts the guest called `name` by as `snapshot`, in the cache of `library`, which must be the guest's own. It stands
    /// still meanwhile, and goes on.
    ///
    /// # Errors
    /// As [`Instances::exec`], and those of [`Instance::save`](crate::Instance::save) in words.
    pub fn save(&self, library: &Library, name: &str, snapshot: &str) -> Result<()> {
        let (mut receiver, sender) = self.connect(name)?;
        sender.send(&Request::Save {
            cache: library.cache_folder().to_owned(),
            snapshot: snapshot.to_owned(),
        })?;
        match answer(&mut receiver)? {
            Reply::Done {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the guest called `name` ready for forks, in the cache of `library`, which must be the guest's own. It stands
    /// still meanwhile, and goes on.
    ///
    /// # Errors
    /// As [`Instances::save`].
    pub fn fork(&self, library: &Library, name: &str) -> Result<Forkable> {
        let (mut receiver, sender) = self.connect(name)?;
        sender.send(&Request::Fork {
            cache: library.cache_folder().to_owned(),
        })?;
        match answer(&mut receiver)? {
            Reply::Forkable(made) => Ok(Forkable {
                made,
                _connection: (receiver, sender),
            }),
            other => Err(unexpected(&other)),
        }
    }

    fn connect(&self, name: &str) -> Result<(Receiver, Sender)> {
        let folder = self.existing(name)?;
        match with_socket_path(&folder, |path| UnixStream::connect(path)) {
            Ok(stream) => Ok(ends(stream)),
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Err(Error::InstanceStarting(name.to_owned()))
            }
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::ConnectionRefused => {
                Err(Error::NoInstance(name.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

/// The next reply that is no error.
fn answer(receiver: &mut Receiver) -> Result<Reply> {
    match receiver.receive()? {
        Some(Reply::Error { message }) => Err(Error::Monitor(message)),
        Some(reply) => Ok(reply),
        None => Err(Error::GuestGone("its monitor has ended".to_owned())),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Message(format!("{reply:?} answers nothing that was asked"))
}
