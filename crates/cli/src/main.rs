//! The command line under the name it is installed by.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
