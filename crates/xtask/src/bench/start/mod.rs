//! `cargo xtask bench start`: `cc run` from a snapshot of a booted guest, against the same that boots, and against itself
//! with more memory: on the CPU in software on this machine, and under KVM in one lab boot. Also what it takes to put a
//! guest by and to fork it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::boot::Processor;
use super::monitor::Monitor;
use super::{Row, row};
use crate::workspace;

mod forks;
mod lab;

pub(super) use lab::{InLab, in_lab};

const IMAGE: &str = "deb:busybox-static";
/// What the guest's command prints, where it prints.
const WORD: &str = "started";
/// A guest that says nothing for this long has failed.
const SILENCE: Duration = Duration::from_secs(60);
const PEER: &str = "our cold start";

/// Measures `runs` starts of each kind, turn by turn, on one kind of processor or on both. The peer of a start is our own
/// cold start; that of a start with much memory is one with little.
///
/// # Errors
/// Where something cannot be built or fetched, the lab does not work, or a run fails.
pub(super) fn measure(runs: u32, only: Option<Processor>) -> Result<Vec<Row>> {
    let starts = Starts {
        cc: workspace::cc(true)?,
        // Images may stay for the next time; snapshots of another build would only be misses.
        cache: workspace::root().join("target/bench-start"),
        backend: "soft",
    };
    let mut rows = Vec::new();
    if only != Some(Processor::Kvm) {
        rows.extend(here(runs, &starts)?);
        rows.extend(forks::measure(runs, &starts)?);
    }
    if only != Some(Processor::Soft) {
        // The lab has no network: what is missing is fetched here.
        starts.milliseconds(&["--no-snapshot"])?;
        rows.extend(lab::measure(runs, &starts)?);
    }
    Ok(rows)
}

fn here(runs: u32, starts: &Starts) -> Result<Vec<Row>> {
    // Boots once with each size and leaves the snapshots that the others start from; the second brings their pages into
    // the host's cache, and leaves translated code.
    for memory in ["256", "4096"] {
        starts.milliseconds(&["--memory", memory])?;
        starts.milliseconds(&["--memory", memory])?;
    }
    let mut samples: [Vec<f64>; 3] = Default::default();
    for number in 1..=runs {
        let round = [
            starts.milliseconds(&["--memory", "256"])?,
            starts.milliseconds(&["--memory", "256", "--no-snapshot"])?,
            starts.milliseconds(&["--memory", "4096"])?,
        ];
        let [warm, cold, large] = round;
        eprintln!("run {number}: warm {warm:.1} ms, cold {cold:.1} ms, warm with 4 GiB {large:.1} ms");
        for (all, one) in samples.iter_mut().zip(round) {
            all.push(one);
        }
    }
    let [warm, cold, large] = samples;
    Ok(vec![
        row("software CPU: warm start to exit", "ms", &warm, PEER, &cold),
        row(
            "software CPU: warm start with 4 GiB of RAM",
            "ms",
            &large,
            "with 256 MiB",
            &warm,
        ),
    ])
}

/// How guests are started.
struct Starts {
    cc: PathBuf,
    cache: PathBuf,
    backend: &'static str,
}

impl Starts {
    fn command(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new(&self.cc);
        command.args(["run", "--quiet", "--backend", self.backend, "--cache-dir"]);
        command.arg(&self.cache).args(options);
        command.args([IMAGE, "--", "busybox"]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// From the start of a `cc run` to its end, which must be a good one.
    fn milliseconds(&self, options: &[&str]) -> Result<f64> {
        milliseconds_to_end(&mut self.command(options, &["true"]))
    }

    /// From the start of a `cc run` to its command's first output.
    fn milliseconds_to_output(&self, options: &[&str]) -> Result<f64> {
        let mut monitor = Monitor::start(self.command(options, &["echo", WORD]))?;
        let line = monitor.wait_for(WORD, SILENCE)?;
        Ok(monitor.seconds_until(&line) * 1e3)
    }
}

/// How long a command takes, which must end well.
fn milliseconds_to_end(command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{command:?} could not be started"))?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}
