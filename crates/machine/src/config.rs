//! What a machine is made from: settings, and host services to plug its devices into.

use std::fs::File;
use std::sync::Arc;

use device_backends::{ByteStream, Entropy, FileService, Marks};
use hypervisor::Hypervisor;
use hypervisor::x86_64::CpuProfile;

use crate::boot::CommandLine;

/// Settings of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// RAM in MiB.
    pub memory_mib: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// What they show of themselves.
    pub cpu: CpuProfile,
}

/// What a machine boots.
pub struct BootImage {
    /// The kernel as an ELF file (see [`crate::unpack_kernel`]).
    pub kernel: File,
    /// The initial RAM file system.
    pub initramfs: Vec<u8>,
    /// The kernel command line.
    pub command_line: CommandLine,
}

/// What the machine's devices are plugged into.
pub struct Backends {
    /// Executes guest code.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The first serial port: early kernel messages.
    pub serial: Box<dyn ByteStream>,
    /// Ports of the virtio console; the first is the kernel's console `hvc0`.
    pub console_ports: Vec<SerialPort>,
    /// One virtio-fs device each.
    pub file_systems: Vec<FileSystem>,
    /// For virtio-rng, and for what tells clones apart.
    pub entropy: Arc<dyn Entropy>,
    /// Who notes what the guest writes to the timing port.
    pub marks: Arc<dyn Marks>,
}

/// One port of the virtio console.
pub struct SerialPort {
    /// Its name, which the guest finds in `/sys/class/virtio-ports/*/name`.
    pub name: String,
    /// The host's side.
    pub stream: Box<dyn ByteStream>,
}

/// One file system for the guest. Clones are the same.
#[derive(Clone)]
pub struct FileSystem {
    /// The tag by which the guest mounts it, at most 36 bytes.
    pub tag: String,
    /// The host's side.
    pub service: Arc<dyn FileService>,
}
