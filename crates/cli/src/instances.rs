//! `cc exec`, `cc ps`, `cc logs`, `cc stop`: guests that were started under a name.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Context, Result};
use crumblecracker::instances::RunningInstance;
use crumblecracker::one_line;
use indicatif::HumanDuration;

use crate::args::{Common, Exec, Logs, Stop};
use crate::attach::{self, Attachment};
use crate::print::{self, Volume};
use crate::{FAILED, guest};

/// Runs a command in a guest that runs already; gives its exit status.
pub(crate) fn exec(common: &Common, arguments: &Exec) -> Result<u8> {
    let words = arguments.command();
    // The image's entrypoint is for the guest's main process.
    let command = guest::command(Some(String::new()), words, &arguments.around)?;
    let command = guest::attach(command, &arguments.attached);
    let instances = common.library()?.instances();
    let process = instances.exec(&arguments.name, &command, attach::streams(command.stdin)?)?;
    let attachment = Attachment {
        name: words.first().unwrap_or(&arguments.name).clone(),
        forward_input: command.stdin,
        terminal: command.terminal.is_some(),
        timeout: None,
    };
    attach::follow(process.control(), || process.wait(), &attachment)
}

/// Prints what runs; with `--quiet` the names alone.
pub(crate) fn list(common: &Common) -> Result<u8> {
    let running = common.library()?.instances().list()?;
    if common.volume() == Volume::Quiet {
        let lines: String = running.iter().map(|one| format!("{}\n", one.name)).collect();
        return Ok(print::text(&lines));
    }
    let rows: Vec<_> = running.into_iter().map(row).collect();
    Ok(print::text(&print::table(["NAME", "IMAGE", "PID", "UP"], &rows)))
}

fn row(RunningInstance { name, about }: RunningInstance) -> [String; 4] {
    match about {
        Some(about) => {
            let age = HumanDuration(about.age()).to_string();
            [name, about.image, about.pid.to_string(), age]
        }
        None => [name, "-".to_owned(), "-".to_owned(), "it starts".to_owned()],
    }
}

/// Prints what the main process wrote.
pub(crate) fn logs(common: &Common, arguments: &Logs) -> Result<u8> {
    let mut stdout = io::stdout().lock();
    for mut file in common.library()?.instances().logs(&arguments.name)? {
        match io::copy(&mut file, &mut stdout) {
            // A reader who has seen enough is no failure.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(0),
            copied => copied.context("cannot copy the log to standard output")?,
        };
    }
    Ok(0)
}

/// Ends guests in order. Each is tried, whatever becomes of the others.
pub(crate) fn stop(common: &Common, arguments: &Stop) -> Result<u8> {
    let instances = common.library()?.instances();
    let mut status = 0;
    for name in &arguments.names {
        let grace = Duration::from_secs(arguments.time.into());
        if let Err(error) = instances.stop(name, grace) {
            print::error_line(&one_line(&error));
            status = FAILED;
        }
    }
    Ok(status)
}
