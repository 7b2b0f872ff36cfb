//! The session manager: the host's side of the control channel to the guest program.
//!
//! One thread reads the channel and hands every frame to whom it concerns; anybody may write. Each output of
//! a process has a queue bounded by its credit, so a slow reader stops its own stream and nothing else.

mod files;
mod forward;
mod process;
mod saved;
mod streams;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use device_backends::HostEnd;
use guest_protocol::{Configure, Decoder, Frame, Hello, ToGuest, ToHost};
use tracing::debug;

pub(crate) use files::{FileError, OpenFile, Pending};
pub(crate) use forward::Copying;
pub use forward::{Ended, Forwarding, Streams};
pub use process::{ExitStatus, Process, ProcessControl};
pub use streams::{ProcessInput, ProcessOutput};

use crate::{Error, Result};
use process::ProcessEntry;

/// How long the guest may take to answer a request that needs no waiting inside the guest.
const REPLY_TIME: Duration = Duration::from_secs(60);

/// A guest that answers. Clones are the same guest.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Mutex<HostEnd>,
    /// Held by who reads the channel; whoever wants the writer as well takes that first.
    decoder: Mutex<Decoder<ToHost>>,
    next_id: AtomicU32,
    table: Mutex<Table>,
    /// A file request was answered, or the channel is gone.
    file_answered: Condvar,
}

/// Who waits for what. `None` once the channel is gone.
#[derive(Default)]
struct Table {
    closed: Option<String>,
    replies: HashMap<u32, SyncSender<ToHost>>,
    processes: HashMap<u32, ProcessEntry>,
    /// Who waits for the reply to a file request; the guest bears so many.
    file_replies: HashMap<u32, SyncSender<ToHost>>,
    /// Numbers of files that are open, or about to be.
    files: HashSet<u32>,
}

impl Table {
    fn has(&self, id: u32) -> bool {
        self.replies.contains_key(&id)
            || self.processes.contains_key(&id)
            || self.file_replies.contains_key(&id)
            || self.files.contains(&id)
    }
}

/// What these locks guard is meaningful at every step, so poisoning does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(channel: HostEnd, next_id: u32, decoder: Decoder<ToHost>) -> Self {
        Self {
            writer: Mutex::new(channel),
            decoder: Mutex::new(decoder),
            next_id: AtomicU32::new(next_id),
            table: Mutex::default(),
            file_answered: Condvar::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Writes one frame whole.
    fn send(&self, id: u32, message: ToGuest) -> Result<()> {
        let bytes = Frame { id, message }
            .to_bytes()
            .map_err(|error| Error::Request(error.to_string()))?;
        let mut writer = lock(&self.writer);
        writer.write_all(&bytes).map_err(|_| self.gone())
    }

    fn gone(&self) -> Error {
        Error::GuestGone(
            self.table()
                .closed
                .clone()
                .unwrap_or_else(|| "the machine has ended".to_owned()),
        )
    }

    /// A number no living request, process or file has.
    fn new_id(&self) -> u32 {
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            if id != 0 && !self.table().has(id) {
                return id;
            }
        }
    }

    /// Hands a reply to who waits for it; one nobody waits for is dropped.
    fn reply(&self, id: u32, message: ToHost) {
        let mut table = self.table();
        let waiting = match table.file_replies.remove(&id) {
            Some(waiting) => {
                self.file_answered.notify_one();
                Some(waiting)
            }
            None => table.replies.remove(&id),
        };
        if let Some(waiting) = waiting {
            // Whoever waited may have given up.
            let _ = waiting.try_send(message);
        }
    }

    /// Nothing comes any more: all who wait are told.
    fn close(&self, reason: String) {
        let mut table = self.table();
        table.closed.get_or_insert(reason);
        table.replies.clear();
        table.file_replies.clear();
        self.file_answered.notify_all();
        for (_, process) in table.processes.drain() {
            process.abandon();
        }
    }
}

impl Session {
    /// Serves `channel` from now on, and waits for the guest's greeting.
    ///
    /// `give_up` is asked some times a second while nothing comes; an error from it ends the wait.
    ///
    /// # Errors
    /// [`Error::BootDeadline`] when nothing comes in `deadline`, what `give_up` says.
    pub(crate) fn open(
        channel: HostEnd,
        deadline: Duration,
        give_up: &dyn Fn() -> Result<()>,
    ) -> Result<(Self, Hello)> {
        let shared = Arc::new(Shared::new(channel.clone(), 1, Decoder::new()));
        let (session, hello) = Self::serve(channel, shared)?;
        let hello = wait_for_hello(&hello, deadline, give_up)?;
        Ok((session, hello))
    }

    /// Serves the channel of a guest whose greeting is known: one that was restored from a snapshot.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(crate) fn reopen(channel: HostEnd) -> Result<Self> {
        let shared = Arc::new(Shared::new(channel.clone(), 1, Decoder::new()));
        Ok(Self::serve(channel, shared)?.0)
    }

    fn serve(channel: HostEnd, shared: Arc<Shared>) -> Result<(Self, Receiver<Hello>)> {
        let (hello_sender, hello) = mpsc::sync_channel(1);
        let reader = shared.clone();
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || read_channel(channel, &reader, &hello_sender))
            .map_err(|source| Error::Host {
                doing: "start a thread",
                source,
            })?;
        Ok((Self { shared }, hello))
    }

    /// Makes the guest what it is to be, in the newest version of the protocol that both sides speak.
    ///
    /// # Errors
    /// [`Error::Guest`] for a guest that speaks another protocol, what [`Session::request`] says.
    pub(crate) fn configure(&self, hello: &Hello, configure: Configure) -> Result<()> {
        let version = hello
            .negotiate()
            .map_err(|error| Error::Guest(error.to_string()))?;
        debug!(release = hello.release, version, "the guest program is ready");
        self.request(ToGuest::Configure(Configure { version, ..configure }))
    }

    /// Why nothing comes from the guest any more, once that is so.
    pub(crate) fn closed(&self) -> Option<String> {
        self.shared.table().closed.clone()
    }

    /// Sends a request and waits until it is done.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the guest says, [`Error::GuestGone`].
    pub(crate) fn request(&self, message: ToGuest) -> Result<()> {
        match self.ask(message)? {
            ToHost::Done => Ok(()),
            ToHost::Failed(failure) => Err(Error::Refused(failure)),
            other => Err(Error::Guest(format!("it answered a request with {other:?}"))),
        }
    }

    fn ask(&self, message: ToGuest) -> Result<ToHost> {
        let id = self.shared.new_id();
        let (sender, reply) = mpsc::sync_channel(1);
        {
            let mut table = self.shared.table();
            if table.closed.is_none() {
                table.replies.insert(id, sender);
            }
        }
        self.shared.send(id, message)?;
        match reply.recv_timeout(REPLY_TIME) {
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(Error::Guest("it does not answer".to_owned())),
            Err(RecvTimeoutError::Disconnected) => Err(self.shared.gone()),
        }
    }
}

fn wait_for_hello(
    hello: &Receiver<Hello>,
    deadline: Duration,
    give_up: &dyn Fn() -> Result<()>,
) -> Result<Hello> {
    let end = Instant::now() + deadline;
    loop {
        match hello.recv_timeout(Duration::from_millis(50)) {
            Ok(hello) => return Ok(hello),
            Err(RecvTimeoutError::Disconnected) => {
                give_up()?;
                return Err(Error::Guest(
                    "it closed the channel before it said who it is".to_owned(),
                ));
            }
            Err(RecvTimeoutError::Timeout) => give_up()?,
        }
        if Instant::now() >= end {
            return Err(Error::BootDeadline(deadline));
        }
    }
}

/// Reads until the channel ends or the guest breaks the protocol.
fn read_channel(channel: HostEnd, shared: &Shared, hello: &SyncSender<Hello>) {
    // Only the first greeting finds somebody who waits for it.
    let hello = |greeting| drop(hello.try_send(greeting));
    let reason = loop {
        if !channel.wait_readable() {
            break "the machine has ended".to_owned();
        }
        if let Err(reason) = take_in(&channel, &mut lock(&shared.decoder), shared, &hello) {
            break format!("it broke the control protocol: {reason}");
        }
    };
    shared.close(reason);
    channel.shutdown();
}

/// Takes all that has come, and hands it on.
fn take_in(
    channel: &HostEnd,
    decoder: &mut Decoder<ToHost>,
    shared: &Shared,
    hello: &dyn Fn(Hello),
) -> Result<(), String> {
    let mut bytes = [0; 16 << 10];
    while let count @ 1.. = channel.read_available(&mut bytes) {
        decoder.push(&bytes[..count]);
        dispatch_all(decoder, shared, hello)?;
    }
    Ok(())
}

fn dispatch_all(decoder: &mut Decoder<ToHost>, shared: &Shared, hello: &dyn Fn(Hello)) -> Result<(), String> {
    while let Some(Frame { id, message }) = decoder.next_frame().map_err(|error| error.to_string())? {
        match message {
            ToHost::Hello(greeting) => hello(greeting),
            ToHost::Mark(mark) => debug!(ns = mark.ns, name = mark.name, "guest timeline"),
            ToHost::Done
            | ToHost::Failed(_)
            | ToHost::FileData(_)
            | ToHost::FileMetadata(_)
            | ToHost::FileWritten(_) => shared.reply(id, message),
            about_process => {
                let mut table = shared.table();
                // Frames about processes that are gone cross on the way.
                if let Some(process) = table.processes.get_mut(&id) {
                    process.deliver(about_process)?;
                    if process.is_over() {
                        table.processes.remove(&id);
                    }
                }
            }
        }
    }
    Ok(())
}
