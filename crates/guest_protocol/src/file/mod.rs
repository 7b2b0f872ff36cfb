//! Operations on the guest's files.

mod codec;
mod directory;
mod metadata;

use alloc::vec::Vec;

pub(crate) use codec::{decode_request, encode_request};
pub use directory::{DirectoryEntry, directory_entries};
pub use metadata::{FileMetadata, FileTime};
pub(crate) use metadata::{decode_metadata, encode_metadata};

/// A path of the guest, at most [`crate::wire::MAX_PATH`] bytes, and where it starts if it is relative.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePath {
    /// An open directory; 0 is the root.
    pub directory: u32,
    /// The path. Empty is what `directory` names itself, for Metadata, SetMode, SetOwner and SetTimes.
    pub path: Vec<u8>,
}

/// How a file is opened. Neither reading nor writing is `EINVAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// To write, and always at the end.
    pub append: bool,
    /// Cut to nothing.
    pub truncate: bool,
    /// Make it if it is missing.
    pub create: bool,
    /// Make it, and fail with `EEXIST` if it is there.
    pub create_new: bool,
    /// Fail with `ENOTDIR` unless it is a directory.
    pub directory: bool,
    /// Fail with `ELOOP` (a directory: `ENOTDIR`) if it is a symbolic link.
    pub no_follow: bool,
}

/// One operation. Each moves at most [`crate::wire::MAX_DATA`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRequest {
    /// Opens a file that the request's own id names from then on. Opening does not wait: a named pipe nobody
    /// writes is open at once. → Done
    Open {
        /// Which.
        at: FilePath,
        /// How.
        flags: OpenFlags,
        /// Permissions if it is made; the bits 0022 are taken away.
        mode: u32,
    },
    /// Reads a piece. → FileData, no longer than asked for, empty at the end
    Read {
        /// An open file.
        file: u32,
        /// Where, in bytes.
        offset: u64,
        /// At most so many bytes.
        len: u32,
    },
    /// Writes a piece. → FileWritten, which may be less than was given
    Write {
        /// An open file.
        file: u32,
        /// Where, in bytes; of no account in a file opened to append.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Reads the next entries of a directory. → FileData for [`directory_entries`], empty after the last
    ReadDirectory {
        /// An open directory.
        file: u32,
        /// At most so many bytes; less than one entry needs (280) may be `EINVAL`.
        len: u32,
    },
    /// Tells about a file. → FileMetadata
    Metadata {
        /// Which.
        at: FilePath,
        /// Of what a symbolic link leads to, not of itself.
        follow: bool,
    },
    /// Cuts a file or extends it with zeros. → Done
    SetLen {
        /// An open file.
        file: u32,
        /// Its new length, in bytes.
        len: u64,
    },
    /// Writes a file back to where it is kept. → Done
    Sync {
        /// An open file.
        file: u32,
        /// What is not needed to read the data again may wait.
        data_only: bool,
    },
    /// Makes a directory. → Done
    CreateDirectory {
        /// Where.
        at: FilePath,
        /// Permissions; the bits 0022 are taken away.
        mode: u32,
    },
    /// Removes a name. → Done
    Remove {
        /// Which.
        at: FilePath,
        /// An empty directory; else anything but a directory.
        directory: bool,
    },
    /// Renames, over what is there. → Done
    Rename {
        /// The old name.
        from: FilePath,
        /// The new one; it starts where `from` does.
        to: Vec<u8>,
    },
    /// Makes a symbolic link. → Done
    Symlink {
        /// What it says.
        target: Vec<u8>,
        /// Where.
        at: FilePath,
    },
    /// Gives a file another name; a symbolic link is not followed. → Done
    HardLink {
        /// The old name.
        from: FilePath,
        /// The new one; it starts where `from` does.
        to: Vec<u8>,
    },
    /// Reads a symbolic link. → FileData
    ReadLink {
        /// Which.
        at: FilePath,
    },
    /// Sets the permissions of what a path leads to. → Done
    SetMode {
        /// Which.
        at: FilePath,
        /// The bits 07777.
        mode: u32,
    },
    /// Sets the owner. → Done
    SetOwner {
        /// Which.
        at: FilePath,
        /// User id, or leave it; `u32::MAX` is none.
        uid: Option<u32>,
        /// Group id, or leave it; `u32::MAX` is none.
        gid: Option<u32>,
        /// Of what a symbolic link leads to, not of itself.
        follow: bool,
    },
    /// Sets times, in ns since 1970. → Done
    SetTimes {
        /// Which.
        at: FilePath,
        /// Of the last access, or leave it; `i64::MIN` is none.
        accessed_ns: Option<i64>,
        /// Of the last change of its contents, or leave it; `i64::MIN` is none.
        modified_ns: Option<i64>,
        /// Of what a symbolic link leads to, not of itself.
        follow: bool,
    },
}
