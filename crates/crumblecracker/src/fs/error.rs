//! The guest's errors as `std` has them.

use std::io::{self, ErrorKind};

use crate::Error;
use crate::session::FileError;

/// What an [`io::Error`] of [`super`] holds when the guest's kernel refused: `error.get_ref()`, downcast to
/// this, has the error number that [`io::Error::kind`] cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {doing} {} in the guest: {} (error {errno})", String::from_utf8_lossy(path), kind(*errno))]
pub struct GuestError {
    /// Linux error number, whatever the host is.
    pub errno: u32,
    /// What was tried, in the infinitive.
    pub doing: &'static str,
    /// The path it was tried on, as it was given.
    pub path: Vec<u8>,
}

/// What was tried, for the error it may end in.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) doing: &'static str,
    pub(super) path: &'a [u8],
}

impl Attempt<'_> {
    pub(super) fn refused(self, errno: u32) -> io::Error {
        let error = GuestError {
            errno,
            doing: self.doing,
            path: self.path.to_vec(),
        };
        io::Error::new(kind(errno), error)
    }

    pub(super) fn failed(self, error: FileError) -> io::Error {
        match error {
            FileError::Refused(failure) => self.refused(failure.errno),
            FileError::Channel(error @ Error::GuestGone(_)) => {
                io::Error::new(ErrorKind::ConnectionAborted, error)
            }
            FileError::Channel(error @ Error::Request(_)) => io::Error::new(ErrorKind::InvalidInput, error),
            FileError::Channel(error) => io::Error::new(ErrorKind::InvalidData, error),
        }
    }
}

/// The error number in an error, if the guest's kernel gave one.
pub(super) fn errno_of(error: &io::Error) -> Option<u32> {
    let inner = error.get_ref()?.downcast_ref::<GuestError>()?;
    Some(inner.errno)
}

/// `EEXIST`
pub(super) const EXISTS: u32 = 17;
/// `ENOTDIR`
pub(super) const NOT_A_DIRECTORY: u32 = 20;
/// `EISDIR`
pub(super) const IS_A_DIRECTORY: u32 = 21;
/// `ENAMETOOLONG`
pub(super) const NAME_TOO_LONG: u32 = 36;

/// The kinds `std` gives the numbers of Linux (include/uapi/asm-generic/errno.h), as far as they are stable.
fn kind(errno: u32) -> ErrorKind {
    match errno {
        1 | 13 => ErrorKind::PermissionDenied,
        2 => ErrorKind::NotFound,
        4 => ErrorKind::Interrupted,
        7 => ErrorKind::ArgumentListTooLong,
        11 => ErrorKind::WouldBlock,
        12 => ErrorKind::OutOfMemory,
        16 => ErrorKind::ResourceBusy,
        EXISTS => ErrorKind::AlreadyExists,
        18 => ErrorKind::CrossesDevices,
        NOT_A_DIRECTORY => ErrorKind::NotADirectory,
        IS_A_DIRECTORY => ErrorKind::IsADirectory,
        22 => ErrorKind::InvalidInput,
        26 => ErrorKind::ExecutableFileBusy,
        27 => ErrorKind::FileTooLarge,
        28 => ErrorKind::StorageFull,
        29 => ErrorKind::NotSeekable,
        30 => ErrorKind::ReadOnlyFilesystem,
        31 => ErrorKind::TooManyLinks,
        32 => ErrorKind::BrokenPipe,
        35 => ErrorKind::Deadlock,
        NAME_TOO_LONG => ErrorKind::InvalidFilename,
        38 | 95 => ErrorKind::Unsupported,
        39 => ErrorKind::DirectoryNotEmpty,
        110 => ErrorKind::TimedOut,
        116 => ErrorKind::StaleNetworkFileHandle,
        122 => ErrorKind::QuotaExceeded,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn kind_of_every_number_is_what_std_says_where_that_is_stable() {
        for errno in 1..134 {
            let ours = kind(errno);
            let theirs = io::Error::from_raw_os_error(errno.cast_signed()).kind();
            // Connections are not files, and what is unstable in `std` has no name here.
            let same = ours == theirs || ours == ErrorKind::Other;
            assert!(same, "{errno}: {ours:?}, not {theirs:?}");
        }
    }

    #[test]
    fn refused_error_names_what_was_tried_and_keeps_the_number() {
        let attempt = Attempt {
            doing: "open",
            path: b"/x",
        };

        let error = attempt.refused(2);

        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            "cannot open /x in the guest: entity not found (error 2)"
        );
        assert_eq!(errno_of(&error), Some(2));
    }
}
