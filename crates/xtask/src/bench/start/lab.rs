//! Starts under real KVM, in one lab boot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result};

use super::{IMAGE, PEER, SILENCE, Starts, WORD};
use crate::bench::monitor::Monitor;
use crate::bench::{Row, median, row, samples_in_lab};
use crate::lab::packages;

const MEMORY: [&str; 2] = ["--memory", "256"];
/// What the running guest and the snapshot of it are called.
const GUEST: &str = "going-on";
const PUT_BY: &str = "put-by";
/// How many starts of a guest that was put by are to fit into a cold one of the same run.
const BAR: f64 = 27.0;
/// Firecracker's cold boot, and its load of a snapshot and resume, in a lab of this kind, in milliseconds. A figure that
/// was given, not one of this run: Firecracker is in no archive that this workspace takes its peers from.
const REFERENCE: [f64; 2] = [5100.0, 191.0];

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
    going_on: Vec<f64>,
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
    let against_cold = |name, samples: &[f64], cold: &[f64]| row(name, "ms", samples, PEER, cold);
    let rows = vec![
        against_cold(
            "KVM: a guest that was put by, to its first output",
            &samples.going_on,
            &samples.cold,
        ),
        against_cold("KVM: warm start to first output", &samples.warm, &samples.cold),
    ];
    println!("{}", bar(median(&samples.going_on), median(&samples.cold)));
    Ok(rows)
}

/// What is still missing to the bar, in words: a part of this run's cold start, and the reference beside it.
fn bar(going_on: f64, cold: f64) -> String {
    let [reference_cold, reference_warm] = REFERENCE;
    let (allowed, scaled) = (cold / BAR, cold * reference_warm / reference_cold);
    let verdict = if going_on <= allowed { "met" } else { "missed" };
    format!(
        "  bar: 1/{BAR:.0} of the cold start, {allowed:.0} ms: {verdict} at {going_on:.0} ms. Stated reference, not measured here: \
         Firecracker, {reference_warm:.0} ms warm where its cold boot takes {reference_cold:.0} ms, which is {scaled:.0} ms here"
    )
}

/// Runs all kinds turn by turn and prints the [`Samples`].
///
/// # Errors
/// Where a run fails.
pub(crate) fn in_lab(arguments: &InLab) -> Result<u8> {
    let starts = in_memory(arguments)?;
    let cold = || starts.milliseconds_to_output(&[&MEMORY[..], &["--no-snapshot"]].concat());
    let warm = || starts.milliseconds_to_output(&MEMORY);
    let going_on = || starts.milliseconds_going_on();
    // The first of each kind leaves what the others find, and the second is the first that finds it.
    starts.put_by_a_guest()?;
    for _ in 0..2 {
        starts.milliseconds(&MEMORY)?;
        going_on()?;
    }
    let mut samples = Samples::default();
    for number in 1..=arguments.runs {
        let (going_on, warm, cold) = (going_on()?, warm()?, cold()?);
        eprintln!("run {number}: going on {going_on:.0} ms, warm {warm:.0} ms, cold {cold:.0} ms");
        samples.going_on.push(going_on);
        samples.warm.push(warm);
        samples.cold.push(cold);
    }
    println!("{}", serde_json::to_string(&samples)?);
    Ok(0)
}

/// The program and its cache in the lab's memory: each file of the host's that the lab opens costs it a way to the host and
/// back, which no disk does.
fn in_memory(arguments: &InLab) -> Result<Starts> {
    let folder = std::env::temp_dir().join("start");
    fs::create_dir(&folder)?;
    let mut copy = Command::new("cp");
    copy.arg("--archive").arg(&arguments.cc);
    // No snapshots: they are of another machine.
    copy.args(["debian", "images", "kernels"].map(|part| arguments.cache.join(part)));
    packages::run(copy.arg(&folder))?;
    Ok(Starts {
        cc: folder.join(arguments.cc.file_name().context("the program's name")?),
        cache: folder,
        backend: "kvm",
    })
}

impl Starts {
    /// A guest whose program says a word a hundred times a second is put by as [`PUT_BY`].
    fn put_by_a_guest(&self) -> Result<()> {
        let program = format!(
            "busybox mkfifo /never; exec 3<>/never; while :; do echo {WORD}; read -t 0.01 never <&3; done"
        );
        let start = ["start", "--name", GUEST, "--backend", self.backend];
        let guest = [
            &start[..],
            &MEMORY,
            &[IMAGE, "--", "busybox", "sh", "-c", &program],
        ]
        .concat();
        let put_by = ["snapshot", "create", PUT_BY, GUEST];
        for words in [&guest[..], &put_by, &["stop", "--time", "0", GUEST]] {
            let mut command = Command::new(&self.cc);
            command.arg("--quiet").arg("--cache-dir").arg(&self.cache);
            packages::run(command.args(words))?;
            // The program is at its words by then, and not at its first instructions.
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// From the start of a `cc run` that takes up [`PUT_BY`] to the first output of what runs in it.
    fn milliseconds_going_on(&self) -> Result<f64> {
        let mut command = Command::new(&self.cc);
        command.args([
            "run",
            "--quiet",
            "--backend",
            self.backend,
            "--from",
            PUT_BY,
            "--cache-dir",
        ]);
        command.arg(&self.cache);
        let mut monitor = Monitor::start(command)?;
        let line = monitor.wait_for(WORD, SILENCE)?;
        // What a guest leaves for the next is complete after its first second.
        thread::sleep(Duration::from_secs(2));
        Ok(monitor.seconds_until(&line) * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_is_a_part_of_the_cold_start() {
        assert!(bar(100.0, 2700.0).contains("100 ms: met at 100 ms"));
        assert!(bar(101.0, 2700.0).contains("100 ms: missed at 101 ms"));
        assert!(bar(1.0, 5100.0).ends_with("which is 191 ms here"));
    }
}
