//! The host's side of the control channel, for tests: one thread that reads frames, returns credit and sends
//! stdin, until something a test waits for has happened.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file includes this and uses its part"
)]

pub mod files;
pub mod qemu;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use guest_protocol::{
    Arch, Decoder, Exec, ExecFailure, Exited, Failure, Frame, Hello, ReceiveCredit, SendCredit, Shutdown,
    Stdio, Stream, ToGuest, ToHost, wire,
};

/// How long a test waits for anything before it fails; far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has become of one process so far.
#[derive(Debug)]
pub struct Process {
    pub pid: Option<u32>,
    pub failed: Option<ExecFailure>,
    pub exited: Option<Exited>,
    /// stdout and stderr.
    pub output: [Vec<u8>; 2],
    pub eof: [bool; 2],
    pub drained: [bool; 2],
    /// The guest sent Close for stdin.
    pub stdin_closed: bool,
    /// Return no credit.
    pub stalled: bool,
    input: Vec<u8>,
    input_sent: usize,
    input_ends: bool,
    send: SendCredit,
    receive: [ReceiveCredit; 2],
}

impl Process {
    fn new(input: &[u8]) -> Self {
        Self {
            pid: None,
            failed: None,
            exited: None,
            output: Default::default(),
            eof: [false; 2],
            drained: [false; 2],
            stdin_closed: false,
            stalled: false,
            input: input.to_vec(),
            input_sent: 0,
            input_ends: false,
            send: SendCredit::new(),
            receive: Default::default(),
        }
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.failed.is_some() || (self.exited.is_some() && self.eof == [true; 2])
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output[0]).into_owned()
    }

    pub fn shell_code(&self) -> u8 {
        match (&self.exited, &self.failed) {
            (Some(exited), _) => exited.status.shell_code(),
            (None, Some(failure)) => failure.shell_code(),
            (None, None) => panic!("neither ended nor failed: {self:?}"),
        }
    }
}

/// A connection to a guest program.
pub struct Guest {
    pub socket: UnixStream,
    pub hello: Hello,
    pub processes: BTreeMap<u32, Process>,
    /// Ids of Done in the order they came.
    pub done: Vec<u32>,
    pub failures: Vec<(u32, Failure)>,
    /// Replies to file requests that are more than Done or Failed.
    pub file_replies: BTreeMap<u32, ToHost>,
    pub marks: Vec<String>,
    decoder: Decoder<ToHost>,
    next_id: u32,
    child: Option<Child>,
}

impl Guest {
    /// Starts the program as init of a pid namespace of its own, its control channel a socket.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = put_program(directory.path());
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount-proc").arg("--").arg(&program);
        Self::start_as(unshare)
    }

    /// The same with `root` as its root directory, in which nothing else has to be.
    pub fn start_in(root: &Path) -> Self {
        put_program(root);
        let mut unshare = Command::new("unshare");
        unshare.arg("--root").arg(root).arg("--").arg("/guest");
        Self::start_as(unshare)
    }

    fn start_as(unshare: Command) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(unshare.get_program())
            .args(["--pid", "--mount", "--fork", "--kill-child"])
            .args(unshare.get_args())
            .args(["--control-fd", "0"])
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .expect("unshare (Debian package util-linux) can be run");
        let mut guest = Self::connect(socket, Some(child), PATIENCE)
            .expect("the program says Hello (these tests need root)");
        assert!(guest.hello.hosted);
        guest.configure();
        guest
    }

    /// Waits for Hello on a connected socket; `None` if the other end went away or said nothing in `patience`.
    pub fn connect(socket: UnixStream, child: Option<Child>, patience: Duration) -> Option<Self> {
        socket.set_read_timeout(Some(patience)).unwrap();
        let mut decoder = Decoder::new();
        let hello = loop {
            match decoder.next_frame().unwrap() {
                Some(Frame {
                    id: 0,
                    message: ToHost::Hello(hello),
                }) => break hello,
                Some(frame) => panic!("{frame:?} before Hello"),
                None => receive(&socket, &mut decoder)?,
            }
        };
        Some(Self {
            socket,
            hello,
            processes: BTreeMap::new(),
            done: Vec::new(),
            failures: Vec::new(),
            file_replies: BTreeMap::new(),
            marks: Vec::new(),
            decoder,
            next_id: 1,
            child,
        })
    }

    fn configure(&mut self) {
        let version = self.hello.negotiate().unwrap();
        let id = self.request(ToGuest::Configure(guest_protocol::Configure {
            version,
            ..Default::default()
        }));
        self.wait_done(id);
    }

    pub fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    pub fn send(&mut self, id: u32, message: ToGuest) {
        let bytes = Frame { id, message }.to_bytes().unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    /// Expects reports about a process that was not started by [`Guest::exec`].
    pub fn adopt(&mut self, id: u32) {
        self.processes.insert(id, Process::new(b""));
        self.next_id = self.next_id.max(id);
    }

    /// Sends a request under a new id.
    pub fn request(&mut self, message: ToGuest) -> u32 {
        let id = self.new_id();
        self.send(id, message);
        id
    }

    /// Starts a process with all its stdin, which ends after it.
    pub fn exec(&mut self, exec: Exec, input: &[u8]) -> u32 {
        let id = self.new_id();
        let stdio = exec.stdio;
        self.send(id, ToGuest::Exec(exec));
        let mut process = Process::new(input);
        match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                process.input_ends = stdin;
                process.eof = [!stdout, !stderr];
            }
            // A terminal has one output, and its stdin does not end by itself.
            Stdio::Tty(_) => process.eof = [false, true],
        }
        self.processes.insert(id, process);
        self.feed(id);
        id
    }

    /// Starts `sh -c script`, its stdin empty.
    pub fn sh(&mut self, script: &str) -> u32 {
        self.exec(command(&["sh", "-c", script]), b"")
    }

    /// Sends more stdin, within the credit.
    pub fn write(&mut self, id: u32, bytes: &[u8]) {
        self.processes
            .get_mut(&id)
            .unwrap()
            .input
            .extend_from_slice(bytes);
        self.feed(id);
    }

    fn feed(&mut self, id: u32) {
        let mut frames = Vec::new();
        let process = self.processes.get_mut(&id).unwrap();
        while process.input_sent < process.input.len() && !process.stdin_closed {
            let wanted = (process.input.len() - process.input_sent).min(wire::MAX_DATA);
            let granted = process.send.take(wanted);
            if granted == 0 {
                break;
            }
            let data = process.input[process.input_sent..process.input_sent + granted].to_vec();
            process.input_sent += granted;
            frames.push(ToGuest::Data(Stream::Stdin, data));
        }
        if process.input_ends && process.input_sent == process.input.len() {
            process.input_ends = false;
            frames.push(ToGuest::Eof(Stream::Stdin));
        }
        for frame in frames {
            self.send(id, frame);
        }
    }

    /// Grants what a stalled process is owed and returns credit from now on.
    pub fn unstall(&mut self, id: u32) {
        let process = self.processes.get_mut(&id).unwrap();
        process.stalled = false;
        let owed = process.output.each_ref().map(Vec::len);
        for (n, owed) in owed.into_iter().enumerate() {
            self.consume(id, n, owed);
        }
    }

    fn consume(&mut self, id: u32, n: usize, len: usize) {
        let process = self.processes.get_mut(&id).unwrap();
        if let Some(credit) = process.receive[n].consumed(len) {
            self.send(id, ToGuest::Credit(OUTPUTS[n], credit));
        }
    }

    /// Serves the channel until `happened`; panics where it never does.
    pub fn wait(&mut self, mut happened: impl FnMut(&Guest) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened(self) {
            assert!(
                Instant::now() < deadline,
                "did not happen; {:?}, {:?}",
                self.failures,
                self.processes
            );
            self.step();
        }
    }

    fn step(&mut self) {
        match self.decoder.next_frame().unwrap() {
            Some(frame) => self.serve(frame),
            None => receive(&self.socket, &mut self.decoder).expect("the guest goes on talking"),
        }
    }

    pub fn wait_done(&mut self, id: u32) {
        self.wait(|guest| guest.done.contains(&id) || guest.failures.iter().any(|failure| failure.0 == id));
        assert!(self.done.contains(&id), "{:?}", self.failures);
    }

    pub fn wait_failed(&mut self, id: u32) -> Failure {
        self.wait(|guest| guest.failures.iter().any(|failure| failure.0 == id));
        self.failures
            .iter()
            .find(|failure| failure.0 == id)
            .unwrap()
            .1
            .clone()
    }

    /// Waits until all frames sent so far are served.
    pub fn ping(&mut self) {
        let id = self.request(ToGuest::Ping);
        self.wait_done(id);
    }

    pub fn wait_over(&mut self, id: u32) -> &Process {
        self.wait(|guest| guest.processes[&id].is_over());
        &self.processes[&id]
    }

    pub fn wait_output(&mut self, id: u32, text: &str) {
        self.wait(|guest| guest.processes[&id].stdout().contains(text));
    }

    pub fn run(&mut self, exec: Exec, input: &[u8]) -> &Process {
        let id = self.exec(exec, input);
        self.wait_over(id)
    }

    /// Runs `sh -c script` to its end and returns its stdout.
    pub fn run_sh(&mut self, script: &str) -> String {
        let id = self.sh(script);
        self.wait_over(id).stdout()
    }

    fn serve(&mut self, frame: Frame<ToHost>) {
        let id = frame.id;
        match frame.message {
            ToHost::Done => self.done.push(id),
            ToHost::Failed(failure) => self.failures.push((id, failure)),
            ToHost::Mark(mark) => self.marks.push(mark.name),
            reply @ (ToHost::FileData(_) | ToHost::FileMetadata(_) | ToHost::FileWritten(_)) => {
                self.file_replies.insert(id, reply);
            }
            ToHost::Data(stream, data) => {
                let n = index(stream);
                let process = self.processes.get_mut(&id).expect("output of a known process");
                assert!(process.pid.is_some(), "output before Started");
                assert!(!process.eof[n], "output after Eof");
                process.receive[n]
                    .received(data.len())
                    .expect("within the credit");
                process.output[n].extend_from_slice(&data);
                if !process.stalled {
                    self.consume(id, n, data.len());
                }
            }
            message => {
                let process = self.processes.get_mut(&id).expect("report of a known process");
                match message {
                    ToHost::Started(pid) => process.pid = Some(pid),
                    ToHost::ExecFailed(failure) => process.failed = Some(failure),
                    ToHost::Exited(exited) => process.exited = Some(exited),
                    ToHost::Drained(stream) => process.drained[index(stream)] = true,
                    ToHost::Eof(stream) => process.eof[index(stream)] = true,
                    ToHost::Close(_) => process.stdin_closed = true,
                    ToHost::Credit(_, bytes) => {
                        process.send.grant(bytes).unwrap();
                        self.feed(id);
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }

    /// Shuts down and returns the program's exit status, if it was started here.
    pub fn shut_down(mut self, grace_ms: u32) -> Option<i32> {
        let id = self.request(ToGuest::Shutdown(Shutdown {
            restart: false,
            grace_ms,
        }));
        self.wait_done(id);
        let mut child = self.child.take()?;
        child.wait().unwrap().code()
    }

    /// Closes the channel and returns the program's exit status.
    pub fn hang_up(mut self) -> Option<i32> {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.child.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either may fail only because it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn put_program(directory: &Path) -> PathBuf {
    let program = directory.join("guest");
    std::fs::write(&program, guest::program(Arch::Amd64).unwrap()).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

fn index(stream: Stream) -> usize {
    OUTPUTS
        .iter()
        .position(|output| *output == stream)
        .expect("an output")
}

/// Reads what has come; `None` at the end of the stream, or where nothing came in time.
fn receive(mut socket: &UnixStream, decoder: &mut Decoder<ToHost>) -> Option<()> {
    let mut bytes = [0; 64 * 1024];
    let n = socket.read(&mut bytes).unwrap_or(0);
    decoder.push(&bytes[..n]);
    (n > 0).then_some(())
}

/// A command with the usual `PATH` and all three streams.
pub fn command(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec()],
        ..Exec::default()
    }
}

/// The same in a terminal.
pub fn terminal(argv: &[&str], rows: u16, cols: u16) -> Exec {
    Exec {
        stdio: Stdio::Tty(guest_protocol::WindowSize { rows, cols }),
        ..command(argv)
    }
}
