//! `cargo xtask bench start`: `cc run` of a program that does nothing, from a snapshot of a booted guest, against the
//! same that boots, and against itself with more memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Row, row};
use crate::workspace;

const IMAGE: &str = "deb:busybox-static";

/// Measures `runs` starts of each kind, turn by turn. The peer of a start is our own cold start; that of a start with
/// much memory is one with little.
///
/// # Errors
/// Where something cannot be built or fetched, or a run fails.
pub(super) fn measure(runs: u32) -> Result<Vec<Row>> {
    let cc = workspace::cc(true)?;
    // Images may stay for the next time; snapshots of another build would only be misses.
    let cache = workspace::root().join("target/bench-start");
    let start = |options: &[&str]| milliseconds(run(&cc, &cache, options));
    // Fetches what is missing, boots once with each size and leaves the snapshots that the others start from; the
    // second brings their pages into the host's cache.
    for memory in ["256", "4096"] {
        start(&["--memory", memory])?;
        start(&["--memory", memory])?;
    }
    let mut samples: [Vec<f64>; 3] = Default::default();
    for number in 1..=runs {
        let round = [
            start(&["--memory", "256"])?,
            start(&["--memory", "256", "--no-snapshot"])?,
            start(&["--memory", "4096"])?,
        ];
        let [warm, cold, large] = round;
        eprintln!("run {number}: warm {warm:.1} ms, cold {cold:.1} ms, warm with 4 GiB {large:.1} ms");
        for (all, one) in samples.iter_mut().zip(round) {
            all.push(one);
        }
    }
    let [warm, cold, large] = samples;
    Ok(vec![
        row(
            "software CPU: warm start to exit",
            "ms",
            &warm,
            "our cold start",
            &cold,
        ),
        row(
            "software CPU: warm start with 4 GiB of RAM",
            "ms",
            &large,
            "with 256 MiB",
            &warm,
        ),
    ])
}

fn run(cc: &Path, cache: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(cc);
    command.args(["run", "--quiet", "--backend", "soft", "--cache-dir"]);
    command.arg(cache).args(options);
    command.args([IMAGE, "--", "busybox", "true"]);
    command.stdin(Stdio::null());
    command
}

/// How long a command takes from its start to its end, which must be a good one.
fn milliseconds(mut command: Command) -> Result<f64> {
    let begin = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{command:?} could not be started"))?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}
