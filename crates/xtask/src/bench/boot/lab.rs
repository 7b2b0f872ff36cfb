//! Boots under real KVM: both monitors in one lab boot, turn by turn.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{MEMORY_MIB, Sample, run_once};
use crate::bench::guest::{self, Guest, Processor};
use crate::bench::{Row, row, samples_in_lab};

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

/// Measures `runs` boots of each side in one lab boot.
///
/// # Errors
/// Where something cannot be built, the lab does not work, or a guest does not come up.
pub(super) fn measure(runs: u32, cc: &Path, guest: &Guest) -> Result<Vec<Row>> {
    let words = [Path::new("boot-in-lab"), cc, &guest.kernel, &guest.initramfs];
    let samples: Samples = samples_in_lab(&words, runs)?;
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
pub(crate) fn in_lab(arguments: &InLab) -> Result<u8> {
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
