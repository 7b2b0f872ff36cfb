//! From options to what the library makes guests and commands of.

use std::env;
use std::thread;

use anyhow::{Context, Result};
use crumblecracker::{Command, InstanceOptions, KernelChoice, Library, PullPolicy, Share, TakeUpOptions};
use tracing::warn;

use crate::options::{Around, Attached, Guest};
use crate::values::VolumeSpec;
use crate::{environment, terminal};

/// Size of a terminal that does not tell its own.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Lets what was pulled survive a crash of the host, while the command runs. What is not settled by the end is
/// whole all the same; the next run or pull settles it.
pub(crate) fn settle_in_background(library: &Library) {
    let library = library.clone();
    thread::spawn(move || {
        if let Err(error) = library.settle() {
            warn!(%error, "new images are not safe from a crash of the host yet");
        }
    });
}

/// A command with what it finds around it, and no stream or terminal yet.
pub(crate) fn command(entrypoint: Option<String>, words: &[String], around: &Around) -> Result<Command> {
    Ok(Command {
        entrypoint,
        arguments: words.to_vec(),
        env: environment::variables(&around.env_file, &around.env, &|name| env::var_os(name))?,
        working_dir: around.workdir.clone(),
        user: around.user.clone(),
        ..Command::default()
    })
}

/// The command with the streams that `attached` and this program's own make it have.
pub(crate) fn attach(command: Command, attached: &Attached) -> Command {
    let standing = Standing {
        input: terminal::is_input(),
        output: terminal::is_output(),
    };
    let tty = wants_terminal(attached, standing);
    Command {
        terminal: tty.then(|| terminal::size().unwrap_or(USUAL_SIZE)),
        stdin: attached.interactive.unwrap_or(tty || !standing.input),
        ..command
    }
}

/// Which of this program's streams are terminals.
#[derive(Clone, Copy)]
struct Standing {
    input: bool,
    output: bool,
}

fn wants_terminal(attached: &Attached, standing: Standing) -> bool {
    let decided = attached.tty.or(attached.no_tty.then_some(false));
    decided.unwrap_or(standing.input && standing.output && attached.interactive != Some(false))
}

/// How the guest is made.
pub(crate) fn instance_options(guest: &Guest) -> Result<InstanceOptions> {
    let usual = InstanceOptions::default();
    let kernel = match &guest.kernel {
        Some(path) => {
            path.metadata()
                .with_context(|| format!("kernel {}", path.display()))?;
            KernelChoice::File(path.clone())
        }
        None => KernelChoice::Debian,
    };
    Ok(InstanceOptions {
        memory_mib: guest.memory.unwrap_or(usual.memory_mib),
        vcpus: guest.cpus.unwrap_or(usual.vcpus),
        cpu: guest.cpu.unwrap_or(usual.cpu),
        hostname: guest.hostname.clone().unwrap_or(usual.hostname),
        shares: shares(guest)?,
        kernel,
        refresh: PullPolicy::from(guest.pull).refresh(),
        boot_deadline: guest.boot_timeout.unwrap_or(usual.boot_deadline),
        snapshots: !guest.no_snapshot,
        ..InstanceOptions::default()
    })
}

/// How one that was put by is taken up.
pub(crate) fn take_up_options(guest: &Guest) -> Result<TakeUpOptions> {
    Ok(TakeUpOptions {
        shares: shares(guest)?,
        hostname: guest.hostname.clone(),
        new_machine_id: guest.new_machine_id,
        ..TakeUpOptions::default()
    })
}

fn shares(guest: &Guest) -> Result<Vec<Share>> {
    guest.volume.iter().map(VolumeSpec::resolve).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Request};

    fn wanted(line: &str, input: bool, output: bool) -> bool {
        let words = ["cc", "run"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().request {
            Request::Run(run) => wants_terminal(&run.attached, Standing { input, output }),
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
