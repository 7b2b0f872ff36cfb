//! `cc start`: a guest in a process of its own, its monitor, which is this program once more.
//!
//! The first process claims the name and brings the image and the kernel, where the progress is seen. The second has
//! the same words and `--monitor` before them; its standard input is the claim's lock, its standard output the pipe on
//! which it says `ready` or what failed, its standard error the guest's log.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use crumblecracker::instances::{Claim, Monitor, Running};
use crumblecracker::{Image, Instance, KernelChoice, Progress, PullPolicy, Refresh};
use rustix::process::setsid;
use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::args::{Common, Start};
use crate::progress::Display;
use crate::signals::{self, Signal};
use crate::{FAILED, guest, print};

/// What a monitor says when its guest is up.
const READY: &str = "ready\n";

/// Starts a guest that goes on when this program has ended, and prints its name.
pub(crate) fn start(common: &Common, arguments: &Start) -> Result<u8> {
    if common.monitor {
        return monitor(common, arguments);
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
    let said = display.step("guest", || said_by_monitor(claim), |_| "it is up".to_owned())?;
    match said.as_str() {
        READY => Ok(print::text(&format!("{name}\n"))),
        "" => anyhow::bail!("the guest's monitor ended before the guest was up"),
        failure => {
            // Nobody can be told that standard error is gone.
            let _ = io::stderr().write_all(failure.as_bytes());
            Ok(FAILED)
        }
    }
}

/// Starts the monitor that is to have the claim, and waits for what it says.
fn said_by_monitor(claim: Claim) -> Result<String> {
    let monitor = spawn_monitor(claim).context("cannot start the guest's monitor")?;
    let mut said = String::new();
    if let Some(mut stdout) = monitor.stdout {
        stdout
            .read_to_string(&mut said)
            .context("cannot hear the guest's monitor")?;
    }
    Ok(said)
}

fn spawn_monitor(claim: Claim) -> Result<Child> {
    let log = claim.log()?.file()?;
    let mut words = env::args_os();
    let program = words.next().unwrap_or_default();
    let lock = claim.hand_over().map_or_else(Stdio::null, Stdio::from);
    let mut command = Command::new(env::current_exe()?);
    command
        .arg0(program)
        .arg("--monitor")
        .args(words)
        .stdin(lock)
        .stdout(Stdio::piped())
        .stderr(log);
    Ok(command.spawn()?)
}

/// Is the monitor of a guest, until that ends.
fn monitor(common: &Common, arguments: &Start) -> Result<u8> {
    let lock = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answer = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    detach().context("cannot leave the terminal")?;
    let monitor = match bring_up(common, arguments, lock) {
        Ok(monitor) => monitor,
        Err(error) => {
            answer.write_all(print::error_text(&error).as_bytes())?;
            return Ok(FAILED);
        }
    };
    let stopper = monitor.stopper();
    let obey = move |signal| {
        if matches!(signal, Signal::End(_)) {
            stopper.stop();
        }
        true
    };
    signals::watch(obey).context("cannot watch signals")?;
    // Nobody waits any more where this fails: then nobody wants the guest either.
    answer.write_all(READY.as_bytes())?;
    drop(answer);
    monitor.serve()?;
    Ok(0)
}

/// Leaves the session, so that no terminal ends what goes on without it, and the streams others wait on.
fn detach() -> Result<()> {
    setsid()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    Ok(())
}

fn bring_up(common: &Common, arguments: &Start, lock: File) -> Result<Monitor> {
    let Start { name, around, guest } = arguments;
    let library = common.library()?;
    let claim = library.instances().adopt(name, lock)?;
    let (image, words) = guest.image_and_command();
    let command = guest::command(guest.entrypoint.clone(), words, around)?;
    let nobody_watches: Arc<dyn Progress> = Arc::new(());
    if let Some(snapshot) = &guest.from {
        let backend = crumblecracker::open_backend(guest.backend.as_deref(), &library)?;
        let options = guest::take_up_options(guest)?;
        let (instance, processes) =
            Instance::take_up(&library, snapshot, backend, &options, &nobody_watches)?;
        let running = match guest::process_to_stay_with(processes, &command)? {
            None if !command.names_nothing() => Running::start(instance, &command)?,
            main => Running::with_main(instance, main, command),
        };
        return Ok(Monitor::open(claim, running)?);
    }
    let mut options = guest::instance_options(guest)?;
    // All of it has just been brought, where it was seen.
    options.refresh = Refresh::Never;
    let pull = guest.fetch.options(PullPolicy::Never);
    let image = library.image(image, &pull, &nobody_watches)?;
    let backend = crumblecracker::open_backend(guest.backend.as_deref(), &library)?;
    guest::settle_in_background(&library);
    let instance = Instance::start(&library, &image, backend, &options, &())?;
    // No file system of the host is held up by a guest.
    env::set_current_dir("/")?;
    Ok(Monitor::open(claim, Running::start(instance, &command)?)?)
}
