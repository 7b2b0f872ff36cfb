//! `cargo xtask bench cpu`: the CPU in software against the peer's, by workloads that one guest runs one after
//! another in the same kernel and initramfs, boot by boot in turns.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::guest::{self, Guest, Processor};
use super::monitor::Monitor;
use super::{Row, median};
use crate::lab::packages;
use crate::workspace;

mod root;

const PEER: &str = "QEMU microvm, TCG";
/// The root alone, the compiler in it, takes a quarter.
const MEMORY_MIB: u64 = 512;
/// A guest, or a workload, that takes longer has failed.
const SILENCE: Duration = Duration::from_secs(180);
/// After this long without a line, a peer that boots is taken to hang.
const PEER_SILENCE: Duration = Duration::from_secs(60);

/// What `bench cpu` takes besides what every benchmark does.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// Run only this workload; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measure the test build of `cc`, in which only the CPU itself is optimised.
    #[arg(long)]
    debug: bool,
}

/// What one run of one workload took.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    /// By the guest's own clock.
    milliseconds: f64,
    /// Processor time of the monitor, all threads.
    processor_milliseconds: f64,
}

/// All samples of one workload.
struct Workload {
    name: String,
    native: f64,
    ours: Vec<Sample>,
    peer: Vec<Sample>,
}

/// Measures `runs` boots of each side, turn by turn.
///
/// # Errors
/// Where something cannot be built, a workload fails, or a guest does not come up.
pub(super) fn measure(runs: u32, selection: &Selection) -> Result<Vec<Row>> {
    packages::ensure(guest::PACKAGES)?;
    packages::ensure(root::PACKAGES)?;
    let cc = workspace::cc(!selection.debug)?;
    let folder = tempfile::tempdir()?;
    let program = root::prepare(folder.path())?;
    let initramfs = root::archive(folder.path(), &program)?;
    let guest = Guest::write(folder.path(), &initramfs, MEMORY_MIB, &selection.only)?;

    let mut native = Command::new(&program);
    native.args(&selection.only).current_dir(folder.path());
    let native = run_once(native, SILENCE).context("on the host")?;
    ensure!(!native.is_empty(), "there is no such workload");
    let mut workloads: Vec<Workload> = native
        .into_iter()
        .map(|sample| Workload {
            name: sample.name,
            native: sample.milliseconds,
            ours: Vec::new(),
            peer: Vec::new(),
        })
        .collect();
    for run in 1..=runs {
        let ours = run_ours(&cc, &guest).context("ours")?;
        let peer = run_peer(&guest).context(PEER)?;
        ensure!(
            ours.len() == workloads.len() && peer.len() == workloads.len(),
            "a guest ran other workloads than the host"
        );
        for ((workload, ours), peer) in workloads.iter_mut().zip(ours).zip(peer) {
            eprintln!(
                "run {run}, {}: ours {:.0} ms, {PEER} {:.0} ms",
                workload.name, ours.milliseconds, peer.milliseconds
            );
            workload.ours.push(ours);
            workload.peer.push(peer);
        }
    }
    Ok(report(&workloads))
}

fn run_ours(cc: &Path, guest: &Guest) -> Result<Vec<Sample>> {
    run_once(guest::ours(cc, guest, Processor::Soft), SILENCE)
}

fn run_peer(guest: &Guest) -> Result<Vec<Sample>> {
    guest::insist(PEER, || {
        run_once(guest::peer(guest, Processor::Soft), PEER_SILENCE)
    })
}

/// Runs the program of workloads, in a guest or not, and reads what it says.
fn run_once(command: Command, silence: Duration) -> Result<Vec<Sample>> {
    let mut monitor = Monitor::start(command)?;
    monitor.wait_for("cpu-bench ready", silence)?;
    let mut samples = Vec::new();
    loop {
        let begin = monitor.wait_for("cpu-bench ", SILENCE)?;
        if begin.text.contains("cpu-bench done") {
            return Ok(samples);
        }
        let end = monitor.wait_for("cpu-bench end", SILENCE)?;
        let (name, milliseconds) = ended(&end.text)?;
        eprintln!("{name}: {milliseconds:.0} ms");
        samples.push(Sample {
            name,
            milliseconds,
            processor_milliseconds: (end.processor_seconds - begin.processor_seconds) * 1000.0,
        });
    }
}

/// Name and milliseconds in the line `cpu-bench end NAME STATUS MILLISECONDS`.
fn ended(line: &str) -> Result<(String, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [.., name, status, milliseconds] = words[..] else {
        bail!("not the end of a workload: {line:?}");
    };
    ensure!(status == "0", "workload {name} failed with wait status {status}");
    Ok((
        name.to_owned(),
        milliseconds.parse().context("a workload's time")?,
    ))
}

/// Prints the table and gives its rows.
fn report(workloads: &[Workload]) -> Vec<Row> {
    println!("| workload | host itself | ours | {PEER} | ratio | ratio of processor time |");
    println!("|---|---|---|---|---|---|");
    let of = |samples: &[Sample], value: fn(&Sample) -> f64| {
        median(&samples.iter().map(value).collect::<Vec<_>>())
    };
    let mut rows = Vec::new();
    let mut processor_ratios = Vec::new();
    for workload in workloads {
        let time = |samples| of(samples, |sample: &Sample| sample.milliseconds);
        let busy = |samples| of(samples, |sample: &Sample| sample.processor_milliseconds);
        let row = Row::of(
            workload.name.clone(),
            "ms",
            time(&workload.ours),
            PEER,
            time(&workload.peer),
        );
        let processor_ratio = busy(&workload.peer) / busy(&workload.ours);
        println!(
            "| {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.2} | {processor_ratio:.2} |",
            row.name, workload.native, row.ours, row.peer, row.ratio
        );
        processor_ratios.push(processor_ratio);
        rows.push(row);
    }
    let mean = |value: fn(&Row) -> f64| geometric_mean(rows.iter().map(value));
    let row = Row::of(
        "geometric mean".to_owned(),
        "ms",
        mean(|row| row.ours),
        PEER,
        mean(|row| row.peer),
    );
    println!(
        "| {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.2} | {:.2} |",
        row.name,
        geometric_mean(workloads.iter().map(|workload| workload.native)),
        row.ours,
        row.peer,
        row.ratio,
        geometric_mean(processor_ratios.into_iter()),
    );
    rows.push(row);
    rows
}

fn geometric_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_workload_that_failed_is_an_error() {
        assert_eq!(
            ended("cpu-bench end sort 0 12.5").unwrap(),
            ("sort".to_owned(), 12.5)
        );
        assert!(ended("cpu-bench end sort 256 12.5").is_err());
    }

    #[test]
    fn geometric_mean_of_reciprocals_is_one() {
        assert!((geometric_mean([4.0, 0.25].into_iter()) - 1.0).abs() < 1e-12);
    }
}
