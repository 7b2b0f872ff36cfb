//! A kernel and an initramfs without an image: what boot benchmarks and kernel developers run.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use hypervisor::Hypervisor;
use hypervisor::x86_64::CpuProfile;
use machine::{BootImage, CommandLine, Machine, MachineConfig, Outcome};

use crate::console::{ConsoleLog, ConsoleSink};
use crate::plugs::plug;
use crate::post_mortem::PostMortem;
use crate::{Error, Result, Timeline};

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct BootOnly<'a> {
    /// An ELF kernel.
    pub kernel: &'a Path,
    /// The initial RAM file system.
    pub initramfs: &'a Path,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// Words added to the machine's own command line.
    pub append: &'a str,
}

/// Boots a kernel, gives `sink` what its console says, and waits for the machine's end.
///
/// # Errors
/// Files that cannot be read; a machine that cannot be made; [`Error::BootEnded`] for one that ends otherwise
/// than by switching itself off or asking for a reset.
pub fn boot_kernel(boot: &BootOnly<'_>, hypervisor: Arc<dyn Hypervisor>, sink: ConsoleSink) -> Result<()> {
    let kernel = File::open(boot.kernel).map_err(Error::file("read", boot.kernel))?;
    let initramfs = fs::read(boot.initramfs).map_err(Error::file("read", boot.initramfs))?;
    let mut command_line = CommandLine::standard();
    command_line.push(boot.append);
    let (backends, consoles) = plug(hypervisor, Vec::new(), Vec::new(), &Timeline::default());
    let config = MachineConfig {
        memory_mib: boot.memory_mib,
        vcpus: 1,
        cpu: CpuProfile::Host,
    };
    let image = BootImage {
        kernel,
        initramfs,
        command_line,
    };
    let log = ConsoleLog::default();
    let readers = [
        log.follow(consoles.serial, Some(sink.clone()))?,
        log.follow(consoles.virtio, Some(sink))?,
    ];
    let machine = Machine::boot(&config, &image, backends)?;
    let outcome = machine.wait(None);
    drop(machine);
    for reader in readers {
        // Its last words are out when its thread has ended.
        let _ = reader.join();
    }
    match outcome {
        Some(Outcome::PoweredOff | Outcome::Reset) => Ok(()),
        other => Err(Error::BootEnded(PostMortem::new(other, &log))),
    }
}
