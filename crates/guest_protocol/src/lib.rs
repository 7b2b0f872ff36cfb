//! The bytes of the host-to-guest control channel.
//!
//! One framed byte stream each way over a virtio-console port named [`PORT_NAME`]; the other end is the
//! guest program, PID 1 of the guest. This crate knows the frames and the credit of streams. It must never
//! know how bytes travel (ports, sockets), what runs in the guest, or any operating system: it has no
//! dependencies and needs `alloc` only. `wire.rs` alone has the numbers, and the guest program, which has no
//! `alloc` either, includes that very file.
//!
//! # The conversation
//! ```text
//! host                                   guest
//!                                        Hello           versions, architecture, boot id, timeline
//! Configure #1                           Done #1         hostname, clock, entropy; the version chosen
//! MountRoot #2                           Done #2         root on virtio-fs, /proc /sys /dev … mounted
//! Mount #3                               Done #3         one per share
//! Exec #4                                Started #4      or ExecFailed #4
//! Data/Eof #4 stdin                      Credit #4 stdin
//! Credit #4 stdout                       Data #4 stdout, stderr
//! Signal, WindowSize #4                                  no reply
//!                                        Exited #4, Eof #4 stdout, Eof #4 stderr
//! File #5 Open "/etc/hosts"              Done #5         or Failed #5
//! File #6 Read file 5                    FileData #6     empty at its end
//! CloseFile #5                                           no reply
//! Shutdown #7                            Done #7         and the machine powers off
//! ```
//! * **Ids.** The host gives every request a number, not zero, and the reply carries it. An Exec's number
//!   names its process and must not be that of another living one; it is free again after ExecFailed, or when
//!   Exited and the end (Eof, or the host's Close) of every output have passed. Requests are answered in the
//!   order they were sent, Execs and file operations aside: they overlap. An Open's number names its file
//!   until CloseFile; a file that is closed or was never open is answered `EBADF`.
//! * **Versions.** Hello names the versions the guest speaks, [`Hello::negotiate`] chooses, Configure tells.
//!   A guest that cannot speak it answers Failed at [`Stage::Version`].
//! * **Credit.** Every stream starts with [`wire::INITIAL_CREDIT`] bytes of credit; its receiver returns
//!   credit as it passes bytes on ([`SendCredit`], [`ReceiveCredit`]). Both sides always read the channel,
//!   so a stream whose reader is slow stops alone. Bytes past the credit are a broken protocol: the host
//!   gives the guest up, the guest answers Failed and drops them. Each side may send Close for a stream it
//!   receives: the other stops sending. Frames for processes and streams that are already gone cross on the
//!   way and are ignored.
//! * **The end of a process.** Exited is sent as soon as the process itself has ended, after every byte it
//!   wrote for which there was credit. Streams that wait for credit at that moment are marked in it, and
//!   Drained (or Eof) follows on each when the rest has been sent. So what the process wrote is complete at
//!   Exited, or at the last of these. Eof may come much later, or never, where something was left running in
//!   the background with the output open: a host that does not care sends Close.
//! * **A terminal** has one stream each way: [`Stream::Stdin`] and [`Stream::Stdout`]. Eof on its stdin sends
//!   the terminal's end-of-file character; it cannot be closed.
//! * **Files.** [`FileRequest`]s are done one after the other in the order they came, as root and by a helper
//!   process of the guest program, so that a slow or hanging file system holds up files only. A request moves
//!   at most [`wire::MAX_DATA`] bytes and is its reply's credit: whoever reads slowly asks slowly, and more
//!   than [`wire::MAX_FILE_REQUESTS`] unanswered ones are refused with `EAGAIN`. Paths start at the root, or
//!   at an open directory, which no rename or symbolic link can swap. Where the helper is killed, what it
//!   still owed is answered `EIO` and the files it had open are closed; the next request finds a new one.
//! * **Snapshots.** A guest that has answered Ping, holds no process and owes no reply is silent until it is
//!   spoken to, so the channel stands between two frames. After a restore Configure is sent again.
//! * **Unknown kinds** and impossible lengths are skipped by the guest and answered Failed at
//!   [`Stage::Request`]; the host, whose peer may be hostile, gives up instead. Numbers are kept for
//!   network operations.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod codec;
mod credit;
mod error;
mod file;
mod message;
mod to_guest;
mod to_host;
/// The numbers: kinds, layouts, limits.
pub mod wire;

pub use codec::{Decoder, Message};
pub use credit::{ReceiveCredit, SendCredit};
pub use error::Error;
pub use file::{DirectoryEntry, FileMetadata, FilePath, FileRequest, FileTime, OpenFlags, directory_entries};
pub use message::{
    Arch, Configure, Exec, ExecFailure, ExitStatus, Exited, Failure, Frame, Hello, Mark, Mount, MountRoot,
    Shutdown, Stage, Stdio, Stream, ToGuest, ToHost, WindowSize,
};

/// The source text of [`wire`], for the build of the guest program.
pub const WIRE_SOURCE: &str = include_str!("wire.rs");

/// The name of the virtio-console port that carries the channel.
pub const PORT_NAME: &str = "crumblecracker.control";
