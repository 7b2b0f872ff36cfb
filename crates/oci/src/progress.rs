//! What a long operation tells its caller while it runs.

use crate::digest::Digest;

/// One step of a pull or an import. Layers are numbered from 0, lowest first.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The image is known: so many layers of so many compressed bytes in all.
    Resolved {
        /// Number of layers.
        layers: usize,
        /// Sum of their compressed sizes in bytes.
        bytes: u64,
    },
    /// Work on a layer begins; `resumed` of its `bytes` are here from an earlier attempt.
    LayerStarted {
        /// Which layer.
        layer: usize,
        /// Digest of the compressed layer.
        digest: &'a Digest,
        /// Compressed size in bytes.
        bytes: u64,
        /// How many of them need not be fetched again.
        resumed: u64,
    },
    /// So many more compressed bytes arrived.
    LayerAdvanced {
        /// Which layer.
        layer: usize,
        /// Bytes since the last event of this layer.
        bytes: u64,
    },
    /// A layer is stored; `present` if it already was and nothing was fetched.
    LayerDone {
        /// Which layer.
        layer: usize,
        /// Whether the store had it.
        present: bool,
    },
    /// All layers are stored and are being flattened into the image's index.
    Indexing,
    /// Files besides layers, such as packages, will be fetched: so many, of so many bytes in all.
    FilesResolved {
        /// Number of files.
        files: usize,
        /// Sum of their sizes in bytes.
        bytes: u64,
    },
    /// The transfer of a file begins. Files are numbered from 0 after each `FilesResolved`.
    FileStarted {
        /// Which file.
        file: usize,
        /// What people call it.
        name: &'a str,
        /// Size in bytes.
        bytes: u64,
        /// How many of them need not be fetched again.
        resumed: u64,
    },
    /// So many more bytes of a file arrived.
    FileAdvanced {
        /// Which file.
        file: usize,
        /// Bytes since the last event of this file.
        bytes: u64,
    },
    /// A file is in the cache; `present` if it already was and nothing was fetched.
    FileDone {
        /// Which file.
        file: usize,
        /// Whether the cache had it.
        present: bool,
    },
    /// Something people should know that is not an error: one sentence without a full stop.
    Notice(&'a str),
}

/// Receives events, from several threads at once; what it does must be quick.
pub trait Progress: Send + Sync {
    /// Called at every step.
    fn report(&self, event: Event<'_>);
}

/// Progress nobody looks at.
impl Progress for () {
    fn report(&self, _: Event<'_>) {}
}
