//! The project's own tooling: `cargo xtask COMMAND`.
//!
//! Knows the workspace's folders and the Debian packages the tests need; no shipped crate knows it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Lab(arguments) => lab::command(arguments),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(125)
        }
    }
}
