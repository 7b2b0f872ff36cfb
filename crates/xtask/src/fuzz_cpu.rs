//! `cargo xtask fuzz-cpu`: the CPU in software against the host's processor, and its tiers against each other under
//! hostile page tables, with new cases each time.

use std::process::Command;

use anyhow::{Context, Result};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long, in seconds.
    #[arg(long)]
    seconds: u64,
    /// The first case; without it, the time.
    #[arg(long)]
    seed: Option<u64>,
}

/// One part in so many of the time goes to hostile page tables.
const HOSTILE_SHARE: u64 = 4;

/// Ends with 1 at the first difference, which is shown.
///
/// # Errors
/// Where cargo cannot be started.
pub(crate) fn command(arguments: &Arguments) -> Result<u8> {
    let hostile = arguments.seconds / HOSTILE_SHARE;
    let code = run(arguments, arguments.seconds - hostile, &[])?;
    if code != 0 || hostile == 0 {
        return Ok(code);
    }
    run(arguments, hostile, &["--hostile"])
}

fn run(arguments: &Arguments, seconds: u64, options: &[&str]) -> Result<u8> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "crumblecracker-cpu_tests", "--"]);
    cargo.args(["--seconds", &seconds.to_string()]);
    cargo.args(options);
    if let Some(seed) = arguments.seed {
        cargo.args(["--seed", &seed.to_string()]);
    }
    let status = cargo.status().context("cargo cannot be started")?;
    Ok(status.code().and_then(|code| code.try_into().ok()).unwrap_or(125))
}
