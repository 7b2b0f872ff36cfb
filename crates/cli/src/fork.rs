//! `cc fork`: guests that go on from where another is, each with a monitor of its own.

use std::ffi::OsString;
use std::fs::File;
use std::num::NonZero;
use std::thread;

use anyhow::Result;
use crumblecracker::Library;
use crumblecracker::instances::{Claim, ForkOptions, Forkable, Monitor, Running};

use crate::args::{Common, Fork};
use crate::monitor::{self, Said, Starting};
use crate::print;

/// Makes forks of a guest and prints the name of each that is up.
pub(crate) fn fork(common: &Common, arguments: &Fork) -> Result<u8> {
    let library = common.library()?;
    if common.monitor {
        return monitor::serve(|lock| bring_up(&library, &arguments.guest, lock));
    }
    let forkable = library.instances().fork(&library, &arguments.guest)?;
    let mut claims = claims(&library, arguments)?.into_iter();
    // More at once would only wait for each other.
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    let mut status = 0;
    loop {
        let batch: Vec<_> = claims.by_ref().take(at_once).collect();
        if batch.is_empty() {
            return Ok(status);
        }
        let started = batch.into_iter().map(|claim| {
            let name = claim.name().to_owned();
            let starting = start(&library, &forkable, claim, arguments);
            (name, starting)
        });
        // All of a batch are started before the first is waited for.
        for (name, starting) in started.collect::<Vec<_>>() {
            status = status.max(told(&name, starting.and_then(Starting::wait)));
        }
    }
}

/// Names for all of them, before the first is made.
fn claims(library: &Library, arguments: &Fork) -> Result<Vec<Claim>> {
    let instances = library.instances();
    let name = arguments.name.as_ref().unwrap_or(&arguments.guest);
    let mut next = 1;
    let claim = |_| {
        let (claim, number) = instances.claim_numbered(name, next)?;
        next = number + 1;
        Ok(claim)
    };
    (0..arguments.number).map(claim).collect()
}

fn start(library: &Library, forkable: &Forkable, claim: Claim, arguments: &Fork) -> Result<Starting> {
    let name = claim.name().to_owned();
    let options = ForkOptions {
        hostname: arguments.new_hostname.then(|| name.clone()),
        new_machine_id: arguments.new_machine_id,
    };
    forkable.plan(&claim, &options)?;
    let cache = library.cache_folder().as_os_str().to_owned();
    let words: [OsString; 4] = ["--cache-dir".into(), cache, "fork".into(), name.into()];
    monitor::spawn(claim, words)
}

/// Prints what became of one; the exit status.
fn told(name: &str, said: Result<Said>) -> u8 {
    let said = said.unwrap_or_else(|error| Said::Failed(print::error_text(&error)));
    said.tell(name)
}

fn bring_up(library: &Library, name: &str, lock: File) -> Result<Monitor> {
    let claim = library.instances().adopt(name, lock)?;
    let running = Running::fork(library, &claim)?;
    Ok(Monitor::open(library, claim, running)?)
}
