//! The guest's first process and agent, and the initramfs it travels in.
//!
//! The program is the other end of the control channel of [`guest_protocol`]; its source is in `program/`,
//! and this crate carries it ready to run. This crate knows the program's bytes and the archive format the
//! kernel unpacks. It must never know which devices the machine has, how the kernel is loaded, or what will
//! run in the guest.
//!
//! `program --control-fd N` serves the channel on an inherited descriptor of an ordinary Linux system, with
//! the machine around it left alone.
#![forbid(unsafe_code)]

mod cpio;
mod initramfs;

pub use guest_protocol::Arch;
pub use initramfs::{InitramfsSpec, Module, initramfs};

/// What can keep an initramfs from being made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This build carries no guest program for the architecture.
    #[error(
        "this build has no guest program for {0:?}; build it with that architecture's Linux target installed"
    )]
    NoProgram(Arch),
    /// A module's name is empty, or has a slash, a line break or a NUL in it, or is there twice.
    #[error("module name {0:?} cannot be that of one file in one directory")]
    ModuleName(String),
    /// A file is longer than the archive format can say (4 GiB - 1).
    #[error("{name} is too long for an initramfs: {len} bytes")]
    FileTooLong {
        /// Name in the archive.
        name: String,
        /// Length, in bytes.
        len: usize,
    },
}

/// The guest program: a static ELF executable.
///
/// # Errors
/// [`Error::NoProgram`] where this build has none for the architecture.
pub fn program(arch: Arch) -> Result<&'static [u8], Error> {
    let bytes: &'static [u8] = match arch {
        Arch::Amd64 => include_bytes!(concat!(env!("OUT_DIR"), "/guest-amd64")),
        Arch::Arm64 => include_bytes!(concat!(env!("OUT_DIR"), "/guest-arm64")),
        Arch::Riscv64 => &[],
    };
    if bytes.is_empty() {
        Err(Error::NoProgram(arch))
    } else {
        Ok(bytes)
    }
}
