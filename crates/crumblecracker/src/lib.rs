//! Run OCI images as microVMs.
//!
//! ```no_run
//! use crumblecracker::{Command, Instance, InstanceOptions, Library, PullOptions};
//!
//! # fn main() -> crumblecracker::Result<()> {
//! let library = Library::open(None)?;
//! let nobody_watches: std::sync::Arc<dyn crumblecracker::Progress> = std::sync::Arc::new(());
//! let image = library.image("deb:bash,coreutils", &PullOptions::default(), &nobody_watches)?;
//! let backend = crumblecracker::open_backend(None, &library)?;
//! let instance = Instance::start(&library, &image, backend, &InstanceOptions::default(), &())?;
//! let process = instance.spawn(&Command { arguments: vec!["date".into()], ..Command::default() })?;
//! let status = process.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Knows:** how names become images, images become file trees, file trees and a kernel become a guest, how a
//! command becomes a process in it, and how its files are reached.
//! **Must never know:** a terminal, an argument list, a window. Faces of the library parse and print; they
//! decide nothing.
#![forbid(unsafe_code)]

mod boot_only;
mod bring_up;
mod console;
mod doctor;
mod error;
pub mod fs;
mod head_start;
mod image_tree;
mod images;
mod instance;
pub mod instances;
mod kernel;
mod library;
mod names;
mod plugs;
mod post_mortem;
mod profile;
mod put_by;
mod renewal;
mod saved_guests;
pub mod session;
mod snapshot_cache;
mod timeline;
mod user;

pub use boot_only::{BootOnly, boot_kernel};
pub use console::ConsoleSink;
pub use doctor::{BackendReport, Observation, doctor, open_backend, open_observed_backend};
pub use error::{Error, Result, one_line};
pub use host_os::prefer_one_heap;
pub use hypervisor::Hypervisor;
pub use hypervisor::x86_64::CpuProfile;
pub use images::{Image, ImageRecord, PullOptions, PullPolicy};
pub use instance::{Command, Instance, InstanceOptions, Share};
pub use kernel::KernelChoice;
pub use library::Library;
pub use oci::debian::Refresh;
pub use oci::{Event, ImageConfig, Platform, Progress};
pub use post_mortem::PostMortem;
pub use profile::Profiler;
pub use put_by::TakeUpOptions;
pub use saved_guests::SavedGuests;
pub use snapshot_cache::{CachedSnapshot, SnapshotCache};
pub use soft_cpu::{Trace, TraceKind, TraceLines};
pub use timeline::{Moment, Timeline};
