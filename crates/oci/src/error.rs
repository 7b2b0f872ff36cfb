//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image could not be named, fetched, stored or opened.
///
/// A message is one line, names the thing and, where there is one, the way out. It does not repeat its
/// source: print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an image reference.
    #[error("`{text}` is not an image reference: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not a digest this crate can verify.
    #[error("`{0}` is not a sha256 digest (`sha256:` and 64 lower-case hexadecimal digits)")]
    BadDigest(String),
    /// The text is not a platform.
    #[error("`{0}` is not a platform: write os/architecture[/variant], for example linux/arm64/v8")]
    BadPlatform(String),
    /// The text is not an archive source.
    #[error("`{text}` is not an image source: {reason}")]
    BadSource {
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
    /// The disk of the store is full.
    #[error("the disk is full: cannot {action} {}; free some space or choose another cache folder", path.display())]
    DiskFull {
        /// What was attempted, as a verb: "create", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The registry could not be spoken to at all.
    #[error("cannot reach registry {registry}{hint}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// Way out, empty or starting with ": ".
        hint: &'static str,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A transfer broke off and could not be continued.
    #[error(
        "registry {registry} broke off after {arrived} of {size} bytes of {what}: try again{}",
        if *kept { ", what came is kept" } else { "" }
    )]
    Interrupted {
        /// Host and port.
        registry: String,
        /// The blob: "layer sha256:…".
        what: String,
        /// Bytes that arrived.
        arrived: u64,
        /// Bytes there should be.
        size: u64,
        /// Whether the next attempt begins with what came.
        kept: bool,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants other credentials, or any.
    #[error(
        "registry {registry} refused {credentials} for `{repository}`: log in (`docker login {registry}`) or check the name"
    )]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// Repository inside it.
        repository: String,
        /// Which kind of access was tried.
        credentials: &'static str,
    },
    /// The registry does not know the image.
    #[error("no image `{0}` in its registry: check the repository and the tag")]
    NotFound(String),
    /// The registry answered with something else than what was asked for.
    #[error("registry {registry} answered badly about `{what}`: {reason}")]
    Registry {
        /// Host and port.
        registry: String,
        /// Image or digest asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Credentials exist but cannot be used.
    #[error("credentials for {registry} cannot be used: {reason}")]
    Credentials {
        /// Registry they are for.
        registry: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Content is not what its digest says.
    #[error("{what} has digest {actual} where {expected} was promised: it is damaged or forged; try again")]
    DigestMismatch {
        /// The blob: "layer sha256:…".
        what: String,
        /// The promised digest.
        expected: Digest,
        /// The digest of what arrived.
        actual: Digest,
    },
    /// Content is shorter or longer than promised.
    #[error("{what} has {actual} bytes where {expected} were promised: it is truncated or forged; try again")]
    SizeMismatch {
        /// The blob.
        what: String,
        /// Promised length in bytes.
        expected: u64,
        /// Length that arrived, in bytes; one more than promised when there was more.
        actual: u64,
    },
    /// A layer's archive is malformed, malicious or beyond the limits.
    #[error("layer {layer} is refused: {reason}")]
    BadLayer {
        /// The layer's digest, or what stands for it.
        layer: String,
        /// What is wrong, with the entry's name.
        reason: String,
    },
    /// A manifest, index or configuration is malformed or unsupported.
    #[error("{what} is refused: {reason}")]
    BadDocument {
        /// Which document.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// No manifest of the image is for the platform.
    #[error("`{image}` has no image for {platform}; it has: {available} (choose with --platform)")]
    NoPlatform {
        /// The image.
        image: String,
        /// What was wanted.
        platform: String,
        /// What there is.
        available: String,
    },
    /// A stored index does not pass its bounds checks.
    #[error("index {} is damaged ({reason}): remove the image and pull it again", path.display())]
    BadIndex {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        reason: &'static str,
    },
    /// The store does not have the image.
    #[error("no image `{0}` in the store: pull it first")]
    NoImage(String),
    /// The image is used by a running instance.
    #[error("image `{0}` is in use by a running instance: stop it first")]
    ImageInUse(String),
}

impl Error {
    /// `map_err` helper for file operations; a full disk gets its own words.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { action, path, source }
            }
            _ => Error::Io { action, path, source },
        }
    }
}
