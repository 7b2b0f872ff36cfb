//! The project's own tooling: `cargo xtask COMMAND`.
//!
//! Knows the workspace's folders and the Debian packages the tests need; no shipped crate knows it.

use std::path::Path;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};

mod arrows;
mod lab;

/// The project's own tooling.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command of this workspace under real nested KVM, in an emulated machine.
    Lab(lab::Arguments),
    /// Check the workspace against its layers and house rules.
    Arrows,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Lab(arguments) => lab::command(arguments),
        Command::Arrows => arrows::command(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(125)
        }
    }
}

/// Cargo, as the one that started this program, in the workspace's folder.
fn cargo() -> process::Command {
    let mut cargo = process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace_root());
    cargo
}

/// The workspace's folder.
fn workspace_root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}
