//! Starts under real KVM, in one lab boot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{PEER, Starts};
use crate::bench::{Row, row, samples_in_lab};

const MEMORY: [&str; 2] = ["--memory", "256"];

/// `bench start-in-lab`.
#[derive(clap::Args)]
pub(crate) struct InLab {
    cc: PathBuf,
    cache: PathBuf,
    runs: u32,
}

/// Milliseconds of every run.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Samples {
    warm: Vec<f64>,
    cold: Vec<f64>,
}

/// Measures `runs` starts of each kind in one lab boot.
///
/// # Errors
/// Where the lab does not work, or a run fails.
pub(super) fn measure(runs: u32, starts: &Starts) -> Result<Vec<Row>> {
    let words = [Path::new("start-in-lab"), &starts.cc, &starts.cache];
    let samples: Samples = samples_in_lab(&words, runs)?;
    Ok(vec![row(
        "KVM: warm start to first output",
        "ms",
        &samples.warm,
        PEER,
        &samples.cold,
    )])
}

/// Runs both kinds turn by turn and prints the [`Samples`].
///
/// # Errors
/// Where a run fails.
pub(crate) fn in_lab(arguments: &InLab) -> Result<u8> {
    let starts = Starts {
        cc: arguments.cc.clone(),
        cache: arguments.cache.clone(),
        backend: "kvm",
    };
    let warm = || starts.milliseconds_to_output(&MEMORY);
    // What the lab writes is gone with it: the first boots and leaves the snapshot, and the second warms the caches.
    starts.milliseconds(&MEMORY)?;
    starts.milliseconds(&MEMORY)?;
    let mut samples = Samples::default();
    for number in 1..=arguments.runs {
        let warm = warm()?;
        let cold = starts.milliseconds_to_output(&[&MEMORY[..], &["--no-snapshot"]].concat())?;
        eprintln!("run {number}: warm {warm:.0} ms, cold {cold:.0} ms");
        samples.warm.push(warm);
        samples.cold.push(cold);
    }
    println!("{}", serde_json::to_string(&samples)?);
    Ok(0)
}
