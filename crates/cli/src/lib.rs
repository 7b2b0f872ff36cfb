//! The command line: `cc [run] IMAGE [COMMAND…]`; `cc start`, `exec`, `fork`, `ps`, `logs`, `stop`; `cc pull`, `images`,
//! `rmi`, `snapshot`, `cache`, `doctor`.
//!
//! **Knows:** words and options, the terminal it stands in, the signals of its own process, and how things are
//! told to people.
//! **Must never know:** how an image is found, a guest made or a command carried into it. It parses and prints;
//! the library decides.
#![forbid(unsafe_code)]

mod args;
mod attach;
mod boot_bench;
mod cache;
mod doctor;
mod environment;
mod fork;
mod guest;
mod images;
mod instances;
mod monitor;
mod options;
mod print;
mod progress;
mod run;
mod signals;
mod snapshot;
mod start;
mod terminal;
mod values;
mod watch;

use std::env;
use std::process::ExitCode;

use args::{Arguments, Parsed, Request};

/// Exit status of failures that are not the command's own, as Docker has it.
pub(crate) const FAILED: u8 = 125;

/// Obeys the words this program was started with. The exit status is that of the command that ran, 125 for
/// failures of the program itself, 124 where `--timeout` ended the command.
pub fn main() -> ExitCode {
    crumblecracker::prefer_one_heap();
    terminal::restore_on_panic();
    let arguments = match args::parse(env::args_os()) {
        Parsed::Arguments(arguments) => arguments,
        Parsed::Text(text) => return ExitCode::from(print::text(&text)),
        Parsed::Refused(reason) => {
            print::error_line(&reason);
            return ExitCode::from(FAILED);
        }
    };
    print::start_log(arguments.common.volume());
    let status = obey(&arguments).unwrap_or_else(|error| {
        print::error(&error);
        FAILED
    });
    ExitCode::from(status)
}

fn obey(arguments: &Arguments) -> anyhow::Result<u8> {
    let common = &arguments.common;
    match &arguments.request {
        Request::Run(run) => run::run(common, run),
        Request::Start(start) => start::start(common, start),
        Request::Exec(exec) => instances::exec(common, exec),
        Request::Ps => instances::list(common),
        Request::Logs(logs) => instances::logs(common, logs),
        Request::Fork(fork) => fork::fork(common, fork),
        Request::Stop(stop) => instances::stop(common, stop),
        Request::Pull(pull) => images::pull(common, pull),
        Request::Images => images::list(common),
        Request::Rmi(names) => images::remove(common, names),
        Request::Snapshot(request) => snapshot::snapshot(common, request),
        Request::Cache(request) => cache::cache(common, request),
        Request::Doctor => doctor::doctor(common),
        Request::BootBench(boot) => boot_bench::boot(common, boot),
    }
}
