//! What the FUSE server asks of a file system.

use std::io::{Read, Write};

use rustix::io::Errno;
use saved_state::Unit;

use crate::attr::{Attr, CachePolicy, Entry, FileKind, FileSystemStatus, SetAttr};
use crate::error::Error;
use crate::protocol::RECORD_ALIGNMENT;
use crate::transfer::{ReadBuffer, WriteSource};

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user id for file access.
    pub uid: u32,
    /// Its group id for file access.
    pub gid: u32,
}

/// A file to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Type; never a symbolic link.
    pub kind: FileKind,
    /// Permission bits, the caller's umask already taken off.
    pub mode: u32,
    /// Device number of a device; else 0.
    pub rdev: u32,
    /// Who creates it.
    pub caller: Caller,
}

/// A node and, where the tree has open files, a handle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// The node id.
    pub node: u64,
    /// The handle that [`Tree::open`] gave, where the request names one.
    pub handle: Option<u64>,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Inode number shown to programs.
    pub ino: u64,
    /// Type.
    pub kind: FileKind,
    /// Where a listing goes on behind this entry.
    pub cookie: u64,
}

/// A file system that a [`crate::Server`] serves.
///
/// Nodes are named by node ids, the root's being 1. Every method that returns an [`Entry`] counts one more
/// use of its node by the guest, which [`Tree::forget`] takes back; a node keeps its id while it has uses.
/// Names have been checked: 1..=255 bytes without `/` and NUL, not `.` or `..`. Access rights have been
/// checked by the guest's kernel, which mounts virtio-fs with `default_permissions`.
///
/// *Concurrency:* called from several threads at once. *Hostility:* node ids, handles and offsets are the
/// guest's own and may be anything.
pub trait Tree: Send + Sync {
    /// What the guest may remember.
    fn cache_policy(&self) -> CachePolicy;

    /// Forgets all uses and all open files.
    fn reset(&self);

    /// Finds a name.
    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Entry, Errno>;

    /// Takes `count` uses of a node back; counts beyond those it has are ignored.
    fn forget(&self, node: u64, count: u64);

    /// Attributes of a file.
    fn getattr(&self, file: FileRef) -> Result<Attr, Errno>;

    /// Changes attributes and returns the new ones.
    fn setattr(&self, file: FileRef, change: &SetAttr, caller: Caller) -> Result<Attr, Errno>;

    /// Target of a symbolic link.
    fn readlink(&self, node: u64) -> Result<Vec<u8>, Errno>;

    /// Creates a symbolic link.
    fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Entry, Errno>;

    /// Creates a file of any other type.
    fn make(&self, parent: u64, name: &[u8], new: NewFile) -> Result<Entry, Errno>;

    /// Creates and opens a regular file; an existing one is opened unless `flags` has O_EXCL. The handle is
    /// `None` in a stateless tree.
    fn create(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, Option<u64>), Errno>;

    /// Creates and opens a regular file without a name, in the file system of directory `parent`.
    fn tmpfile(&self, parent: u64, new: NewFile, flags: u32) -> Result<(Entry, Option<u64>), Errno>;

    /// Removes a name that is not a directory's.
    fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), Errno>;

    /// Removes an empty directory.
    fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), Errno>;

    /// Moves a name, with the flags of `renameat2(2)`.
    fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno>;

    /// Gives a file one more name.
    fn link(&self, node: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry, Errno>;

    /// Opens a regular file with Linux `O_*` flags. Not asked of a stateless tree.
    fn open(&self, node: u64, flags: u32, kill_set_id: bool) -> Result<Opened, Errno>;

    /// Opens a directory. Not asked of a stateless tree.
    fn opendir(&self, node: u64) -> Result<u64, Errno>;

    /// Closes what [`Tree::open`], [`Tree::create`] or [`Tree::opendir`] opened.
    fn release(&self, handle: u64);

    /// Fills `out` from `offset` on, less at the end of the file.
    fn read(&self, file: FileRef, offset: u64, out: &mut ReadBuffer<'_>) -> Result<(), Errno>;

    /// Writes `data` at `offset` and returns how many bytes were taken.
    fn write(
        &self,
        file: FileRef,
        offset: u64,
        data: &mut WriteSource<'_>,
        kind: WriteKind,
    ) -> Result<usize, Errno>;

    /// Reports errors of earlier writes at a `close(2)`.
    fn flush(&self, file: FileRef) -> Result<(), Errno>;

    /// Makes contents (and attributes unless `data_only`) durable, as far as the tree is at all.
    fn fsync(&self, file: FileRef, data_only: bool) -> Result<(), Errno>;

    /// Makes everything durable, as far as the tree is at all.
    fn syncfs(&self) -> Result<(), Errno>;

    /// Puts the entries of a directory from `cookie` on (0 is the start) into `batch` until it is full.
    /// Includes `.` and `..`. An entry that is there all the time is listed once, whatever else changes.
    fn readdir(&self, file: FileRef, cookie: u64, batch: &mut DirectoryBatch) -> Result<(), Errno>;

    /// Size and free space.
    fn statfs(&self) -> Result<FileSystemStatus, Errno>;

    /// Value of an extended attribute.
    fn getxattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Names of all extended attributes, each followed by a NUL.
    fn listxattr(&self, node: u64) -> Result<Vec<u8>, Errno>;

    /// Sets an extended attribute; `flags` are those of `setxattr(2)`.
    fn setxattr(&self, node: u64, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno>;

    /// Removes an extended attribute.
    fn removexattr(&self, node: u64, name: &[u8]) -> Result<(), Errno>;

    /// Allocates or frees space; `mode` as of `fallocate(2)`.
    fn fallocate(&self, file: FileRef, offset: u64, len: u64, mode: u32) -> Result<(), Errno>;

    /// Finds data (`SEEK_DATA`) or a hole (`SEEK_HOLE`).
    fn lseek(&self, file: FileRef, offset: u64, whence: u32) -> Result<u64, Errno>;

    /// Copies bytes from file to file and returns how many.
    fn copy_file_range(
        &self,
        from: FileRef,
        from_offset: u64,
        to: FileRef,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno>;

    /// The state of the tree: all that a guest must find again when it goes on later with the node ids, handles and
    /// uses it has. Contents of files that are the tree's own go to `contents`, one after the other. Not to be called
    /// while a request is served.
    ///
    /// # Errors
    /// When it cannot be saved; the tree goes on as it was.
    fn save(&self, contents: &mut dyn Write) -> Result<Unit, Error>;

    /// Goes on with what [`Tree::save`] gave, in place of all that the tree held. Of `contents` exactly the bytes are
    /// read that were written. *Hostility:* both may be anything. Not to be called while a request is served.
    ///
    /// # Errors
    /// When it is not the state of such a tree, or cannot be held. What the tree holds then is not defined, but it can
    /// be restored again.
    fn restore(&self, unit: &Unit, contents: &mut dyn Read) -> Result<(), Error>;
}

/// Entries of a directory, as many as one reply holds.
#[derive(Debug)]
pub struct DirectoryBatch {
    entries: Vec<DirectoryEntry>,
    overhead: usize,
    left: usize,
}

impl DirectoryBatch {
    /// A batch for `capacity` bytes of reply where each entry takes `overhead` bytes besides its name.
    #[must_use]
    pub fn new(capacity: usize, overhead: usize) -> Self {
        Self {
            entries: Vec::new(),
            overhead,
            left: capacity,
        }
    }

    /// Adds an entry, or returns false when it does not fit any more.
    pub fn push(&mut self, name: &[u8], ino: u64, kind: FileKind, cookie: u64) -> bool {
        let size = (self.overhead + name.len()).next_multiple_of(RECORD_ALIGNMENT);
        if size > self.left {
            self.left = 0;
            return false;
        }
        self.left -= size;
        self.entries.push(DirectoryEntry {
            name: name.to_vec(),
            ino,
            kind,
            cookie,
        });
        true
    }

    /// How many bytes of reply are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The entries, in the order they were added.
    #[must_use]
    pub fn into_entries(self) -> Vec<DirectoryEntry> {
        self.entries
    }
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How requests name it.
    pub handle: u64,
    /// Whether the pages that the guest has of the file are still good.
    pub keep_cache: bool,
}

/// Why bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteKind {
    /// Pages come back from the guest's cache: it keeps the times of the file and sends them itself.
    pub from_cache: bool,
    /// The writer may not keep set-id bits.
    pub kill_set_id: bool,
}
