//! Permission bits of the host's files.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::BorrowedFd;

use crate::sys;

/// The bits 0777 of a file's permissions: what its owner, its group and others may do. The bits that make a
/// program run as somebody else are never among them.
pub fn permission_bits(metadata: &Metadata) -> u32 {
    sys::permission_bits(metadata) & 0o777
}

/// Gives an open file the bits 0777 of `bits`.
///
/// # Errors
/// The system refuses.
pub fn set_permission_bits(file: &File, bits: u32) -> io::Result<()> {
    sys::set_permission_bits(file, bits & 0o777)
}

/// Whether a file or folder belongs to the user this process runs as, and nobody else may write to it.
pub fn only_we_write(metadata: &Metadata) -> bool {
    /// Write, for the group and for others.
    const OTHERS_WRITE: u32 = 0o022;
    sys::is_ours(metadata) && sys::permission_bits(metadata) & OTHERS_WRITE == 0
}

/// Whether the program at the other end of a connected local socket ran as our user when it connected.
///
/// # Errors
/// The system does not say.
pub fn is_peer_ours(socket: BorrowedFd<'_>) -> io::Result<bool> {
    sys::is_peer_ours(socket)
}

/// Whether both are of one file, by whichever names it was found.
pub fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    sys::is_same_file(one, other)
}

/// What a file takes on the disk, in bytes: holes take nothing.
pub fn disk_usage(metadata: &Metadata) -> u64 {
    sys::disk_usage(metadata)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn permission_bits_set_are_read_back_without_those_that_change_identity() {
        let file = tempfile::tempfile().unwrap();

        set_permission_bits(&file, 0o6751).unwrap();

        assert_eq!(permission_bits(&file.metadata().unwrap()), 0o751);
    }

    #[test]
    fn only_we_write_own_file_is_true_until_others_may() {
        let file = tempfile::tempfile().unwrap();
        set_permission_bits(&file, 0o644).unwrap();
        assert!(only_we_write(&file.metadata().unwrap()));

        set_permission_bits(&file, 0o664).unwrap();

        assert!(!only_we_write(&file.metadata().unwrap()));
    }

    #[test]
    fn is_same_file_is_true_of_a_file_and_its_second_handle_alone() {
        let [one, other] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let metadata = |file: &File| file.metadata().unwrap();

        assert!(is_same_file(
            &metadata(&one),
            &metadata(&one.try_clone().unwrap())
        ));
        assert!(!is_same_file(&metadata(&one), &metadata(&other)));
    }

    #[test]
    fn disk_usage_of_a_hole_is_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();

        assert!(disk_usage(&file.metadata().unwrap()) < 1 << 20);
    }

    #[test]
    fn is_peer_ours_own_socket_is_true() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();

        assert!(is_peer_ours(one.as_fd()).unwrap());
    }
}
