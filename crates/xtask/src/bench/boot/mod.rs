//! `cargo xtask bench boot`: both monitors boot the same ELF kernel with the same one-program initramfs, turn by turn:
//! under KVM in one lab boot, and on the CPU in software on this machine.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Row;
use super::guest::{Guest, PACKAGES};
use super::monitor::Monitor;
use crate::lab::packages;
use crate::workspace;

mod here;
mod lab;
mod programs;

pub(super) use lab::{InLab, in_lab};

const MEMORY_MIB: u64 = 256;
/// What the guest's init prints.
const FIRST_LINE: &str = "the guest is up";
/// A guest that says nothing for this long has failed.
const SILENCE: Duration = Duration::from_secs(60);
/// A monitor with an idle guest has settled after this long.
const SETTLE: Duration = Duration::from_secs(1);

/// Where to measure.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Processor {
    /// Under KVM, in the lab.
    Kvm,
    /// On the CPU in software, here.
    Soft,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sample {
    /// From process start to the guest's first line.
    seconds: f64,
    /// Resident memory without guest RAM.
    monitor_mib: f64,
}

/// Measures `runs` boots of each side, on one kind of processor or on both.
///
/// # Errors
/// Where something cannot be built, the lab does not work, or a guest does not come up.
pub(super) fn measure(runs: u32, only: Option<Processor>) -> Result<Vec<Row>> {
    packages::ensure(PACKAGES)?;
    let cc = workspace::cc(true)?;
    let folder = tempfile::tempdir()?;
    let guest = Guest::write(folder.path(), &programs::initramfs(), MEMORY_MIB, &[])?;
    let mut rows = Vec::new();
    if only != Some(Processor::Soft) {
        rows.extend(lab::measure(runs, &cc, &guest)?);
    }
    if only != Some(Processor::Kvm) {
        rows.extend(here::measure(runs, &cc, &guest, folder.path())?);
    }
    Ok(rows)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_guest_ram_is_left_out() {
        let smaps = "1-2 rw-p 0 00:00 0 [heap]\nSize: 400 kB\nRss: 100 kB\n\
                     3-4 rw-s 0 00:01 5 /memfd:ram\nSize: 262144 kB\nRss: 90000 kB\n\
                     5-6 r-xp 0 08:01 9 /bin/cc\nSize: 800 kB\nRss: 50 kB\n";

        assert_eq!(resident_kib(smaps), 150);
    }
}
