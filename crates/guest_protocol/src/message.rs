//! What is said on the channel, as values.

use alloc::string::String;
use alloc::vec::Vec;

use crate::file::{FileMetadata, FileRequest};
use crate::{Error, wire};

/// A message and whom it is about.
///
/// `id` is the number the host gave to a request or a process (never zero), and zero where the guest speaks
/// for itself (Hello, Mark).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<M> {
    /// Request or process.
    pub id: u32,
    /// What is said about it.
    pub message: M,
}

/// One of a process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Host to guest.
    Stdin,
    /// Guest to host; with a terminal, all output.
    Stdout,
    /// Guest to host; never used with a terminal.
    Stderr,
}

impl Stream {
    /// The stream's number, which is its file descriptor in the process.
    pub const fn number(self) -> u8 {
        match self {
            Stream::Stdin => wire::STDIN,
            Stream::Stdout => wire::STDOUT,
            Stream::Stderr => wire::STDERR,
        }
    }
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToGuest {
    /// Sets hostname, clock and entropy. The first request; sent again after a restore. → Done or Failed.
    Configure(Configure),
    /// Mounts the root file system and moves into it. At most once, before the first Exec. → Done or Failed.
    MountRoot(MountRoot),
    /// Mounts a share inside the root. → Done or Failed.
    Mount(Mount),
    /// Starts a process named by the frame's id. → Started or ExecFailed.
    Exec(Exec),
    /// Sends a signal (1..=64) to the process group of process `id`. No reply; a process that has ended
    /// meanwhile is no error.
    Signal(u32),
    /// Sets the terminal size of process `id`. No reply.
    WindowSize(WindowSize),
    /// Writes all file systems back. → Done.
    Sync,
    /// Ends every process, writes back, unmounts and powers off or restarts. → Done, just before the end.
    Shutdown(Shutdown),
    /// → Done, after everything the guest had to say about earlier frames.
    Ping,
    /// Stops all commands, and what they started, without their notice. → Done, when none runs any more; one that waits
    /// for what cannot be interrupted is given up on after a second.
    Freeze,
    /// Lets them go on. → Done.
    Thaw,
    /// Works on the guest's files; up to [`wire::MAX_FILE_REQUESTS`] may wait for their replies at once.
    /// → as [`FileRequest`] says, or Failed.
    File(FileRequest),
    /// Closes the file named by the frame's id. No reply; a file that is not open is no error.
    CloseFile,
    /// Bytes for stdin of process `id`: 1..=[`wire::MAX_DATA`], within the credit.
    Data(Stream, Vec<u8>),
    /// No more stdin.
    Eof(Stream),
    /// Nobody reads this output any more; the process sees a closed pipe. Also gives the process's slot free
    /// when it has ended and something it left in the background keeps an output open.
    Close(Stream),
    /// This many more bytes of an output may be sent.
    Credit(Stream, u32),
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToHost {
    /// The first frame. id 0.
    Hello(Hello),
    /// The request is done.
    Done,
    /// The request failed.
    Failed(Failure),
    /// The process runs its program, with this pid in the guest.
    Started(u32),
    /// The process never ran its program; the id is free again.
    ExecFailed(ExecFailure),
    /// The process ended. Output may still follow; see the crate's page.
    Exited(Exited),
    /// All that the ended process itself wrote to this stream has been sent.
    Drained(Stream),
    /// A point of the guest's timeline. id 0.
    Mark(Mark),
    /// The file operation is done and gives these bytes, at most [`wire::MAX_DATA`].
    FileData(Vec<u8>),
    /// The file operation is done and tells this.
    FileMetadata(FileMetadata),
    /// The file operation is done and wrote this many bytes.
    FileWritten(u32),
    /// Bytes of an output, within the credit.
    Data(Stream, Vec<u8>),
    /// The output is at its end: every process that held it has closed it.
    Eof(Stream),
    /// The process closed its stdin (or ended); what is sent after this is dropped.
    Close(Stream),
    /// This many more bytes of stdin may be sent.
    Credit(Stream, u32),
}

/// The guest's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
    /// 64-bit RISC-V.
    Riscv64,
}

/// Who the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version it speaks.
    pub version_min: u16,
    /// Newest protocol version it speaks.
    pub version_max: u16,
    /// Its architecture.
    pub arch: Arch,
    /// Whether it was started with `--control-fd` and leaves the machine alone.
    pub hosted: bool,
    /// How many processes it can hold at once.
    pub slots: u32,
    /// The kernel's random id of this boot.
    pub boot_id: [u8; 16],
    /// `CLOCK_BOOTTIME` when the program started, in ns.
    pub start_ns: u64,
    /// `CLOCK_BOOTTIME` when this was written, in ns.
    pub now_ns: u64,
    /// The kernel's release, at most [`wire::MAX_RELEASE`] bytes; what is not UTF-8 in it is replaced.
    pub release: String,
}

impl Hello {
    /// The newest version both sides speak, to be put into [`Configure::version`].
    ///
    /// # Errors
    /// [`Error::NoCommonVersion`], naming both ranges.
    pub fn negotiate(&self) -> Result<u16, Error> {
        let newest = self.version_max.min(wire::VERSION_MAX);
        if newest < self.version_min.max(wire::VERSION_MIN) {
            return Err(Error::NoCommonVersion {
                guest: (self.version_min, self.version_max),
                host: (wire::VERSION_MIN, wire::VERSION_MAX),
            });
        }
        Ok(newest)
    }
}

/// What makes this guest itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configure {
    /// The version of [`Hello::negotiate`].
    pub version: u16,
    /// Hostname, at most [`wire::MAX_HOSTNAME`] bytes; empty leaves it alone.
    pub hostname: Vec<u8>,
    /// Wall clock in ns since 1970; zero leaves it alone.
    pub wall_clock_ns: u64,
    /// Fresh random bytes for the kernel's pool, at most [`wire::MAX_ENTROPY`].
    pub entropy: Vec<u8>,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRoot {
    /// virtio-fs tag, at most [`wire::MAX_TAG`] bytes.
    pub tag: Vec<u8>,
    /// Read-only for everybody, once the mount points are made.
    pub read_only: bool,
}

/// A share inside the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// virtio-fs tag, at most [`wire::MAX_TAG`] bytes.
    pub tag: Vec<u8>,
    /// Absolute path where it appears; made, with its parents, if missing.
    pub path: Vec<u8>,
    /// What of the share appears there: empty is its root directory, else a path below that root, which may
    /// name a single file.
    pub source: Vec<u8>,
    /// Read-only for everybody.
    pub read_only: bool,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// Program and arguments, at least the program. A name without a slash is looked for in the `PATH` of
    /// `env`, or in the usual six directories if it has none. With `env` at most about
    /// [`wire::MAX_PAYLOAD`] bytes, and at most [`wire::MAX_STRINGS`].
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, `NAME=value` each; at most [`wire::MAX_STRINGS`].
    pub env: Vec<Vec<u8>>,
    /// Working directory; empty is `/`.
    pub cwd: Vec<u8>,
    /// Make the working directory first if it is missing.
    pub create_cwd: bool,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, all of them; at most [`wire::MAX_GROUPS`].
    pub groups: Vec<u32>,
    /// What its file descriptors 0, 1 and 2 are.
    pub stdio: Stdio,
}

/// A process's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// A pipe for each that is wanted, `/dev/null` for each that is not.
    Pipes {
        /// Whether stdin is a stream.
        stdin: bool,
        /// Whether stdout is a stream.
        stdout: bool,
        /// Whether stderr is a stream.
        stderr: bool,
    },
    /// A controlling terminal of this size; its output is [`Stream::Stdout`].
    Tty(WindowSize),
}

impl Default for Stdio {
    fn default() -> Self {
        Stdio::Pipes {
            stdin: true,
            stdout: true,
            stderr: true,
        }
    }
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub cols: u16,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Restart instead of powering off.
    pub restart: bool,
    /// Time between SIGTERM and SIGKILL, in ms, at most [`wire::MAX_GRACE_MS`]; it ends early when every
    /// process has. Zero kills at once.
    pub grace_ms: u32,
}

/// What the guest was doing when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Understanding the request.
    Request,
    /// Agreeing on a version.
    Version,
    /// Mounting, or making the mount point.
    Mount,
    /// Setting hostname, clock or entropy.
    Configure,
    /// Finding a free slot: too many processes, or an id in use.
    Slot,
    /// Making pipes or a terminal.
    Stdio,
    /// Forking.
    Fork,
    /// Entering the working directory.
    Cwd,
    /// Setting user and group ids.
    Credentials,
    /// Finding and executing the program.
    Exec,
    /// Working on files.
    File,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Linux error number.
    pub errno: u32,
    /// What was being done.
    pub stage: Stage,
    /// What it was done to, for people; at most [`wire::MAX_TEXT`] bytes, what is not UTF-8 is replaced.
    pub text: String,
}

/// Why a process never ran its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecFailure {
    /// Linux error number.
    pub errno: u32,
    /// What was being done.
    pub stage: Stage,
}

impl ExecFailure {
    /// The exit status a shell or Docker gives this: 127 where program or working directory do not exist,
    /// 126 where they cannot be used, 125 where the guest could not even try.
    pub const fn shell_code(&self) -> u8 {
        const ENOENT: u32 = 2;
        match (self.stage, self.errno) {
            (Stage::Exec | Stage::Cwd, ENOENT) => 127,
            (Stage::Exec | Stage::Cwd, _) => 126,
            _ => 125,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// With a code of its own.
    Code(u8),
    /// By a signal.
    Signal {
        /// Its number, 1..=64.
        signal: u8,
        /// Whether a core was written.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// The exit status a shell gives this: the code, or 128 and the signal's number.
    pub const fn shell_code(&self) -> u8 {
        match self {
            ExitStatus::Code(code) => *code,
            ExitStatus::Signal { signal, .. } => 128u8.saturating_add(*signal),
        }
    }
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// How it ended.
    pub status: ExitStatus,
    /// stdout still holds bytes of the process for which there is no credit; Drained or Eof will follow.
    pub stdout_undrained: bool,
    /// The same of stderr.
    pub stderr_undrained: bool,
    /// User time of it and the children it waited for, in µs.
    pub user_us: u64,
    /// System time of the same, in µs.
    pub system_us: u64,
    /// Largest resident set of any of them, in KiB.
    pub max_rss_kib: u64,
}

/// A point of the guest's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// `CLOCK_BOOTTIME`, in ns.
    pub ns: u64,
    /// What was reached; at most [`wire::MAX_TEXT`] bytes, what is not UTF-8 is replaced.
    pub name: String,
}
