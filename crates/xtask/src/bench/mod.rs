//! `cargo xtask bench`: this workspace against named peers, interleaved on the same machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{self, LabCommand, Output};

mod boot;
mod cpu;
mod guest;
mod monitor;
pub(crate) mod pull;
mod start;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Process start to the guest's first line, and the monitor's own memory, against QEMU's microvm.
    Boot {
        #[command(flatten)]
        options: Options,
        /// Measure on one kind of processor only.
        #[arg(long)]
        only: Option<boot::Processor>,
    },
    /// The CPU in software: programs in a guest, against QEMU's TCG.
    Cpu {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        selection: cpu::Selection,
    },
    /// Pull of a 500 MiB image from a registry on loopback, against skopeo.
    Pull(Options),
    /// `cc run` from a snapshot of a booted guest, against the same that boots.
    Start {
        #[command(flatten)]
        options: Options,
        /// Measure on one kind of processor only.
        #[arg(long)]
        only: Option<boot::Processor>,
    },
    /// The half of `bench start` that runs in the lab; prints its samples.
    #[command(hide = true)]
    StartInLab(start::InLab),
    /// The half of `bench boot` that runs in the lab; prints its samples.
    #[command(hide = true)]
    BootInLab(boot::InLab),
}

/// What every benchmark takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs of each side.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// Measures and prints a table.
///
/// # Errors
/// Where a side fails: nothing is tried again.
pub(crate) fn command(bench: Bench) -> Result<u8> {
    let (options, rows) = match bench {
        Bench::BootInLab(arguments) => return boot::in_lab(&arguments),
        Bench::Boot { options, only } => {
            let rows = boot::measure(options.runs, only)?;
            (options, rows)
        }
        Bench::Cpu { options, selection } => {
            let rows = cpu::measure(options.runs, &selection)?;
            (options, rows)
        }
        Bench::Pull(options) => {
            let rows = pull::measure(options.runs)?;
            (options, rows)
        }
        Bench::StartInLab(arguments) => return start::in_lab(&arguments),
        Bench::Start { options, only } => {
            let rows = start::measure(options.runs, only)?;
            (options, rows)
        }
    };
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&rows)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(0)
}

/// Runs the lab's half of a benchmark: `bench WORDS RUNS` in the lab, which prints its samples.
fn samples_in_lab<T: serde::de::DeserializeOwned>(words: &[&Path], runs: u32) -> Result<T> {
    let program = std::env::current_exe()?;
    let words = [&program, Path::new("bench")]
        .into_iter()
        .chain(words.iter().copied());
    let words = words.map(|word| word.display().to_string());
    let mut command = LabCommand::new(words.chain([runs.to_string()]));
    command.timeout = Duration::from_secs(120 + 60 * u64::from(runs));
    command.output = Output::Capture;
    let outcome = lab::run(&command)?;
    ensure!(
        outcome.status == 0,
        "the lab's half failed with status {}",
        outcome.status
    );
    serde_json::from_slice(&outcome.stdout).context("the lab's samples")
}

/// One line of a result: medians of both sides.
#[derive(serde::Serialize)]
struct Row {
    name: String,
    ours: f64,
    peer: f64,
    peer_name: &'static str,
    unit: &'static str,
    /// Above 1 where ours is better.
    ratio: f64,
}

impl Row {
    /// A quantity of which less is better.
    fn of(name: String, unit: &'static str, ours: f64, peer_name: &'static str, peer: f64) -> Row {
        Row {
            name,
            ours,
            peer,
            peer_name,
            unit,
            ratio: peer / ours,
        }
    }
}

/// Prints the medians and the spread of a quantity of which less is better, and gives its row.
fn row(name: &str, unit: &'static str, ours: &[f64], peer_name: &'static str, peer: &[f64]) -> Row {
    let row = Row::of(name.to_owned(), unit, median(ours), peer_name, median(peer));
    println!(
        "{name}: ours {:.2} {unit} ({}), {peer_name} {:.2} {unit} ({}), ratio {:.2}",
        row.ours,
        spread(ours),
        row.peer,
        spread(peer),
        row.ratio
    );
    row
}

/// The middle of the samples; of an even number, the mean of the two in the middle.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

fn spread(samples: &[f64]) -> String {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.2} to {most:.2}, {} runs", samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn row_less_than_the_peer_is_a_ratio_above_one() {
        assert_eq!(row("x", "s", &[2.0], "peer", &[3.0]).ratio, 1.5);
    }
}
