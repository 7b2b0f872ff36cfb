//! What the server and its trees say about one file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::{self, FuseAttr};

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
}

impl FileKind {
    /// The kind that the type bits of `mode` name, if any; no type bits mean a regular file, as `mknod(2)`
    /// has it.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & protocol::S_IFMT {
            0 | 0o100000 => Self::Regular,
            0o040000 => Self::Directory,
            0o120000 => Self::Symlink,
            0o020000 => Self::CharDevice,
            0o060000 => Self::BlockDevice,
            0o010000 => Self::Fifo,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The type bits of a mode (`S_IFMT`).
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100000,
            Self::Directory => 0o040000,
            Self::Symlink => 0o120000,
            Self::CharDevice => 0o020000,
            Self::BlockDevice => 0o060000,
            Self::Fifo => 0o010000,
            Self::Socket => 0o140000,
        }
    }

    /// `d_type` of a directory entry: the type bits shifted down (`DT_*`).
    #[must_use]
    pub fn directory_type(self) -> u32 {
        self.mode_bits() >> 12
    }
}

/// A device number in the 32 bits FUSE carries (the kernel's `new_encode_dev`).
#[must_use]
pub fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// Major and minor number in a device number as [`device_number`] makes it.
#[must_use]
pub fn device_parts(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}

/// A point in time: seconds since 1970 (may be negative) and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The host's wall clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }
}

/// Attributes of one file, as `stat(2)` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number shown to programs.
    pub ino: u64,
    /// Type of the file.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits, 0..=0o7777.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device, see [`device_number`]; else 0.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of contents or attributes.
    pub ctime: Timestamp,
    /// Birth, where known.
    pub btime: Option<Timestamp>,
}

impl Attr {
    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> FuseAttr {
        FuseAttr {
            ino: self.ino,
            size: self.size,
            blocks: self.blocks,
            // The wire carries the bits of a signed number of seconds.
            atime: self.atime.seconds as u64,
            mtime: self.mtime.seconds as u64,
            ctime: self.ctime.seconds as u64,
            atimensec: self.atime.nanoseconds,
            mtimensec: self.mtime.nanoseconds,
            ctimensec: self.ctime.nanoseconds,
            mode: self.kind.mode_bits() | (self.mode & protocol::PERMISSION_BITS),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

/// Preferred size of I/O, in bytes, and unit of space accounting.
pub const BLOCK_SIZE: u32 = 4096;

/// A file and what the guest may remember about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Node id: how requests name the file from now on.
    pub node: u64,
    /// Its attributes.
    pub attr: Attr,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The server's present time.
    Now,
    /// This time.
    To(Timestamp),
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permission bits, 0..=0o7777.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: Option<SetTime>,
    /// New time of last change of the contents.
    pub mtime: Option<SetTime>,
    /// New time of last change, sent by a guest with a write-back cache.
    pub ctime: Option<Timestamp>,
    /// Truncation by a caller that may not keep set-id bits.
    pub kill_set_id: bool,
}

/// What `statfs(2)` shows of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystemStatus {
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Blocks free for others than root.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// Longest name in bytes.
    pub name_max: u32,
}

/// How long the guest may use what it has learned without asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Validity of a name.
    pub entry: Duration,
    /// Validity of attributes.
    pub attr: Duration,
    /// Validity of the fact that a name does not exist; zero to have it asked each time.
    pub absent: Duration,
    /// Whether only this one guest changes the tree: then it may keep pages, symbolic links and directory
    /// listings, and write its pages back when it likes.
    pub exclusive: bool,
    /// Whether node ids alone are enough to read and write, so that the guest need not open and close.
    pub stateless: bool,
}
