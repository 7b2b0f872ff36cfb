//! Why a tree could not be made or used from the host's side.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// Errors of the host's side. What goes wrong for the guest travels to it as an errno instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// cannot create the scratch file for changed files in memory
    #[error("cannot create the scratch file for changed files in memory")]
    ScratchMemory(#[source] Errno),
    /// cannot create the scratch file for changed files in a directory
    #[error("cannot create the scratch file for changed files in {directory}")]
    ScratchDirectory {
        /// Where it should have been.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// the image has no root directory
    #[error("the image has no root directory")]
    NoRoot,
    /// a path inside the guest's tree could not be read or written
    #[error("{path} in the guest's file system")]
    GuestPath {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Errno,
    },
    /// a file of the guest is larger than the caller takes
    #[error("{path} in the guest's file system is longer than {limit} bytes")]
    TooLong {
        /// The path as it was given.
        path: String,
        /// The most that was asked for, in bytes.
        limit: u64,
    },
    /// a shared directory cannot be opened
    #[error("cannot share {path}")]
    Share {
        /// The directory on the host.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// the saved state of a file system of the guest cannot be used
    #[error("the saved state of a file system of the guest cannot be used")]
    Saved(#[from] saved_state::Error),
    /// the saved state is of another image
    #[error("the saved state of the guest's file system is of another image")]
    OtherImage,
    /// the saved state has a file of the image that the image has not
    #[error("the guest's file system was saved with an inode {ino} that its image does not have so")]
    NotInImage {
        /// The inode number.
        ino: u64,
    },
    /// contents of an image that are needed again cannot be opened
    #[error("cannot open the contents of inode {ino} of the image")]
    ImageContents {
        /// The inode number.
        ino: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// there are too many files to be saved
    #[error("the guest's file system has too many files and names to be saved")]
    StateTooLarge,
    /// contents of the guest's files cannot be written where they shall be saved
    #[error("cannot save the contents of the guest's files")]
    SaveContents(#[source] io::Error),
    /// contents of the guest's files cannot be read from where they were saved
    #[error("cannot read the saved contents of the guest's files")]
    ReadContents(#[source] io::Error),
    /// the scratch file for changed files cannot be read or written, or is full
    #[error("the scratch file for the guest's changed files")]
    Scratch(#[source] Errno),
    /// what the guest has open in a shared directory cannot be saved or opened again
    #[error("what the guest has open in the shared directory {path}")]
    ShareState {
        /// The directory on the host.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// files cannot be opened
    #[error("files cannot be opened")]
    Open(#[source] Errno),
}
