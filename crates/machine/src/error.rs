//! What can go wrong while a machine is made.

use crate::layout::{MAX_MEMORY_MIB, MIN_MEMORY_MIB};

/// Why a machine could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host gives no random bytes.
    #[error("no random bytes for the machine's identity")]
    Entropy(#[source] std::io::Error),
    /// Less or more RAM than a machine can have.
    #[error("{0} MiB of memory is out of range; give {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB")]
    MemorySize(u64),
    /// The kernel and the initramfs do not fit.
    #[error("{memory_mib} MiB of memory is too little for this kernel; give at least {needed_mib} MiB")]
    MemoryTooSmall {
        /// What the machine has.
        memory_mib: u64,
        /// About what it needs.
        needed_mib: u64,
    },
    /// More vCPUs than the backend has, or none.
    #[error("{asked} vCPUs is out of range; {backend} takes 1 to {most}")]
    VcpuCount {
        /// What was asked.
        asked: u32,
        /// The backend's name.
        backend: &'static str,
        /// The most it takes.
        most: u32,
    },
    /// The host gave no RAM.
    #[error("the host does not give the guest {memory_mib} MiB of memory; give it less")]
    GuestMemory {
        /// What the machine was to have.
        memory_mib: u64,
        /// The host's answer.
        #[source]
        source: guest_memory::Error,
    },
    /// The CPU backend refused.
    #[error("the CPU backend")]
    Hypervisor(#[from] hypervisor::Error),
    /// The kernel file cannot be loaded.
    #[error("the kernel cannot be loaded: {0}")]
    Kernel(String),
    /// The kernel command line is impossible.
    #[error("the kernel command line is refused: {0}")]
    CommandLine(String),
    /// Boot data does not fit into RAM.
    #[error("boot data does not fit into guest memory")]
    BootLayout,
    /// Two devices claim one address.
    #[error("the machine's devices collide")]
    Bus(#[from] device_model::BusError),
    /// A device cannot be made with these settings.
    #[error("device {device} is refused: {reason}")]
    Device {
        /// Its name.
        device: String,
        /// What stands against it.
        reason: String,
    },
    /// A snapshot cannot be written, or read.
    #[error("the snapshot")]
    Snapshot(#[from] saved_state::Error),
    /// A snapshot of another machine, or made on another CPU.
    #[error("the snapshot is of another machine: {}", .0.join("; "))]
    Mismatch(Vec<String>),
    /// RAM cannot be written to a snapshot or mapped from it.
    #[error("guest memory and the snapshot's file")]
    MemoryImage(#[source] std::io::Error),
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
    /// The host gave no thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}
