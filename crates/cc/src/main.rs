//! The command line under its short name.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
