//! What is known about a file.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest_protocol::{FileMetadata, FileTime};

/// The bits of `st_mode` that say what a file is, and their values (inode(7)).
const TYPE_BITS: u32 = 0o170_000;
const FIFO: u32 = 0o010_000;
const CHAR_DEVICE: u32 = 0o020_000;
const DIRECTORY: u32 = 0o040_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const SOCKET: u32 = 0o140_000;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileType(u32);

impl FileType {
    pub(super) fn of_mode(mode: u32) -> Self {
        Self(mode & TYPE_BITS)
    }

    /// Of a directory entry's type, or `None` where the file system does not say.
    pub(super) fn of_entry(kind: u8) -> Option<Self> {
        (kind != 0).then(|| Self::of_mode(u32::from(kind) << 12))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.0 == DIRECTORY
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.0 == REGULAR
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.0 == SYMLINK
    }

    /// Whether it is a named pipe.
    pub fn is_fifo(&self) -> bool {
        self.0 == FIFO
    }

    /// Whether it is a socket.
    pub fn is_socket(&self) -> bool {
        self.0 == SOCKET
    }

    /// Whether it is a character device.
    pub fn is_char_device(&self) -> bool {
        self.0 == CHAR_DEVICE
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.0 == BLOCK_DEVICE
    }
}

impl fmt::Debug for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            DIRECTORY => "directory",
            REGULAR => "file",
            SYMLINK => "symbolic link",
            FIFO => "pipe",
            SOCKET => "socket",
            CHAR_DEVICE => "character device",
            BLOCK_DEVICE => "block device",
            _ => "unknown",
        })
    }
}

/// What may be done with a file: the bits 07777 of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// Of a mode's bits 07777; others are ignored.
    pub fn from_mode(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    /// The bits 07777.
    pub fn mode(&self) -> u32 {
        self.0
    }

    /// Whether nobody has the right to write. The guest's root writes all the same.
    pub fn readonly(&self) -> bool {
        self.0 & 0o222 == 0
    }

    /// Takes the right to write from everybody, or gives it to everybody.
    pub fn set_readonly(&mut self, readonly: bool) {
        if readonly {
            self.0 &= !0o222;
        } else {
            self.0 |= 0o222;
        }
    }
}

/// What is known about a file of the guest, like [`std::fs::Metadata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata(FileMetadata);

impl Metadata {
    pub(super) fn new(metadata: FileMetadata) -> Self {
        Self(metadata)
    }

    /// What it is.
    pub fn file_type(&self) -> FileType {
        FileType::of_mode(self.mode())
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type().is_file()
    }

    /// Whether it is a symbolic link; only [`super::Fs::symlink_metadata`] tells of links themselves.
    pub fn is_symlink(&self) -> bool {
        self.file_type().is_symlink()
    }

    /// Its length, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "as std::fs::Metadata has it")]
    pub fn len(&self) -> u64 {
        self.0.size
    }

    /// What may be done with it.
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.mode())
    }

    /// When its contents last changed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a time this host cannot express.
    pub fn modified(&self) -> io::Result<SystemTime> {
        time(self.0.modified)
    }

    /// When it was last read.
    ///
    /// # Errors
    /// As [`Metadata::modified`].
    pub fn accessed(&self) -> io::Result<SystemTime> {
        time(self.0.accessed)
    }

    /// When it was made.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system does not know; as [`Metadata::modified`].
    pub fn created(&self) -> io::Result<SystemTime> {
        time(self.0.created.ok_or(io::ErrorKind::Unsupported)?)
    }

    /// When its mode, owner, names or contents last changed.
    ///
    /// # Errors
    /// As [`Metadata::modified`].
    pub fn changed(&self) -> io::Result<SystemTime> {
        time(self.0.changed)
    }

    /// Type and permissions, as `st_mode` has them.
    pub fn mode(&self) -> u32 {
        self.0.mode.into()
    }

    /// User id.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Group id.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// Inode number, unlike every other's on its device.
    pub fn ino(&self) -> u64 {
        self.0.inode
    }

    /// Number of names.
    pub fn nlink(&self) -> u32 {
        self.0.links
    }

    /// Major and minor number of the device it lies on.
    pub fn device(&self) -> (u32, u32) {
        self.0.device
    }

    /// Major and minor number of the device a device file stands for.
    pub fn device_file(&self) -> (u32, u32) {
        self.0.device_file
    }

    /// Space it takes, in units of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.0.blocks
    }
}

fn time(time: FileTime) -> io::Result<SystemTime> {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let exact = second.and_then(|second| second.checked_add(Duration::from_nanos(time.ns.into())));
    exact.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a time beyond what this host expresses",
        )
    })
}

/// ns since 1970, for the guest.
pub(super) fn ns_since_1970(time: SystemTime) -> io::Result<i64> {
    let ns = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|ns| -ns),
    };
    ns.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a file time is from 1677 to 2262 only",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_before_1970_counts_its_nanoseconds_forwards() {
        let found = time(FileTime {
            seconds: -2,
            ns: 500_000_000,
        });

        assert_eq!(found.unwrap(), UNIX_EPOCH - Duration::from_millis(1500));
    }

    #[test]
    fn time_of_a_hostile_guest_is_an_error() {
        for seconds in [i64::MIN, i64::MAX] {
            let far = FileTime {
                seconds,
                ns: 999_999_999,
            };
            // Some hosts express one of them; none may panic.
            let _ = time(far);
        }
    }

    #[test]
    fn ns_since_1970_of_times_around_it_and_far_away() {
        let ms = Duration::from_millis(1500);

        assert_eq!(ns_since_1970(UNIX_EPOCH + ms).unwrap(), 1_500_000_000);
        assert_eq!(ns_since_1970(UNIX_EPOCH - ms).unwrap(), -1_500_000_000);
        let far = UNIX_EPOCH + Duration::from_secs(10_000_000_000);
        assert_eq!(
            ns_since_1970(far).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn file_type_of_an_entry_is_that_of_its_mode() {
        assert_eq!(FileType::of_entry(4), Some(FileType::of_mode(0o40_755)));
        assert_eq!(FileType::of_entry(0), None);
    }
}
