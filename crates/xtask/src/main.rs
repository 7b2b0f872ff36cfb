//! The project's own tooling: `cargo xtask COMMAND`.
//!
//! Knows the workspace's folders and the Debian packages its tests need; no shipped crate knows it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod arrows;
mod bench;
mod demo;
mod fuzz_cpu;
mod images;
mod lab;
mod process;
mod test;
mod workspace;

/// The project's own tooling.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one container command from a Debian image: on KVM where the host's works, else in the lab.
    Demo,
    /// Run all tests: on the host, and in the lab those that run virtual machines.
    Test(test::Arguments),
    /// Check the workspace against its layers and house rules.
    Arrows,
    /// Run a command of this workspace under real nested KVM, in an emulated machine.
    Lab(lab::Arguments),
    /// Compare the CPU in software with the host's processor until the time is over or something differs.
    FuzzCpu(fuzz_cpu::Arguments),
    /// Measure against named peers.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo => demo::command(),
        Command::Test(arguments) => test::command(&arguments),
        Command::Arrows => arrows::command(),
        Command::Lab(arguments) => lab::command(arguments),
        Command::FuzzCpu(arguments) => fuzz_cpu::command(&arguments),
        Command::Bench(bench) => bench::command(bench),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(125)
        }
    }
}
