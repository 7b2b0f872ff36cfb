//! OCI images: references, registries, archives, the content store and the index of an image's files;
//! Debian packages as images.
//!
//! It knows the OCI image and distribution specifications, Docker's configuration file and archives, and
//! where a cache folder keeps what was fetched. A layer becomes a list of entries plus one page-aligned
//! contents file; an image becomes one flat [`ImageIndex`] over the contents of its layers. Nothing is ever
//! unpacked into a directory tree.
//!
//! It must never know virtual machines, file servers, terminals or the guest. Its interface is blocking;
//! asynchronous code stays inside the `registry` and `debian` modules.
#![forbid(unsafe_code)]

mod archive;
mod config;
pub mod debian;
mod digest;
mod error;
mod index;
mod layer;
mod manifest;
mod platform;
mod progress;
mod reference;
mod registry;
mod store;

pub use archive::Source;
pub use config::ImageConfig;
pub use digest::Digest;
pub use error::{Error, Result};
pub use index::{Extent, ImageIndex, Node, NodeKind};
pub use layer::Limits;
pub use platform::Platform;
pub use progress::{Event, Progress};
pub use reference::{DEFAULT_REGISTRY, Reference};
pub use registry::Puller;
pub use store::{Collected, Image, Ingest, Layer, Store};

/// Makes a folder and those above it where they are absent. To look first is quicker than to try, as folders are there but
/// once.
fn ensure_folder(path: &std::path::Path) -> std::io::Result<()> {
    match path.is_dir() {
        true => Ok(()),
        false => std::fs::create_dir_all(path),
    }
}
