//! What the machines of the benchmarks boot, and the two monitors that boot it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::monitor::Silent;
use crate::lab;
use crate::lab::packages::{self, Package};

/// Debian's metapackage of the kernel that both monitors boot.
const KERNEL: &str = "linux-image-6.12-cloud-amd64";
/// What every boot of both sides needs.
pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        why: "the peer",
    },
    Package {
        name: "zstd",
        why: "unpacks the kernel",
    },
];
const COMMAND_LINE: &str = "console=ttyS0 reboot=t panic=-1 quiet";

/// The processor a machine runs on.
#[derive(Clone, Copy)]
pub(super) enum Processor {
    /// The host's, by KVM.
    Kvm,
    /// In software: our own against the peer's.
    Soft,
}

/// What both monitors boot.
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) memory_mib: u64,
    /// Arguments of the guest's first program.
    pub(super) arguments: Vec<String>,
}

impl Guest {
    /// Debian's kernel and `initramfs`, as files in `folder`.
    ///
    /// # Errors
    /// Where the kernel cannot be fetched or unpacked.
    pub(super) fn write(
        folder: &Path,
        initramfs: &[u8],
        memory_mib: u64,
        arguments: &[String],
    ) -> Result<Guest> {
        let guest = Guest {
            kernel: folder.join("vmlinux"),
            initramfs: folder.join("initramfs"),
            memory_mib,
            arguments: arguments.to_vec(),
        };
        let image = lab::boot_image(&packages::unpacked_dependency(KERNEL, &lab::cache_folder()?)?)?;
        fs::write(&guest.kernel, unpack_kernel(&fs::read(&image)?, folder)?)?;
        fs::write(&guest.initramfs, initramfs)?;
        Ok(guest)
    }

    fn command_line(&self) -> String {
        let mut line = COMMAND_LINE.to_owned();
        if !self.arguments.is_empty() {
            // Linux, Documentation/admin-guide/kernel-parameters.rst: what follows is for init.
            line += " -- ";
            line += &self.arguments.join(" ");
        }
        line
    }
}

/// The call of `cc` that boots a bare kernel and shows its serial console on standard output.
pub(super) fn ours(cc: &Path, guest: &Guest, processor: Processor) -> Command {
    let mut command = Command::new(cc);
    command
        .arg("boot-bench")
        .arg("--kernel")
        .arg(&guest.kernel)
        .arg("--initramfs")
        .arg(&guest.initramfs);
    command.args(["--memory", &guest.memory_mib.to_string()]);
    command.args(["--append", &guest.command_line()]);
    command.args(match processor {
        Processor::Kvm => ["--backend", "kvm"],
        Processor::Soft => ["--backend", "soft"],
    });
    command
}

/// The peer, set up as fast as it goes: `rtc=off` would cost this kernel 2 s.
pub(super) fn peer(guest: &Guest, processor: Processor) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // Without KVM's clock the kernel has only the PIT to measure the APIC's timer by: without one it stands still.
    // On a busy host it stands still with ACPI, too.
    command.args(match processor {
        Processor::Kvm => ["-M", "microvm,rtc=on,x-option-roms=off,pit=off"],
        Processor::Soft => ["-M", "microvm,rtc=on,x-option-roms=off,acpi=off"],
    });
    command.args(match processor {
        Processor::Kvm => ["-accel", "kvm", "-cpu", "host"],
        Processor::Soft => ["-accel", "tcg", "-cpu", "qemu64"],
    });
    command.args(["-m", &guest.memory_mib.to_string(), "-smp", "1"]);
    command.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    command.args(["-serial", "stdio", "-append", &guest.command_line()]);
    command.args([OsStr::new("-kernel"), guest.kernel.as_os_str()]);
    command.args([OsStr::new("-initrd"), guest.initramfs.as_os_str()]);
    command
}

/// How often a peer in software that does not boot is started again: QEMU's boots hang now and then.
const PEER_ATTEMPTS: u32 = 4;

/// Runs a peer until one run does not stay silent.
///
/// # Errors
/// Those of `run`, and a peer that is silent each time.
pub(super) fn insist<T>(peer: &str, run: impl Fn() -> Result<T>) -> Result<T> {
    for attempt in 1..=PEER_ATTEMPTS {
        match run() {
            Err(error) if error.is::<Silent>() => {
                eprintln!("{peer}: attempt {attempt} of {PEER_ATTEMPTS} came to nothing: {error}");
            }
            result => return result,
        }
    }
    bail!("{peer} did not come up {PEER_ATTEMPTS} times")
}

/// The ELF kernel in a bzImage (Linux, Documentation/arch/x86/boot.rst: `setup_sects` at 0x1f1,
/// `payload_offset` and `payload_length` at 0x248), which Debian packs with zstd.
fn unpack_kernel(image: &[u8], folder: &Path) -> Result<Vec<u8>> {
    let number = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let payload = || {
        let start = (usize::from(*image.get(0x1f1)?) + 1) * 512 + number(0x248)?;
        // The last four bytes are the unpacked size, for the kernel's own unpacker.
        image.get(start..start + number(0x24c)?.checked_sub(4)?)
    };
    let packed = folder.join("payload");
    fs::write(&packed, payload().context("the kernel is no bzImage")?)?;
    let output = Command::new("zstd")
        .args(["--decompress", "--stdout", "--quiet"])
        .arg(&packed)
        .output()?;
    ensure!(
        output.status.success(),
        "zstd: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
