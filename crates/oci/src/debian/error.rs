//! What can go wrong between a mirror and an image.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why packages could not be found, fetched, verified or assembled.
///
/// A message is one line, names the thing and, where there is one, the way out. It does not repeat its
/// source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No mirror is configured and apt's sources name none.
    #[error(
        "no Debian mirror is known: set `debian.mirror` in the configuration or CC_DEBIAN_MIRROR to the \
         address of one (looked for a Debian archive in {})", looked_in.display()
    )]
    NoMirror {
        /// apt's folder that was searched.
        looked_in: PathBuf,
    },
    /// The configured mirror is not an address of one.
    #[error("`{mirror}` is not the address of a Debian mirror: write http:// or https:// and its path")]
    BadMirror {
        /// What was configured.
        mirror: String,
    },
    /// The text is not a `deb:` reference.
    #[error("`{text}` is not a deb: reference (deb:[suite/]package[,package...]): {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb: "open", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk of the cache is full.
    #[error("the disk is full: cannot write {}; free some space or choose another cache folder", path.display())]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Client {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mirror cannot be spoken to.
    #[error("cannot reach the Debian mirror at {url}: check the network, or set CC_DEBIAN_MIRROR to another")]
    Unreachable {
        /// What was being fetched.
        url: String,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mirror answered with an error.
    #[error(
        "the Debian mirror answered {status} for {url}: check the suite, or set CC_DEBIAN_MIRROR to another"
    )]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status code.
        status: u16,
    },
    /// A transfer ended too early, more than once.
    #[error(
        "{url} broke off after {length} of {size} bytes: the mirror's file is truncated or the network is bad; try again, what arrived is kept"
    )]
    Truncated {
        /// The file's address.
        url: String,
        /// What there is of it, in bytes.
        length: u64,
        /// Its promised length in bytes.
        size: u64,
    },
    /// A file is not the one the signed index promised.
    #[error(
        "{url} is not the file the signed index promises ({reason}): the mirror is damaged, forged or being updated; try again"
    )]
    WrongContent {
        /// The file's address.
        url: String,
        /// Digest or size, expected and found.
        reason: String,
    },
    /// The index is not signed by a key that counts.
    #[error(
        "the signature of {url} is not accepted ({reason}): this is not Debian's archive, or it was tampered with"
    )]
    Signature {
        /// The InRelease file's address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The signed index is past its `Valid-Until`.
    #[error(
        "{url} expired on {valid_until}: the mirror is stale or the clock is wrong; set CC_DEBIAN_MIRROR to another \
         mirror, or Acquire::Check-Valid-Until \"false\" in apt's configuration"
    )]
    Expired {
        /// The InRelease file's address.
        url: String,
        /// The date it carries.
        valid_until: String,
    },
    /// The signed index is dated in the future.
    #[error(
        "{url} is dated {date}, which is in the future: set the clock, or Acquire::Check-Date \"false\" in apt's \
         configuration"
    )]
    NotYetValid {
        /// The InRelease file's address.
        url: String,
        /// The date it carries.
        date: String,
    },
    /// A signed index says something that cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Index {
        /// The file.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Something is needed from the network, and the network is not to be used.
    #[error(
        "{what} is not in the cache and fetching is switched off: pull it first, or without --pull never"
    )]
    NotCached {
        /// The file or suite.
        what: String,
    },
    /// No such package.
    #[error("no package `{name}` in Debian {suite} for {architecture}{near}")]
    UnknownPackage {
        /// The name asked for.
        name: String,
        /// The suite that was searched.
        suite: String,
        /// Debian's name of the architecture.
        architecture: String,
        /// "; did you mean ...?", or empty.
        near: String,
    },
    /// A dependency nothing satisfies.
    #[error("package `{package}` needs `{relation}`, which {reason}")]
    Unsatisfied {
        /// Who needs it.
        package: String,
        /// The dependency as written.
        relation: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// Two packages that exclude each other are both wanted.
    #[error("packages `{one}` and `{other}` conflict: ask for only one of them")]
    Conflict {
        /// The package that declares the conflict.
        one: String,
        /// The one it excludes.
        other: String,
    },
    /// A package file is malformed or unsupported.
    #[error("package file {} is refused: {reason}", package.display())]
    BadPackage {
        /// The file.
        package: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The kernel package does not hold what a kernel package holds.
    #[error("kernel {version}: {reason}")]
    Kernel {
        /// The kernel's version, or its package.
        version: String,
        /// What is wrong.
        reason: String,
    },
    /// The image could not be put into the store.
    #[error("cannot store the image `{name}`")]
    Store {
        /// The image's name.
        name: String,
        /// What the store said.
        source: Box<crate::Error>,
    },
}

impl Error {
    /// `map_err` helper for file operations; a full disk gets its own words.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path, source },
            _ => Error::Io { action, path, source },
        }
    }

    pub(crate) fn bad_package(package: &Path, reason: impl Into<String>) -> Error {
        Error::BadPackage {
            package: package.to_owned(),
            reason: reason.into(),
        }
    }
}
