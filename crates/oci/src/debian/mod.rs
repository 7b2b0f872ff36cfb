//! Debian's signed archive as a source of images and of the default kernel.
//!
//! The chain of trust is Debian's own: [`Keyring`] verifies a suite's `InRelease`, that names the digests of
//! the `Packages` indexes, those name the digests of the package files, and every byte is checked while it
//! streams in. The mirror is the machine's own ([`discover`]); no address is built in.
//!
//! An image is the closure of packages over their dependencies, unpacked into one layer. Maintainer scripts
//! do not run; what the usual programs need of them is done here (`layer`).
//!
//! ```no_run
//! use oci::debian::{Archive, ArchiveOptions, Keyring, MirrorConfig, Refresh};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let archive = Archive::open(ArchiveOptions {
//!     cache: "cache/debian".into(),
//!     mirror: MirrorConfig::default(),
//!     keyring: Keyring::debian(),
//! })?;
//! let store = oci::Store::open("cache".as_ref())?;
//! let platform = oci::Platform::linux("amd64");
//! let image = archive.image(&store, &"deb:bash,coreutils".parse()?, &platform, Refresh::WhenStale, &())?;
//! let kernel = archive.kernel(&platform, Refresh::WhenStale, &())?;
//! # Ok(())
//! # }
//! ```

mod apt_conf;
mod archive;
mod base_files;
mod cache;
mod clearsign;
mod control;
mod date;
mod deb;
mod error;
mod fetch;
mod image;
mod index;
mod kernel;
mod keyring;
mod layer;
mod modules;
mod relation;
mod release;
mod resolve;
mod sources;
mod version;

pub use archive::{Archive, ArchiveOptions, Refresh};
pub use error::{Error, Result};
pub use image::DebReference;
pub use kernel::Kernel;
pub use keyring::Keyring;
pub use layer::LayerFacts;
pub use modules::Module;
pub use resolve::Chosen;
pub use sources::{APT_FOLDER, Mirror, MirrorConfig, discover};
pub use version::{Operator, compare as compare_versions};
