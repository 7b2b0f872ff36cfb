//! Why a tree could not be made or used from the host's side.

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
}
