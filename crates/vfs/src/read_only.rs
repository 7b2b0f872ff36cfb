//! The read-only tree an overlay stands on, as an index of an image provides it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::attr::FileKind;

/// A file system that never changes, addressed by inode number.
///
/// Inode 1 is the root directory. All names of a hard-linked file have one inode number. Numbers lie in
/// `1..=max_inode()`; that some of them are unused is fine. Methods are called from several threads at once
/// and for every number a guest makes up, so they answer `None` (or nothing) for what does not exist or has
/// another type; none blocks for long but [`ReadOnlyTree::content`].
pub trait ReadOnlyTree: Send + Sync {
    /// The largest inode number in the tree; the overlay numbers its own files from there on.
    fn max_inode(&self) -> u64;

    /// What is known of inode `ino`.
    fn node(&self, ino: u64) -> Option<Node>;

    /// The inode that `name` has in directory `dir`.
    fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64>;

    /// The directory that holds directory `dir`; the root holds itself.
    fn parent(&self, dir: u64) -> Option<u64>;

    /// Shows the children of `dir`, without `.` and `..`, in an order that never changes, beginning with
    /// child number `from` (the first is 0), until `each` returns false.
    fn children(&self, dir: u64, from: u64, each: &mut dyn FnMut(Child<'_>) -> bool);

    /// Target of the symbolic link `ino`.
    fn symlink_target(&self, ino: u64) -> Option<Vec<u8>>;

    /// Shows name and value of every extended attribute of `ino`.
    fn xattrs(&self, ino: u64, each: &mut dyn FnMut(&[u8], &[u8]));

    /// Where the bytes of the regular file `ino` lie; `None` when it is empty.
    ///
    /// # Errors
    /// When the file with the bytes cannot be opened; the guest sees the errno, or EIO.
    fn content(&self, ino: u64) -> io::Result<Option<Content>>;
}

/// An inode of a read-only tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type of the file.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits, 0..=0o7777; other bits are ignored.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change: seconds since 1970.
    pub mtime_s: i64,
    /// Time of last change: nanoseconds, below 10^9.
    pub mtime_ns: u32,
    /// Length in bytes of a regular file or of a link's target; of no meaning for others.
    pub size: u64,
    /// Number of names; for a directory 2 plus the number of directories in it.
    pub nlink: u32,
    /// Device number of a device, see [`crate::device_number`]; else 0.
    pub rdev: u32,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// Its name: 1..=255 bytes without `/` and NUL.
    pub name: &'a [u8],
    /// Its inode.
    pub ino: u64,
    /// Type of that inode.
    pub kind: FileKind,
}

/// The bytes of a regular file: `len` bytes of `file` from `offset` on. The host file must not change.
#[derive(Clone, Debug)]
pub struct Content {
    /// The host file that holds the bytes.
    pub file: Arc<File>,
    /// Where they begin in it.
    pub offset: u64,
    /// How many they are; equal to [`Node::size`].
    pub len: u64,
}
