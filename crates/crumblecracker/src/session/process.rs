//! A process in the guest.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use guest_protocol::{Exec, ExecFailure, Exited, Stdio, Stream, ToGuest, ToHost, WindowSize};

use super::saved::SavedProcess;
use super::streams::{InputGate, OutputQueue};
use super::{ProcessInput, ProcessOutput, Session, Shared};
use crate::{Result, Timeline};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ran and ended.
    Ended(guest_protocol::ExitStatus),
    /// The program could not be executed.
    NotExecuted(ExecFailure),
}

impl ExitStatus {
    /// The status a shell gives this: the code; 128 and the signal's number; 126 or 127 for a program that
    /// cannot be executed or found.
    pub fn code(&self) -> u8 {
        match self {
            Self::Ended(status) => status.shell_code(),
            Self::NotExecuted(failure) => failure.shell_code(),
        }
    }
}

/// The end of a process, for whoever waits for it.
#[derive(Default)]
struct End {
    status: Mutex<Option<std::result::Result<ExitStatus, ()>>>,
    changed: Condvar,
}

impl End {
    /// Says how it ended; the first word counts.
    fn set(&self, status: std::result::Result<ExitStatus, ()>) {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(status);
        self.changed.notify_all();
    }
}

/// What the reading thread holds of a process.
pub(super) struct ProcessEntry {
    started: SyncSender<std::result::Result<u32, ExecFailure>>,
    /// Its number in the guest, once it runs.
    pid: Option<u32>,
    /// Whether its streams are a terminal.
    pub(super) terminal: bool,
    end: Arc<End>,
    input: Option<Arc<InputGate>>,
    outputs: Vec<(Stream, Arc<OutputQueue>)>,
    /// Streams that must be drained before the end is told.
    undrained: Vec<Stream>,
    exited: Option<ExitStatus>,
    open_outputs: usize,
    timeline: Timeline,
    has_written: bool,
}

impl ProcessEntry {
    /// Its number in the guest, while it runs.
    pub(super) fn running(&self) -> Option<u32> {
        self.pid.filter(|_| self.exited.is_none())
    }

    pub(super) fn input(&self) -> Option<&Arc<InputGate>> {
        self.input.as_ref()
    }

    /// What was saved of a process that runs, and its user's view of it.
    pub(super) fn resume(
        session: &Arc<Shared>,
        saved: SavedProcess,
        timeline: &Timeline,
    ) -> std::result::Result<(Self, Process), saved_state::Error> {
        let input = saved.input.map(|input| input.gate()).transpose()?;
        let mut outputs = Vec::new();
        for (stream, output) in [(Stream::Stdout, saved.stdout), (Stream::Stderr, saved.stderr)] {
            if let Some(output) = output {
                outputs.push((stream, Arc::new(output.queue()?)));
            }
        }
        let terminal = saved.terminal;
        let (mut entry, process) = pair(
            session,
            saved.id,
            terminal,
            input.map(Arc::new),
            outputs,
            timeline,
        );
        entry.pid = Some(saved.pid);
        entry.has_written = true;
        // Its user's end is here still.
        let _ = entry.started.try_send(Ok(saved.pid));
        Ok((entry, process))
    }

    pub(super) fn output(&self, stream: Stream) -> Option<&Arc<OutputQueue>> {
        self.outputs
            .iter()
            .find(|(name, _)| *name == stream)
            .map(|(_, queue)| queue)
    }

    /// Takes one frame about this process.
    pub(super) fn deliver(&mut self, message: ToHost) -> std::result::Result<(), String> {
        match message {
            ToHost::Started(pid) => {
                self.timeline.mark("command runs");
                self.pid = Some(pid);
                let _ = self.started.try_send(Ok(pid));
            }
            ToHost::ExecFailed(failure) => {
                let _ = self.started.try_send(Err(failure));
                self.exited = Some(ExitStatus::NotExecuted(failure));
                self.finish();
            }
            ToHost::Data(stream, bytes) => {
                if !std::mem::replace(&mut self.has_written, true) {
                    self.timeline.mark("first output");
                }
                let queue = self
                    .output(stream)
                    .ok_or("it sent output of a stream that was not asked for")?;
                queue.push(&bytes)?;
            }
            ToHost::Eof(stream) => {
                self.open_outputs = self.open_outputs.saturating_sub(1);
                self.drained(stream);
            }
            ToHost::Drained(stream) => self.drained(stream),
            ToHost::Exited(exited) => self.exit(&exited),
            ToHost::Close(Stream::Stdin) => self.close_input(),
            ToHost::Credit(Stream::Stdin, bytes) => {
                if let Some(input) = &self.input {
                    input.grant(bytes)?;
                }
            }
            other => return Err(format!("it sent {other:?} about a process")),
        }
        Ok(())
    }

    fn close_input(&self) {
        if let Some(input) = &self.input {
            input.close();
        }
    }

    /// All that the process itself wrote to `stream` is here.
    fn drained(&mut self, stream: Stream) {
        self.undrained.retain(|waiting| *waiting != stream);
        if let Some(queue) = self.output(stream) {
            queue.end();
        }
        self.tell_end();
    }

    fn exit(&mut self, exited: &Exited) {
        self.timeline.mark("command ended");
        self.exited = Some(ExitStatus::Ended(exited.status));
        let flags = [
            (Stream::Stdout, exited.stdout_undrained),
            (Stream::Stderr, exited.stderr_undrained),
        ];
        self.undrained = flags
            .into_iter()
            .filter(|(_, undrained)| *undrained)
            .map(|(name, _)| name)
            .collect();
        self.close_input();
        // What something left in the background writes later belongs to nobody.
        for (stream, queue) in &self.outputs {
            if !self.undrained.contains(stream) {
                queue.end();
            }
        }
        self.tell_end();
    }

    fn tell_end(&mut self) {
        if let Some(status) = self.exited
            && self.undrained.is_empty()
        {
            self.end.set(Ok(status));
        }
    }

    /// It never ran: everything ends at once.
    fn finish(&mut self) {
        self.open_outputs = 0;
        self.undrained.clear();
        self.close_input();
        self.outputs.iter().for_each(|(_, queue)| queue.end());
        self.tell_end();
    }

    /// Whether no frame can follow.
    pub(super) fn is_over(&self) -> bool {
        self.exited.is_some() && self.open_outputs == 0
    }

    /// The guest is gone.
    pub(super) fn abandon(self) {
        self.close_input();
        self.outputs.iter().for_each(|(_, queue)| queue.end());
        self.end.set(Err(()));
    }
}

/// A process in the guest, like [`std::process::Child`].
pub struct Process {
    /// Its standard input, if it is a stream.
    pub stdin: Option<ProcessInput>,
    /// Its standard output, if it is a stream; all output of a terminal.
    pub stdout: Option<ProcessOutput>,
    /// Its standard error, if it is a stream of its own.
    pub stderr: Option<ProcessOutput>,
    terminal: bool,
    control: ProcessControl,
    end: Arc<End>,
    started: Receiver<std::result::Result<u32, ExecFailure>>,
}

/// A handle to send signals to a process and to resize its terminal, from any thread.
#[derive(Clone)]
pub struct ProcessControl {
    session: Arc<Shared>,
    id: u32,
}

impl ProcessControl {
    /// Sends signal `number` (1 to 64) to its process group. A process that has ended is no error.
    ///
    /// # Errors
    /// [`GuestGone`](crate::Error::GuestGone).
    pub fn signal(&self, number: u32) -> Result<()> {
        self.session.send(self.id, ToGuest::Signal(number))
    }

    /// Tells its terminal the size in characters.
    ///
    /// # Errors
    /// [`GuestGone`](crate::Error::GuestGone).
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.session
            .send(self.id, ToGuest::WindowSize(WindowSize { rows, cols: columns }))
    }
}

impl Process {
    /// Whether it has a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The first of these, where it is wanted; all others go on with nobody listening.
    ///
    /// # Errors
    /// As [`Process::leave_alone`].
    pub fn first_of(processes: Vec<Self>, is_wanted: bool) -> Result<Option<Self>> {
        let mut processes = processes.into_iter();
        let first = is_wanted.then(|| processes.next()).flatten();
        processes.try_for_each(Self::leave_alone)?;
        Ok(first)
    }

    /// Lets it go on with nobody listening: what it writes is read and thrown away. Its standard input stays open.
    ///
    /// # Errors
    /// [`Host`](crate::Error::Host) when the host gives no thread.
    pub fn leave_alone(self) -> Result<()> {
        let Self {
            stdin,
            stdout,
            stderr,
            ..
        } = self;
        let outputs = [stdout, stderr].into_iter().flatten();
        let input = Arc::new(stdin);
        for mut output in outputs {
            let input = input.clone();
            let drain = move || {
                // The guest's end is the end of it, too.
                let _ = io::copy(&mut output, &mut io::sink());
                drop(input);
            };
            let thread = thread::Builder::new().name("drain".to_owned()).spawn(drain);
            thread.map_err(|source| crate::Error::Host {
                doing: "start a thread",
                source,
            })?;
        }
        Ok(())
    }

    /// A handle for signals and terminal size.
    pub fn control(&self) -> ProcessControl {
        self.control.clone()
    }

    /// Waits until it runs; a program that cannot be executed is told by [`Process::wait`] too.
    ///
    /// # Errors
    /// [`GuestGone`](crate::Error::GuestGone).
    pub fn wait_started(&self) -> Result<std::result::Result<u32, ExecFailure>> {
        self.started.recv().map_err(|_| self.control.session.gone())
    }

    /// Waits for its end. All it wrote has arrived by then, or waits in [`Process::stdout`] and
    /// [`Process::stderr`]: who does not read them waits for ever for a process that writes much.
    ///
    /// # Errors
    /// [`GuestGone`](crate::Error::GuestGone) when the machine ends first.
    pub fn wait(&self) -> Result<ExitStatus> {
        let mut status = self.end.status.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *status {
                Some(Ok(status)) => return Ok(status),
                Some(Err(())) => return Err(self.control.session.gone()),
                None => {
                    status = self
                        .end
                        .changed
                        .wait(status)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

impl Session {
    /// Starts a process, whose way is noted on `timeline`. Its program may still turn out not to exist: see
    /// [`Process::wait_started`].
    ///
    /// # Errors
    /// [`Error::Request`] for arguments the channel cannot carry, [`GuestGone`](crate::Error::GuestGone).
    pub(crate) fn exec(&self, exec: Exec, timeline: &Timeline) -> Result<Process> {
        let id = self.shared.new_id();
        let (stdin, stdout, stderr) = match exec.stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => (stdin, stdout, stderr),
            Stdio::Tty(_) => (true, true, false),
        };
        let output = |stream, wanted: bool| wanted.then(|| (stream, Arc::new(OutputQueue::default())));
        let outputs: Vec<_> = [output(Stream::Stdout, stdout), output(Stream::Stderr, stderr)]
            .into_iter()
            .flatten()
            .collect();
        let input = stdin.then(Arc::<InputGate>::default);
        let terminal = matches!(exec.stdio, Stdio::Tty(_));
        let (entry, process) = pair(&self.shared, id, terminal, input, outputs, timeline);
        {
            let mut table = self.shared.table();
            if table.closed.is_some() {
                drop(table);
                return Err(self.shared.gone());
            }
            table.processes.insert(id, entry);
        }
        if let Err(error) = self.shared.send(id, ToGuest::Exec(exec)) {
            self.shared.table().processes.remove(&id);
            return Err(error);
        }
        Ok(process)
    }
}

/// The two views of process `id`: the reading thread's and its user's.
fn pair(
    session: &Arc<Shared>,
    id: u32,
    terminal: bool,
    input: Option<Arc<InputGate>>,
    outputs: Vec<(Stream, Arc<OutputQueue>)>,
    timeline: &Timeline,
) -> (ProcessEntry, Process) {
    let end = Arc::<End>::default();
    let (started_sender, started) = mpsc::sync_channel(1);
    let reader = |wanted: Stream| {
        let mut queues = outputs.iter();
        let (_, queue) = queues.find(|(stream, _)| *stream == wanted)?;
        Some(ProcessOutput {
            queue: queue.clone(),
            session: session.clone(),
            id,
            stream: wanted,
        })
    };
    let process = Process {
        stdin: input.clone().map(|gate| ProcessInput {
            gate,
            session: session.clone(),
            id,
        }),
        stdout: reader(Stream::Stdout),
        stderr: reader(Stream::Stderr),
        terminal,
        control: ProcessControl {
            session: session.clone(),
            id,
        },
        end: end.clone(),
        started,
    };
    let entry = ProcessEntry {
        started: started_sender,
        pid: None,
        terminal,
        end,
        input,
        open_outputs: outputs.len(),
        outputs,
        undrained: Vec::new(),
        exited: None,
        timeline: timeline.clone(),
        has_written: false,
    };
    (entry, process)
}
