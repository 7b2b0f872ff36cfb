//! The monitor of a guest: the process it lives in, at the end of its control socket that answers.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::fork::Made;
use super::protocol::{Receiver, Reply, Request, Sender, ends};
use super::{About, Claim, Log, with_socket_path};
use crate::error::one_line;
use crate::session::{Forwarding, Process, ProcessControl, Streams};
use crate::{Command, Error, Instance, Library, Result};

/// The most connections at once. Each takes at most six descriptors, of which a process usually may have 1024.
const CONNECTIONS_MAX: usize = 128;
/// How long to wait with the next connection when one cannot be had.
const RESPITE: Duration = Duration::from_millis(100);
/// How long what the main process left behind may go on.
const GRACE: Duration = Duration::from_secs(2);
/// How long commands have, once the guest is gone, to tell their end to who waits for it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// SIGHUP, the same on every Unix.
const HANG_UP: u32 = 1;

/// A guest that is up, with what its monitor has to know.
pub struct Running {
    instance: Instance,
    main: Option<Process>,
    usual: Command,
}

impl Running {
    /// Starts `command` as the guest's main process. Where neither `command` nor the image names a program there is no
    /// main process, and the guest stays up until it is stopped.
    ///
    /// Commands that come later have the variables, the working directory and the user of `command`, before their own.
    ///
    /// # Errors
    /// Those of [`Instance::spawn`]; [`Error::Exec`] for a program that cannot be executed.
    pub fn start(instance: Instance, command: &Command) -> Result<Self> {
        let main = match instance.spawn(command) {
            Err(Error::NoCommand(_)) => None,
            spawned => Some(spawned?),
        };
        if let Some(main) = &main {
            main.wait_started()?.map_err(Error::Exec)?;
        }
        Ok(Self::with_main(instance, main, command.clone()))
    }

    /// A guest with `main` as its main process, which runs in it; commands that come later have of `usual` what
    /// [`Running::start`] says.
    pub fn with_main(instance: Instance, main: Option<Process>, usual: Command) -> Self {
        Self {
            instance,
            main,
            usual,
        }
    }
}

/// A running guest with a name, and what serves it.
pub struct Monitor {
    claim: Claim,
    shared: Arc<Shared>,
    listener: UnixListener,
    main: Option<Process>,
    events: mpsc::Receiver<Event>,
}

/// A handle to end a monitor's guest in order, from any thread.
#[derive(Clone)]
pub struct Stopper(mpsc::Sender<Event>);

/// What ends a guest.
enum Event {
    /// Somebody wants it to; who is told when it is done.
    Stop(Duration, Option<Sender>),
    /// Its main process has ended.
    MainEnded,
    /// The machine has ended by itself.
    MachineEnded,
}

/// What the threads of a monitor have in common.
struct Shared {
    library: Library,
    has_main: bool,
    /// `None` once it is about to end.
    instance: RwLock<Option<Instance>>,
    /// What commands have of the one the guest was started with.
    usual: Command,
    connections: Mutex<usize>,
    connection_ended: Condvar,
    happened: mpsc::Sender<Event>,
}

impl Stopper {
    /// Ends the guest in order. One that is about to end needs no more.
    pub fn stop(&self) {
        let _ = self.0.send(Event::Stop(GRACE, None));
    }
}

impl Monitor {
    /// Opens the control socket of a guest that lives in the cache of `library`. What its main process writes goes to the
    /// log.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(library: &Library, claim: Claim, running: Running) -> Result<Self> {
        let Running {
            instance,
            main,
            usual,
        } = running;
        let listener = with_socket_path(&claim.folder(), |path| {
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            Ok(listener)
        })?;
        claim.tell(&About::now(instance.image().name()))?;
        let (happened, events) = mpsc::channel();
        Ok(Self {
            claim,
            shared: Arc::new(Shared {
                library: library.clone(),
                has_main: main.is_some(),
                instance: RwLock::new(Some(instance)),
                usual,
                connections: Mutex::new(0),
                connection_ended: Condvar::new(),
                happened,
            }),
            listener,
            main,
            events,
        })
    }

    /// A handle to end the guest.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.happened.clone())
    }

    /// Serves the guest until its main process has ended, somebody stopped it or it ended by itself. The name is
    /// free when this returns.
    ///
    /// # Errors
    /// [`Error::Host`] where there are no threads; [`Error::GuestEnded`] for a guest that ended by itself.
    pub fn serve(mut self) -> Result<()> {
        if let Some(main) = self.main.take() {
            let log = self.claim.log()?;
            let shared = self.shared.clone();
            spawn("main", move || {
                if let Err(error) = log_output(main, &log) {
                    warn!(error = one_line(&error), "the main process cannot be followed");
                }
                let _ = shared.happened.send(Event::MainEnded);
            })?;
        }
        let machine = self.shared.read(|instance| Ok(instance.machine()))?;
        let shared = self.shared.clone();
        spawn("machine end", move || {
            machine.wait(None);
            let _ = shared.happened.send(Event::MachineEnded);
        })?;
        let shared = self.shared.clone();
        let listener = self.listener;
        spawn("connections", move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => shared.accept(stream),
                    // As when there are too many open files: later there may be fewer.
                    Err(_) => thread::sleep(RESPITE),
                }
            }
        })?;
        // This process itself holds a sender: there always comes something.
        let event = self.events.recv().unwrap_or(Event::MachineEnded);
        let (grace, asker) = match event {
            Event::Stop(grace, asker) => (Some(grace), asker),
            Event::MainEnded => (Some(GRACE), None),
            Event::MachineEnded => (None, None),
        };
        let instance = self.shared.take();
        let ended = match (grace, instance) {
            (Some(grace), Some(instance)) => instance.shutdown(grace),
            (None, Some(instance)) => Err(Error::GuestEnded(instance.post_mortem())),
            (_, None) => Ok(()),
        };
        self.shared.wait_for_connections();
        drop(self.claim);
        if let Some(asker) = asker {
            // What does not end in order ends with this process.
            let _ = asker.send(&Reply::Done {});
        }
        ended
    }
}

impl Shared {
    /// Acts on the guest, unless it is about to end.
    fn read<T>(&self, act: impl FnOnce(&Instance) -> Result<T>) -> Result<T> {
        let instance = self.instance.read().unwrap_or_else(PoisonError::into_inner);
        match &*instance {
            Some(instance) => act(instance),
            None => Err(Error::GuestGone("it is about to end".to_owned())),
        }
    }

    fn take(&self) -> Option<Instance> {
        let mut instance = self.instance.write().unwrap_or_else(PoisonError::into_inner);
        instance.take()
    }

    /// False where there are too many.
    fn begin_connection(&self) -> bool {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = *connections < CONNECTIONS_MAX;
        *connections += usize::from(has_room);
        has_room
    }

    fn end_connection(&self) {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.connection_ended.notify_all();
    }

    /// Waits until nobody is served any more; not for ever for those who do not listen.
    fn wait_for_connections(&self) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let some = |connections: &mut usize| *connections > 0;
        // That some are left is seen by nobody but them.
        let _ = self
            .connection_ended
            .wait_timeout_while(connections, LAST_WORDS, some);
    }

    /// Serves one connection on a thread.
    fn accept(self: &Arc<Self>, stream: UnixStream) {
        let (mut receiver, sender) = ends(stream);
        if !sender.is_peer_ours() {
            return;
        }
        if !self.begin_connection() {
            // As below.
            let _ = sender.send(&Reply::Error {
                message: format!("{CONNECTIONS_MAX} commands run in this guest already"),
            });
            return;
        }
        let shared = self.clone();
        let served = spawn("connection", move || {
            if let Err(error) = shared.serve(&mut receiver, &sender) {
                // Who is gone hears nothing.
                let _ = sender.send(&Reply::Error {
                    message: one_line(&error),
                });
            }
            shared.end_connection();
        });
        if let Err(error) = served {
            self.end_connection();
            warn!(error = one_line(&error), "a connection cannot be served");
        }
    }

    fn serve(&self, receiver: &mut Receiver, sender: &Sender) -> Result<()> {
        match receiver.receive()? {
            Some(Request::Exec(command)) => self.exec(&command, receiver, sender),
            Some(Request::Stop { grace_ms }) => {
                let grace = Duration::from_millis(grace_ms.into());
                // Nobody listens where the guest is about to end: then the connection ends with it.
                let _ = self.happened.send(Event::Stop(grace, Some(sender.clone())));
                Ok(())
            }
            Some(Request::Save { cache, snapshot }) => {
                self.check_cache(&cache)?;
                self.read(|instance| instance.save(&self.library.saved_guests(), &snapshot))?;
                sender.send(&Reply::Done {})
            }
            Some(Request::Fork { cache }) => self.fork(&cache, receiver, sender),
            Some(other @ (Request::Signal { .. } | Request::Resize { .. })) => {
                Err(Error::Message(format!("{other:?} needs a command first")))
            }
            None => Ok(()),
        }
    }

    fn exec(&self, command: &Command, receiver: &mut Receiver, sender: &Sender) -> Result<()> {
        let streams = streams(command, receiver)?;
        let process = self.read(|instance| instance.spawn(&self.with_usual(command)))?;
        let control = process.control();
        sender.send(&Reply::Started {})?;
        let forwarding = Forwarding::begin(process, streams)?;
        thread::scope(|scope| {
            scope.spawn(|| obey(&control, receiver, command.terminal.is_some()));
            let reply = match forwarding.wait() {
                Ok(ended) => Reply::Exited(ended),
                Err(error) => Reply::Error {
                    message: one_line(&error),
                },
            };
            // Who is gone hears nothing.
            let _ = sender.send(&reply);
            sender.close();
        });
        Ok(())
    }

    /// Puts the guest by for forks, for as long as who asked is connected.
    fn fork(&self, cache: &Path, receiver: &mut Receiver, sender: &Sender) -> Result<()> {
        self.check_cache(cache)?;
        let (lent, made) = self.read(|instance| {
            let lent = instance.lend(&self.library.forked_guests())?;
            let made = Made {
                snapshot: lent.name().to_owned(),
                backend: instance.backend().to_owned(),
                shares: instance.shares.clone(),
                usual: self.usual.clone(),
                has_main: self.has_main,
            };
            Ok((lent, made))
        })?;
        sender.send(&Reply::Forkable(made))?;
        // Nothing more is said: whatever comes is the end.
        let _ = receiver.receive::<Request>();
        drop(lent);
        Ok(())
    }

    /// What a guest is made of, and what is made of it, is in one cache.
    fn check_cache(&self, cache: &Path) -> Result<()> {
        let own = self.library.cache_folder();
        let is_same = cache == own
            || matches!((cache.canonicalize(), own.canonicalize()), (Ok(one), Ok(other)) if one == other);
        match is_same {
            true => Ok(()),
            false => Err(Error::OtherCache(own.to_owned())),
        }
    }

    fn with_usual(&self, command: &Command) -> Command {
        let usual = &self.usual;
        Command {
            env: [&usual.env[..], &command.env].concat(),
            working_dir: command.working_dir.clone().or(usual.working_dir.clone()),
            user: command.user.clone().or(usual.user.clone()),
            ..command.clone()
        }
    }
}

/// The streams that came with a command.
fn streams(command: &Command, receiver: &mut Receiver) -> Result<Streams> {
    let mut files = receiver.take_files();
    let (error, output, input) = (files.pop(), files.pop(), files.pop());
    match (error, output) {
        (Some(error), Some(output)) if input.is_some() == command.stdin => Ok(Streams {
            input: input.map(File::from),
            output: File::from(output),
            error: File::from(error),
        }),
        _ => Err(Error::Message("its streams did not come with it".to_owned())),
    }
}

/// Does what is wanted of a running command, until nobody is there to want anything.
fn obey(control: &ProcessControl, receiver: &mut Receiver, terminal: bool) {
    loop {
        let done = match receiver.receive() {
            Ok(Some(Request::Signal { number })) => control.signal(number),
            Ok(Some(Request::Resize { rows, columns })) => control.resize(rows, columns),
            Ok(_) | Err(_) => break,
        };
        if let Err(error) = done {
            warn!(error = one_line(&error), "a command was not reached");
        }
    }
    if terminal {
        // As when a connection by ssh breaks. One that has ended needs no more.
        let _ = control.signal(HANG_UP);
    }
}

/// Writes all that a process says to the log, until it has ended.
fn log_output(mut process: Process, log: &Log) -> Result<()> {
    thread::scope(|scope| {
        for output in [process.stdout.take(), process.stderr.take()]
            .into_iter()
            .flatten()
        {
            scope.spawn(|| keep(output, log.clone()));
        }
        process.wait().map(drop)
    })
}

/// A log that cannot be written loses what is written to it, and stops nobody.
fn keep(mut output: impl Read, mut log: Log) {
    while let Err(error) = io::copy(&mut output, &mut log) {
        warn!(%error, "what the main process writes is lost");
    }
}

fn spawn(name: &str, act: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(act).map(drop).map_err(|source| Error::Host {
        doing: "start a thread",
        source,
    })
}
