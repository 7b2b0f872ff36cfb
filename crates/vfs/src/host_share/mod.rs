//! A directory of the host, shared with the guest read-only or read-write.
//!
//! **Confinement.** Every name is opened by `openat2(2)` with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
//! RESOLVE_NO_MAGICLINKS, one directory entry below a directory that was reached the same way, so that no
//! symbolic link, no `..` and no race with a process of the host leads out of the directory. Symbolic links
//! are the guest's to follow, inside its own tree. Contents are only opened of regular files and directories;
//! devices are never opened, nor made for the guest.
//!
//! **Owners.** Files show the owner they have on the host. What the guest creates belongs to whom the guest
//! says if this process is root's; otherwise it belongs to the user who runs it and is shown so, and `chown`
//! fails with EPERM as it does for that user on the host. Of extended attributes only `user.*` pass.
//!
//! **Caching.** Others may change the directory at any time: names and attributes are valid for a second,
//! writes go through at once, and cached pages are dropped when a file is opened after it has changed.
//!
//! - [`nodes`]: what the guest knows of, with a bounded cache of descriptors.
//! - [`handles`]: what the guest has open, bounded too.
//! - [`attributes`], [`names`]: the operations; [`service`]: the share as a [`crate::Tree`].
//! - [`saved`]: its state. Nodes and handles are found again by where their files were seen, and are only taken for
//!   the same if the files are (device, inode number and time of birth).

mod attributes;
mod handles;
mod names;
mod nodes;
mod saved;
mod service;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use self::handles::{Handle, Handles};
use self::nodes::Nodes;
use crate::error::Error;
use crate::sync::lock;

/// How often an `openat2` that met a concurrent rename is tried again (EAGAIN, openat2(2)).
const RETRIES: usize = 16;

/// How a directory is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostShareOptions {
    /// Whether the guest can change nothing.
    pub read_only: bool,
}

/// A directory of the host as a tree.
pub struct HostShare {
    nodes: Nodes,
    handles: Handles,
    read_only: bool,
    /// The directory, as it is called.
    path: PathBuf,
    /// Whether files can be given to any owner.
    privileged: bool,
}

impl HostShare {
    /// Shares `directory`, which is opened now and shared wherever it moves. At most three quarters of the
    /// descriptors this process may have open are used.
    ///
    /// # Errors
    /// [`Error::Share`] when it cannot be opened or is no directory.
    pub fn new(directory: &Path, options: HostShareOptions) -> Result<Self, Error> {
        let share = |source| Error::Share {
            path: directory.to_owned(),
            source,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(share)?;
        let status = status_of(root.as_fd()).map_err(share)?;
        let descriptors = getrlimit(Resource::Nofile)
            .current
            .unwrap_or(u64::MAX)
            .clamp(16, 16384) as usize;
        Ok(Self {
            nodes: Nodes::new(root, &status, descriptors / 4),
            handles: Handles::new(descriptors / 2),
            read_only: options.read_only,
            path: directory.to_owned(),
            privileged: rustix::process::geteuid().is_root(),
        })
    }

    /// The O_PATH descriptor of a node; of one that has lost its name and its place in the cache, by what is
    /// open of it.
    fn descriptor(&self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        match self.nodes.descriptor(node) {
            Err(Errno::STALE) => {
                let handle = self.handles.of_node(node).ok_or(Errno::STALE)?;
                let path = match &*handle {
                    Handle::File(file) => descriptor_path(file.as_fd()),
                    Handle::Directory(directory) => descriptor_path(lock(directory).as_fd()),
                    Handle::Gone(_) => return Err(Errno::STALE),
                };
                let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                Ok(Arc::new(fd))
            }
            outcome => outcome,
        }
    }

    /// EROFS when the guest may not change anything.
    fn require_writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }
}

/// Opens `path` below `directory` and never anything else; a symbolic link itself is opened as O_PATH only.
fn open_beneath(directory: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..RETRIES {
        match openat2(directory, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

/// Attributes of what `fd` refers to.
fn status_of(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(
        fd,
        "",
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// A path that leads to exactly what `fd` refers to, for calls that take no O_PATH descriptor.
fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
