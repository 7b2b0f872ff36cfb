//! `cargo xtask bench boot`: both monitors boot the same ELF kernel with the same one-program initramfs in
//! one lab boot, turn by turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::guest::{self, Guest, PACKAGES, Processor};
use super::monitor::Monitor;
use super::{Row, row};
use crate::lab::{self, Archive, LabCommand, Output, packages};
use crate::workspace;

const MEMORY_MIB: u64 = 256;
/// What the guest's init prints.
const FIRST_LINE: &str = "the guest is up";
/// A guest that says nothing for this long has failed.
const SILENCE: Duration = Duration::from_secs(60);
/// A monitor with an idle guest has settled after this long.
const SETTLE: Duration = Duration::from_secs(1);
const PEER: &str = "QEMU microvm";

/// `bench boot-in-lab`.
#[derive(clap::Args)]
pub(crate) struct InLab {
    cc: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
    runs: u32,
}

/// What was measured, one entry for each run.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Samples {
    ours: Vec<Sample>,
    peer: Vec<Sample>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sample {
    /// From process start to the guest's first line.
    seconds: f64,
    /// Resident memory without guest RAM.
    monitor_mib: f64,
}

/// Measures `runs` boots of each side in one lab boot.
///
/// # Errors
/// Where something cannot be built, the lab does not work, or a guest does not come up.
pub(super) fn measure(runs: u32) -> Result<Vec<Row>> {
    packages::ensure(PACKAGES)?;
    let cc = workspace::cc(true)?;
    let folder = tempfile::tempdir()?;
    let guest = Guest::write(folder.path(), &initramfs(), MEMORY_MIB, &[])?;

    let program = std::env::current_exe()?;
    let words = [
        &program,
        Path::new("bench"),
        Path::new("boot-in-lab"),
        &cc,
        &guest.kernel,
        &guest.initramfs,
    ]
    .map(|word| word.display().to_string());
    let mut command = LabCommand::new(words.into_iter().chain([runs.to_string()]));
    command.timeout = Duration::from_secs(120 + 60 * u64::from(runs));
    command.output = Output::Capture;
    let outcome = lab::run(&command)?;
    ensure!(
        outcome.status == 0,
        "the lab's half failed with status {}",
        outcome.status
    );
    let samples: Samples = serde_json::from_slice(&outcome.stdout).context("the lab's samples")?;
    let of = |side: &[Sample], value: fn(&Sample) -> f64| side.iter().map(value).collect::<Vec<_>>();
    let seconds = |side: &[Sample]| of(side, |sample| sample.seconds);
    let memory = |side: &[Sample]| of(side, |sample| sample.monitor_mib);
    Ok(vec![
        row(
            "boot to first guest output",
            "s",
            &seconds(&samples.ours),
            PEER,
            &seconds(&samples.peer),
        ),
        row(
            "monitor memory, one idle VM",
            "MiB",
            &memory(&samples.ours),
            PEER,
            &memory(&samples.peer),
        ),
    ])
}

/// Runs both sides turn by turn and prints the [`Samples`].
///
/// # Errors
/// Where a guest does not come up.
pub(super) fn in_lab(arguments: &InLab) -> Result<u8> {
    let guest = Guest {
        kernel: arguments.kernel.clone(),
        initramfs: arguments.initramfs.clone(),
        memory_mib: MEMORY_MIB,
        arguments: Vec::new(),
    };
    // The first run of each side also reads the files: it is not counted.
    run_once(guest::peer(&guest, Processor::Kvm)).context(PEER)?;
    run_once(guest::ours(&arguments.cc, &guest, Processor::Kvm)).context("ours")?;
    let mut samples = Samples::default();
    for run in 1..=arguments.runs {
        let peer = run_once(guest::peer(&guest, Processor::Kvm)).context(PEER)?;
        let ours = run_once(guest::ours(&arguments.cc, &guest, Processor::Kvm)).context("ours")?;
        eprintln!(
            "run {run}: ours {:.2} s, {PEER} {:.2} s",
            ours.seconds, peer.seconds
        );
        samples.peer.push(peer);
        samples.ours.push(ours);
    }
    println!("{}", serde_json::to_string(&samples)?);
    Ok(0)
}

fn run_once(command: Command) -> Result<Sample> {
    let mut monitor = Monitor::start(command)?;
    let line = monitor.wait_for(FIRST_LINE, SILENCE)?;
    thread::sleep(SETTLE);
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", monitor.id()))?;
    Ok(Sample {
        seconds: monitor.seconds_until(&line),
        monitor_mib: resident_kib(&smaps) as f64 / 1024.0,
    })
}

/// An archive with nothing but [`init_program`].
fn initramfs() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, &init_program());
    archive.finish()
}

/// Resident KiB of a process's smaps text without its guest RAM: the mappings of half of it or more.
fn resident_kib(smaps: &str) -> u64 {
    let mut size = 0;
    let mut resident = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (label, value) = (
            words.next(),
            words.next().and_then(|word| word.parse::<u64>().ok()),
        );
        match (label, value) {
            (Some("Size:"), Some(value)) => size = value,
            (Some("Rss:"), Some(value)) if size < MEMORY_MIB * 1024 / 2 => resident += value,
            _ => {}
        }
    }
    resident
}

/// An x86-64 ELF program that prints [`FIRST_LINE`] and then sleeps for ever.
fn init_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let message = format!("{FIRST_LINE}\n");
    let mut code = vec![0xb8, 1, 0, 0, 0]; // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
    code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip + 16], the message
    code.push(0xba); // mov edx, its length
    code.extend((message.len() as u32).to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xb8, 34, 0, 0, 0]); // mov eax, 34 (pause)
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xeb, 0xf7]); // jmp to the mov
    code.extend(message.as_bytes());
    let size = HEADERS + code.len() as u64;

    // ELF-64 Object File Format 1.5, "File header": class 64, little endian, version 1.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, EV_CURRENT
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend([0; 12]); // section headers, flags: none
    elf.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // sizes and counts
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, read and execute
    for field in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(u64::to_le_bytes(field)); // offset, addresses, sizes, alignment
    }
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;

    use super::*;
    use crate::process::Process;

    #[test]
    fn init_program_run_here_prints_its_line_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        fs::write(&path, init_program()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();

        let mut child = Process(Command::new(&path).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();

        assert_eq!(line.trim_end(), FIRST_LINE);
        assert!(child.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn resident_guest_ram_is_left_out() {
        let smaps = "1-2 rw-p 0 00:00 0 [heap]\nSize: 400 kB\nRss: 100 kB\n\
                     3-4 rw-s 0 00:01 5 /memfd:ram\nSize: 262144 kB\nRss: 90000 kB\n\
                     5-6 r-xp 0 08:01 9 /bin/cc\nSize: 800 kB\nRss: 50 kB\n";

        assert_eq!(resident_kib(smaps), 150);
    }
}
