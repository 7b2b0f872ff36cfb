//! `cc start`: a guest in a process of its own, its monitor.
//!
//! The first process claims the name and brings the image and the kernel, where the progress is seen; the monitor has the
//! same words, and makes the guest.

use std::env;
use std::fs::File;
use std::sync::Arc;

use anyhow::Result;
use crumblecracker::instances::{Monitor, Running};
use crumblecracker::session::Process;
use crumblecracker::{Image, Instance, KernelChoice, Progress, PullPolicy, Refresh};

use crate::args::{Common, Start};
use crate::progress::Display;
use crate::{guest, monitor};

/// Starts a guest that goes on when this program has ended, and prints its name.
pub(crate) fn start(common: &Common, arguments: &Start) -> Result<u8> {
    if common.monitor {
        return monitor::serve(|lock| bring_up(common, arguments, lock));
    }
    // What needs no guest is refused before anything is fetched.
    let Start { name, around, guest } = arguments;
    let (image, words) = guest.image_and_command();
    guest::command(guest.entrypoint.clone(), words, around)?;
    let options = guest::instance_options(guest)?;
    let library = common.library()?;
    let claim = library.instances().claim(name)?;
    let display = Display::new(common.volume());
    if guest.from.is_none() {
        let listener: Arc<dyn Progress> = display.clone();
        let pull = guest.fetch.options(guest.pull.into());
        display.step(image, || library.image(image, &pull, &listener), Image::id)?;
        if options.kernel == KernelChoice::Debian {
            let fetch = || library.fetch_kernel(options.refresh, &*display);
            display.step("kernel", fetch, String::clone)?;
        }
    }
    let start = || monitor::spawn(claim, env::args_os().skip(1))?.wait();
    let said = display.step("guest", start, |_| "it is up".to_owned())?;
    Ok(said.tell(name))
}

fn bring_up(common: &Common, arguments: &Start, lock: File) -> Result<Monitor> {
    let Start { name, around, guest } = arguments;
    let library = common.library()?;
    let claim = library.instances().adopt(name, lock)?;
    let (image, words) = guest.image_and_command();
    let command = guest::command(guest.entrypoint.clone(), words, around)?;
    if let Some(snapshot) = &guest.from {
        let backend = crumblecracker::open_backend(guest.backend.as_deref(), &library)?;
        let options = guest::take_up_options(guest)?;
        let (instance, processes) = Instance::take_up(&library.saved_guests(), snapshot, backend, &options)?;
        let running = match Process::first_of(processes, command.names_nothing())? {
            None if !command.names_nothing() => Running::start(instance, &command)?,
            main => Running::with_main(instance, main, command),
        };
        return Ok(Monitor::open(&library, claim, running)?);
    }
    let mut options = guest::instance_options(guest)?;
    // All of it has just been brought, where it was seen.
    options.refresh = Refresh::Never;
    let pull = guest.fetch.options(PullPolicy::Never);
    let nobody_watches: Arc<dyn Progress> = Arc::new(());
    let image = library.image(image, &pull, &nobody_watches)?;
    let backend = crumblecracker::open_backend(guest.backend.as_deref(), &library)?;
    guest::settle_in_background(&library);
    let instance = Instance::start(&library, &image, backend, &options, &())?;
    Ok(Monitor::open(
        &library,
        claim,
        Running::start(instance, &command)?,
    )?)
}
