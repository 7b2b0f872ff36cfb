//! `cc run`: from options to a guest with a command in it.

use std::env;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use crumblecracker::session::Process;
use crumblecracker::{
    Command, Error, Image, Instance, InstanceOptions, KernelChoice, Library, Moment, Progress, PullPolicy,
    Share, TakeUpOptions, Timeline,
};
use tracing::warn;

use crate::args::{Common, Run};
use crate::attach::{self, Attachment};
use crate::print::{self, Stderr};
use crate::progress::Display;
use crate::values::VolumeSpec;
use crate::watch::Watch;
use crate::{environment, terminal};

/// Size of a terminal that does not tell its own.
const USUAL_SIZE: (u16, u16) = (24, 80);
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
        // Nobody can be told that standard error is gone.
        let _ = Stderr.write_all(timing(&timeline.moments()).as_bytes());
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
    if let Some(snapshot) = &arguments.from {
        return go_on_from(snapshot, common, arguments, timeline);
    }
    // What needs no guest is refused before anything is fetched.
    let command = command(arguments)?;
    let options = InstanceOptions {
        profiler: watch.observation().profiler.clone(),
        timeline: timeline.clone(),
        ..instance_options(arguments)?
    };
    let library = common.library()?;
    let display = Display::new(common.volume());
    let (name, _) = arguments.image_and_command();
    let listener: Arc<dyn Progress> = display.clone();
    let pull = arguments.fetch.options(arguments.pull.into());
    let image = display.step(name, || library.image(name, &pull, &listener), Image::id)?;
    timeline.mark("image resolved");
    let backend = arguments.backend.as_deref();
    let backend = crumblecracker::open_observed_backend(backend, &library, watch.observation())?;
    timeline.mark("backend opened");
    settle_in_background(&library);
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
    let (_, words) = arguments.image_and_command();
    let command = command(arguments)?;
    let InstanceOptions { shares, console, .. } = instance_options(arguments)?;
    let options = TakeUpOptions {
        shares,
        hostname: arguments.hostname.clone(),
        console,
        timeline: timeline.clone(),
    };
    let library = common.library()?;
    let display = Display::new(common.volume());
    let listener: Arc<dyn Progress> = display.clone();
    let backend = crumblecracker::open_backend(arguments.backend.as_deref(), &library)?;
    timeline.mark("backend opened");
    let take_up = || Instance::take_up(&library, snapshot, backend, &options, &listener);
    let (instance, processes) = display.step("guest", take_up, |_| "it goes on".to_owned())?;
    let mut processes = processes.into_iter();
    let process = match words.first() {
        Some(_) => instance.spawn(&command)?,
        None => processes
            .next()
            .ok_or_else(|| anyhow!("no command runs in {snapshot}: name one after it"))?,
    };
    for other in processes {
        other.leave_alone()?;
    }
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
    let status = match attach::follow(process, attachment) {
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

/// Lets what was pulled survive a crash of the host, while the command runs. What is not settled by the end is
/// whole all the same; the next run or pull settles it.
fn settle_in_background(library: &Library) {
    let library = library.clone();
    thread::spawn(move || {
        if let Err(error) = library.settle() {
            warn!(%error, "new images are not safe from a crash of the host yet");
        }
    });
}

/// What runs in the guest.
fn command(arguments: &Run) -> Result<Command> {
    let (_, words) = arguments.image_and_command();
    let standing = Standing {
        input: terminal::is_input(),
        output: terminal::is_output(),
    };
    let tty = wants_terminal(arguments, standing);
    let env = environment::variables(&arguments.env_file, &arguments.env, &|name| env::var_os(name))?;
    Ok(Command {
        entrypoint: arguments.entrypoint.clone(),
        arguments: words.to_vec(),
        env,
        working_dir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        terminal: tty.then(|| terminal::size().unwrap_or(USUAL_SIZE)),
        stdin: arguments.interactive.unwrap_or(tty || !standing.input),
    })
}

/// Which of this program's streams are terminals.
#[derive(Clone, Copy)]
struct Standing {
    input: bool,
    output: bool,
}

fn wants_terminal(arguments: &Run, standing: Standing) -> bool {
    let decided = arguments.tty.or(arguments.no_tty.then_some(false));
    decided.unwrap_or(standing.input && standing.output && arguments.interactive != Some(false))
}

fn instance_options(arguments: &Run) -> Result<InstanceOptions> {
    let usual = InstanceOptions::default();
    let policy = PullPolicy::from(arguments.pull);
    let kernel = match &arguments.kernel {
        Some(path) => {
            path.metadata()
                .with_context(|| format!("kernel {}", path.display()))?;
            KernelChoice::File(path.clone())
        }
        None => KernelChoice::Debian,
    };
    let sink = |bytes: &[u8]| {
        // Nobody can be told that standard error is gone.
        let _ = Stderr.write_all(bytes);
    };
    Ok(InstanceOptions {
        memory_mib: arguments.memory.unwrap_or(usual.memory_mib),
        vcpus: arguments.cpus.unwrap_or(usual.vcpus),
        cpu: arguments.cpu.unwrap_or(usual.cpu),
        hostname: arguments.hostname.clone().unwrap_or(usual.hostname),
        shares: arguments
            .volume
            .iter()
            .map(VolumeSpec::resolve)
            .collect::<Result<Vec<Share>>>()?,
        kernel,
        refresh: policy.refresh(),
        console: if arguments.dmesg {
            Some(Arc::new(sink))
        } else {
            None
        },
        boot_deadline: arguments.boot_timeout.unwrap_or(usual.boot_deadline),
        profiler: None,
        // Who wants to see the boot, or all of what the guest does, gets one that boots.
        snapshots: !(arguments.no_snapshot
            || arguments.dmesg
            || arguments.profile.is_some()
            || !arguments.trace.is_empty()),
        timeline: Timeline::default(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Request};

    fn wanted(line: &str, input: bool, output: bool) -> bool {
        let words = ["cc", "run"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().request {
            Request::Run(run) => wants_terminal(&run, Standing { input, output }),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn terminal_is_decided_by_both_streams() {
        assert!(wanted("alpine", true, true));
        assert!(!wanted("alpine", true, false));
        assert!(!wanted("alpine", false, true));
    }

    #[test]
    fn terminal_options_go_before_the_streams() {
        assert!(wanted("-t alpine", false, false));
        assert!(!wanted("--no-tty alpine", true, true));
        assert!(!wanted("--tty=false alpine", true, true));
        assert!(!wanted("--interactive=false alpine", true, true));
    }
}
