//! One virtual machine: profile, boot, wiring, run, capture, restore.
//!
//! **Knows:** the x86-64 machine's addresses, which devices it has and how they are wired, how a Linux kernel
//! is started, and both sides that must not know each other: devices and the CPU backend.
//! **Must never know:** images, registries, file-system trees, networks, sessions with the guest agent. What
//! devices are plugged into comes in through `device_backends`.
#![forbid(unsafe_code)]

mod acpi;
pub mod boot;
mod config;
mod devices;
mod dispatch;
mod doorbells;
mod error;
mod generation;
pub mod layout;
mod machine;
mod memory_image;
mod run;
mod snapshot;
mod used_pages;
mod wiring;

pub use boot::{CommandLine, KernelImageError, unpack_kernel};
pub use config::{Backends, BootImage, FileSystem, MachineConfig, SerialPort};
pub use error::Error;
pub use machine::{Machine, MachineHandle};
pub use memory_image::flatten;
pub use run::Outcome;
pub use snapshot::profile_in;
pub use used_pages::{PageWatch, UsedPages};
