//! A running guest put by, against a plain write of as many bytes; fifty forks of it: how long each takes, and what
//! memory they add.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{IMAGE, Starts, milliseconds_to_end};
use crate::bench::{Row, row};

/// How many forks run at once in the end.
const FORKS: usize = 50;
/// How many of the first and of the last are compared.
const ENDS: usize = 10;
/// What each may add, in MiB.
const MEMORY_BAR: f64 = 12.0;
const GUEST: &str = "forked";
const PAGE: usize = 4096;

/// Measures `runs` captures, and one row of forks.
///
/// # Errors
/// Where a run fails.
pub(super) fn measure(runs: u32, starts: &Starts) -> Result<Vec<Row>> {
    let place = Place::new(starts)?;
    let (captures, writes) = place.captures(runs)?;
    let alone = place.memory()?;
    let forks = place.forks()?;
    let added = (place.memory()? - alone) / FORKS as f64;
    Ok(vec![
        row(
            "software CPU: capture of an idle guest with 256 MiB",
            "ms",
            &captures,
            "write of its pages that are not zero",
            &writes,
        ),
        row(
            "software CPU: a fork, of the last ten of fifty",
            "ms",
            &forks[FORKS - ENDS..],
            "of the ten after the second",
            &forks[2..2 + ENDS],
        ),
        row(
            "software CPU: memory that each of fifty forks adds (PSS)",
            "MiB",
            &[added],
            "the most it may be",
            &[MEMORY_BAR],
        ),
    ])
}

/// A guest in a place of its own. It ends with this, and so do its forks.
struct Place<'a> {
    starts: &'a Starts,
    runtime: TempDir,
    snapshot: String,
}

impl<'a> Place<'a> {
    fn new(starts: &'a Starts) -> Result<Self> {
        let place = Self {
            starts,
            runtime: tempfile::tempdir()?,
            snapshot: format!("bench-{}", std::process::id()),
        };
        // The first may boot: what it leaves is what the others start from.
        place.starts.milliseconds(&["--memory", "256"])?;
        let options = ["--name", GUEST, "--memory", "256", "--entrypoint", ""];
        let words = [&["start", "--backend", starts.backend], &options[..], &[IMAGE]].concat();
        place.milliseconds(&words)?;
        // What the first command makes the guest touch is no part of what is measured.
        place.milliseconds(&["exec", GUEST, "busybox", "true"])?;
        Ok(place)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.starts.cc);
        command.arg("--quiet").arg("--cache-dir").arg(&self.starts.cache);
        command.args(words);
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command.stdin(Stdio::null());
        command
    }

    /// How long `cc` takes with these words.
    fn milliseconds(&self, words: &[&str]) -> Result<f64> {
        let mut command = self.command(words);
        command.stdout(Stdio::null());
        milliseconds_to_end(&mut command)
    }

    /// Captures, and writes of the same pages to a file in the same folder that is forced to the disk, turn by turn.
    fn captures(&self, runs: u32) -> Result<(Vec<f64>, Vec<f64>)> {
        let folder = self.starts.cache.join("guests");
        let mut samples = (Vec::new(), Vec::new());
        let mut pages = Vec::new();
        // The first is not counted: it says what there is to write.
        for number in 0..=runs {
            let capture = self.milliseconds(&["snapshot", "create", &self.snapshot, GUEST])?;
            if number == 0 {
                self.milliseconds(&["snapshot", "flatten", &self.snapshot])?;
                pages = pages_with_data(&folder.join(&self.snapshot).join("memory"))?;
            }
            self.milliseconds(&["snapshot", "rm", &self.snapshot])?;
            let write = milliseconds_of_write(&folder.join("bench-write"), &pages)?;
            if number > 0 {
                eprintln!("run {number}: capture {capture:.0} ms, write {write:.0} ms");
                samples.0.push(capture);
                samples.1.push(write);
            }
        }
        Ok(samples)
    }

    /// How long each of the forks took, which are made together. Several are started at once: a stretch of time in which
    /// some came up is shared among them.
    fn forks(&self) -> Result<Vec<f64>> {
        let mut command = self.command(&["fork", "-n", &FORKS.to_string(), GUEST]);
        let begin = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let names = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut up = vec![0.0];
        for name in names.lines() {
            name?;
            up.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let status = child.wait()?;
        ensure!(
            status.success() && up.len() == FORKS + 1,
            "{command:?} ended with {status}"
        );
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let stretch = |number: usize| {
            let first = number / at_once * at_once;
            let end = (first + at_once).min(FORKS);
            (up[end] - up[first]) / (end - first) as f64
        };
        Ok((0..FORKS).map(stretch).collect())
    }

    /// The proportional set size of all monitors, in MiB.
    fn memory(&self) -> Result<f64> {
        let listed = self.command(&["ps"]).output()?;
        ensure!(listed.status.success(), "cc ps failed");
        let names = String::from_utf8(listed.stdout)?;
        let folder = self.runtime.path().join("crumblecracker/instances");
        names.lines().map(|name| monitor_memory(&folder.join(name))).sum()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let names = self.command(&["ps"]).output().map(|listed| listed.stdout);
        let names = String::from_utf8(names.unwrap_or_default()).unwrap_or_default();
        for name in names.lines() {
            // What cannot be stopped is said by the command itself.
            let _ = self.command(&["stop", "--time", "0", name]).status();
        }
    }
}

/// Of the monitor whose guest has this folder.
fn monitor_memory(folder: &Path) -> Result<f64> {
    #[derive(serde::Deserialize)]
    struct About {
        pid: u32,
    }
    let about: About = serde_json::from_slice(&fs::read(folder.join("about"))?)?;
    let rollup: PathBuf = ["/proc", &about.pid.to_string(), "smaps_rollup"].iter().collect();
    let text = fs::read_to_string(&rollup).with_context(|| rollup.display().to_string())?;
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = pss.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kib: f64 = kib.context("no Pss")?.parse()?;
    Ok(kib / 1024.0)
}

/// The pages of a file that are not zero throughout, with their places.
fn pages_with_data(path: &Path) -> Result<Vec<(u64, Vec<u8>)>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = (number * PAGE) as u64;
        match runs.last_mut() {
            Some((start, run)) if *start + run.len() as u64 == at => run.extend_from_slice(page),
            _ => runs.push((at, page.to_vec())),
        }
    }
    Ok(runs)
}

fn milliseconds_of_write(path: &Path, pages: &[(u64, Vec<u8>)]) -> Result<f64> {
    let begin = Instant::now();
    let file = File::create(path)?;
    for (at, bytes) in pages {
        file.write_all_at(bytes, *at)?;
    }
    file.sync_all()?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    fs::remove_file(path)?;
    Ok(took)
}
