//! `cc run`: from options to a guest with a command in it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use crumblecracker::session::{Forwarding, Process};
use crumblecracker::{
    ConsoleSink, Error, Image, Instance, InstanceOptions, Moment, Progress, Share, TakeUpOptions, Timeline,
};
use tracing::warn;

use crate::args::{Common, Run};
use crate::attach::{self, Attachment};
use crate::guest;
use crate::print::{self, Stderr};
use crate::progress::Display;
use crate::watch::Watch;

/// How long what a command left behind may go on before a guest with shares is switched off.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a command in a new guest; gives its exit status.
pub(crate) fn run(common: &Common, arguments: &Run) -> Result<u8> {
    let timeline = Timeline::default();
    let watch = Watch::begin(arguments)?;
    let ended = run_watched(common, arguments, &watch, &timeline);
    let ended = watch.end(ended);
    if arguments.timing {
        timeline.mark("end");
        Stderr.say(&timing(&timeline.moments()));
    }
    ended
}

/// The moments as a table: when, how long after the one before, what.
fn timing(moments: &[Moment]) -> String {
    let milliseconds = |time: Duration| format!("{:8.2} ms", time.as_secs_f64() * 1e3);
    let mut before = Duration::ZERO;
    let mut rows = Vec::new();
    for Moment { at, what } in moments {
        rows.push([milliseconds(*at), milliseconds(*at - before), what.clone()]);
        before = *at;
    }
    print::table(["AT", "AFTER", "WHAT"], &rows)
}

fn run_watched(common: &Common, arguments: &Run, watch: &Watch, timeline: &Timeline) -> Result<u8> {
    if let Some(snapshot) = &arguments.guest.from {
        return go_on_from(snapshot, common, arguments, timeline);
    }
    // What needs no guest is refused before anything is fetched.
    let Run {
        attached,
        around,
        guest,
        ..
    } = arguments;
    let (name, words) = guest.image_and_command();
    let command = guest::attach(guest::command(guest.entrypoint.clone(), words, around)?, attached);
    let options = instance_options(arguments, watch, timeline)?;
    let library = common.library()?;
    let display = Display::new(common.volume());
    let listener: Arc<dyn Progress> = display.clone();
    let pull = guest.fetch.options(guest.pull.into());
    let image = display.step(name, || library.image(name, &pull, &listener), Image::id)?;
    timeline.mark("image resolved");
    let backend = guest.backend.as_deref();
    let backend = crumblecracker::open_observed_backend(backend, &library, watch.observation())?;
    timeline.mark("backend opened");
    guest::settle_in_background(&library);
    let start = || Instance::start(&library, &image, backend, &options, &*display);
    let instance = display.step("guest", start, |_| "it is up".to_owned())?;
    let process = instance.spawn(&command)?;
    let program = command
        .entrypoint
        .iter()
        .chain(&command.arguments)
        .find(|word| !word.is_empty());
    let attachment = Attachment {
        name: program.map_or(name, String::as_str).to_owned(),
        forward_input: command.stdin,
        terminal: command.terminal.is_some(),
        timeout: arguments.timeout,
    };
    attend(
        instance,
        process,
        &attachment,
        &options.shares,
        watch.is_watching(),
    )
}

/// Goes on with a guest that was put by: with a command in it, or with the one that runs in it.
fn go_on_from(snapshot: &str, common: &Common, arguments: &Run, timeline: &Timeline) -> Result<u8> {
    let Run {
        attached,
        around,
        guest,
        ..
    } = arguments;
    let (_, words) = guest.image_and_command();
    let command = guest::attach(guest::command(guest.entrypoint.clone(), words, around)?, attached);
    let options = TakeUpOptions {
        console: console(arguments),
        timeline: timeline.clone(),
        ..guest::take_up_options(guest)?
    };
    let library = common.library()?;
    let display = Display::new(common.volume());
    let backend = crumblecracker::open_backend(guest.backend.as_deref(), &library)?;
    timeline.mark("backend opened");
    let take_up = || Instance::take_up(&library.saved_guests(), snapshot, backend, &options);
    let (instance, processes) = display.step("guest", take_up, |_| "it goes on".to_owned())?;
    let process = match Process::first_of(processes, command.names_nothing())? {
        Some(process) => process,
        None if command.names_nothing() => anyhow::bail!("no command runs in {snapshot}: name one after it"),
        None => instance.spawn(&command)?,
    };
    let attachment = Attachment {
        name: words.first().map_or(snapshot, String::as_str).to_owned(),
        forward_input: process.stdin.is_some(),
        terminal: process.is_terminal(),
        timeout: arguments.timeout,
    };
    attend(instance, process, &attachment, &options.shares, false)
}

/// Stays with a command to its end, and ends the guest; its exit status. A guest that is not to end with this program,
/// as more is to be seen of it then, is brought down piece by piece.
fn attend(
    instance: Instance,
    process: Process,
    attachment: &Attachment,
    shares: &[Share],
    piece_by_piece: bool,
) -> Result<u8> {
    let control = process.control();
    let streams = attach::streams(attachment.forward_input)?;
    let until_end = move || Forwarding::begin(process, streams)?.wait();
    let status = match attach::follow(control, until_end, attachment) {
        Err(error) if matches!(error.downcast_ref(), Some(Error::GuestGone(_))) => {
            return Err(Error::GuestEnded(instance.post_mortem()).into());
        }
        ended => ended?,
    };
    if shares.iter().any(|share| !share.read_only) {
        if let Err(error) = instance.shutdown(GRACE) {
            warn!(%error, "the guest did not end in order");
        }
    } else if !piece_by_piece {
        instance.end_with_process();
    }
    Ok(status)
}

/// How the guest is made. Who wants to see the boot, or all of what the guest does, gets one that boots.
fn instance_options(arguments: &Run, watch: &Watch, timeline: &Timeline) -> Result<InstanceOptions> {
    let options = guest::instance_options(&arguments.guest)?;
    Ok(InstanceOptions {
        console: console(arguments),
        profiler: watch.observation().profiler.clone(),
        snapshots: options.snapshots && !arguments.dmesg && !watch.is_watching(),
        timeline: timeline.clone(),
        ..options
    })
}

/// Who hears the guest's kernel.
fn console(arguments: &Run) -> Option<ConsoleSink> {
    let sink: ConsoleSink = Arc::new(|bytes: &[u8]| {
        // Nobody can be told that standard error is gone.
        let _ = Stderr.write_all(bytes);
    });
    arguments.dmesg.then_some(sink)
}
