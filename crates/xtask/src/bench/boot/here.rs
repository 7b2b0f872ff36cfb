//! Boots without KVM, on this machine as it is: our CPU in software against the peer's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Sample, programs, run_once};
use crate::bench::guest::{self, Guest, Processor};
use crate::bench::{Row, row};

const PEER: &str = "QEMU microvm, TCG";

/// Measures `runs` boots of each side, and as many of a kernel that ends with its first instruction.
pub(super) fn measure(runs: u32, cc: &Path, guest: &Guest, folder: &Path) -> Result<Vec<Row>> {
    let stops_at_once = Guest {
        kernel: folder.join("first-instruction"),
        initramfs: guest.initramfs.clone(),
        memory_mib: guest.memory_mib,
        arguments: Vec::new(),
    };
    let kernel = programs::first_instruction_kernel(&fs::read(&guest.kernel)?)?;
    fs::write(&stops_at_once.kernel, kernel)?;
    let (boots, boots_of_peer) = in_turns(runs, cc, guest)?;
    let (starts, starts_of_peer) = in_turns(runs, cc, &stops_at_once)?;
    let seconds = |side: &[Sample]| side.iter().map(|sample| sample.seconds).collect::<Vec<_>>();
    let memory = |side: &[Sample]| side.iter().map(|sample| sample.monitor_mib).collect::<Vec<_>>();
    let milliseconds = |side: &[Sample]| -> Vec<f64> { seconds(side).iter().map(|s| s * 1000.0).collect() };
    Ok(vec![
        row(
            "software CPU: boot to first guest output",
            "s",
            &seconds(&boots),
            PEER,
            &seconds(&boots_of_peer),
        ),
        row(
            "software CPU: first guest instruction",
            "ms",
            &milliseconds(&starts),
            PEER,
            &milliseconds(&starts_of_peer),
        ),
        row(
            "software CPU: monitor memory, one idle VM",
            "MiB",
            &memory(&boots),
            PEER,
            &memory(&boots_of_peer),
        ),
    ])
}

/// Boots of both sides, ours first.
fn in_turns(runs: u32, cc: &Path, guest: &Guest) -> Result<(Vec<Sample>, Vec<Sample>)> {
    let ours = || run_once(guest::ours(cc, guest, Processor::Soft)).context("ours");
    let peer = || guest::insist(PEER, || run_once(guest::peer(guest, Processor::Soft)));
    // The first run of each side also reads the files: it is not counted.
    ours()?;
    peer()?;
    let mut samples = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let (ours, peer) = (ours()?, peer()?);
        eprintln!(
            "run {run}: ours {:.3} s, {PEER} {:.3} s",
            ours.seconds, peer.seconds
        );
        samples.0.push(ours);
        samples.1.push(peer);
    }
    Ok(samples)
}
