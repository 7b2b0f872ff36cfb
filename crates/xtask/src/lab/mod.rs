//! Real KVM where the host has none: a Debian kernel in QEMU's emulated SVM, whose own `/dev/kvm` runs
//! stock 64-bit guests. The command inside sees the host's file system with a throw-away layer over it.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

mod initramfs;
pub(crate) mod packages;
mod qemu;

pub(crate) use initramfs::Archive;
use packages::Package;
use qemu::{Event, Qemu};

/// Debian's metapackages of the kernel the lab boots, the first that the machine's sources have: KVM of Linux 6.12 maps
/// pages ahead. In Debian 12 it comes with the security updates, in later releases it is the usual one.
const KERNELS: [&str; 2] = ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"];
const PACKAGES: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        why: "emulates the lab's machine",
    },
    Package {
        name: "qemu-system-common",
        why: "virtiofsd, which shows the lab the host's files",
    },
    Package {
        name: "busybox-static",
        why: "the lab's initramfs",
    },
    Package {
        name: "xz-utils",
        why: "unpacks the lab's kernel modules",
    },
];
/// A boot takes about 3 s; one that says nothing for this long hangs, as emulated boots now and then do.
const BOOT_SILENCE: Duration = Duration::from_secs(30);
/// Boots that may hang before the lab gives up.
const BOOTS: u32 = 3;
/// The lab says every 5 s that it lives: one that is silent for this long has frozen, as emulated machines with
/// guests of their own now and then do, timers and all.
const LIFE_SILENCE: Duration = Duration::from_secs(120);
/// Exit status for a command that ran into its timeout, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// Processors of a lab. With two the emulation does not survive what KVM does when its first guest runs: Linux 6.12 patches
/// its own code under the other processor then, and dies of the breakpoint it had put there; 6.1 stood still for good in 3
/// of 5 labs that ran the conformance suite three times each.
const CPUS: u32 = 1;
/// Exit status for a command whose lab froze under it.
const FROZEN: u8 = 125;

/// `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Virtual CPUs of the lab.
    #[arg(long, default_value_t = CPUS)]
    cpus: u32,
    /// RAM of the lab in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    memory: u32,
    /// Seconds until the lab is ended, with exit status 124.
    #[arg(long, value_name = "SECS", default_value_t = 1200)]
    timeout: u64,
    /// Folder whose changes reach the host; everything else is thrown away. May be given more than once.
    #[arg(long = "share", value_name = "DIR")]
    shares: Vec<PathBuf>,
    /// Environment variable of the command, besides PATH, HOME and TMPDIR. May be given more than once.
    #[arg(long = "env", value_name = "K=V")]
    env: Vec<String>,
    /// Read standard input to its end and give it to the command.
    #[arg(long)]
    stdin: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A command to be run in a lab of its own.
pub(crate) struct LabCommand {
    /// Program and arguments; the program is found on the host's PATH.
    pub(crate) argv: Vec<String>,
    /// Environment besides PATH, HOME and TMPDIR.
    pub(crate) env: Vec<(String, String)>,
    /// Existing folders of the host that the command may write to.
    pub(crate) shares: Vec<PathBuf>,
    /// Bytes of standard input.
    pub(crate) stdin: Vec<u8>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// RAM in MiB.
    pub(crate) memory_mib: u32,
    /// Time for everything, boots included.
    pub(crate) timeout: Duration,
    /// Where standard output goes.
    pub(crate) output: Output,
}

impl LabCommand {
    /// A command with one CPU, 3 GiB, 20 minutes, no input, and its output streamed.
    pub(crate) fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            shares: Vec::new(),
            stdin: Vec::new(),
            cpus: CPUS,
            memory_mib: 3072,
            timeout: Duration::from_secs(1200),
            output: Output::Stream,
        }
    }
}

/// Where a command's standard output goes; its standard error always goes to that of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// To that of this process, as it comes.
    Stream,
    /// Into the [`LabOutcome`].
    Capture,
    /// Both.
    Tee,
}

/// How a command in the lab ended.
pub(crate) struct LabOutcome {
    /// Exit status; 128 + n for signal n; 124 where the time was over; 125 where the lab froze.
    pub(crate) status: u8,
    /// The emulated machine stopped for good, which says nothing about the command.
    pub(crate) froze: bool,
    /// Captured standard output, else empty.
    pub(crate) stdout: Vec<u8>,
}

/// Runs `cargo xtask lab` and gives the command's exit status.
///
/// # Errors
/// Where the lab itself does not work, never because the command failed.
pub(crate) fn command(arguments: Arguments) -> Result<u8> {
    let mut env = Vec::new();
    for variable in &arguments.env {
        let (key, value) = variable.split_once('=').context("--env takes K=V")?;
        env.push((key.to_owned(), value.to_owned()));
    }
    let mut stdin = Vec::new();
    if arguments.stdin {
        ensure!(
            !std::io::stdin().is_terminal(),
            "--stdin needs a pipe or a file as standard input"
        );
        std::io::stdin()
            .read_to_end(&mut stdin)
            .context("reading standard input")?;
    }
    let outcome = run(&LabCommand {
        argv: arguments.command,
        env,
        shares: arguments.shares,
        stdin,
        cpus: arguments.cpus,
        memory_mib: arguments.memory,
        timeout: Duration::from_secs(arguments.timeout),
        output: Output::Stream,
    })?;
    Ok(outcome.status)
}

/// Boots a lab, runs `command` in it and gives how it ended.
///
/// A boot that hangs is tried again, at most twice; a command never is.
///
/// # Errors
/// Where packages are missing and cannot be installed, no boot comes through, or the lab dies under the
/// command.
pub(crate) fn run(command: &LabCommand) -> Result<LabOutcome> {
    ensure!(
        packages::is_root(),
        "the lab must be run by root: virtiofsd shows it the whole file system"
    );
    packages::ensure(PACKAGES)?;
    let kernel = kernel()?;
    let shares = command.shares.iter().map(|share| {
        fs::canonicalize(share).with_context(|| format!("--share {}: not a folder here", share.display()))
    });
    let shares = shares.collect::<Result<Vec<_>>>()?;
    let initramfs = initramfs::build(&initramfs::Contents {
        kernel: &kernel,
        command: script(command, &std::env::current_dir()?),
        stdin: &command.stdin,
        shares: &shares,
    })?;
    let image = boot_image(&kernel)?;
    let deadline = Instant::now() + command.timeout;
    for boot in 1..=BOOTS {
        let lab = Qemu::start(command, &image, &initramfs)?;
        let why = match watch(&lab, deadline)? {
            Watched::Ended(status) => {
                return Ok(LabOutcome {
                    status,
                    froze: false,
                    stdout: lab.end(),
                });
            }
            Watched::Froze => {
                eprintln!("xtask: the lab froze; its last lines:\n{}", lab.console_tail());
                return Ok(LabOutcome {
                    status: FROZEN,
                    froze: true,
                    stdout: lab.end(),
                });
            }
            Watched::BootHung(why) => why,
        };
        let tail = lab.console_tail();
        lab.end();
        eprintln!("xtask: the lab's boot {boot} of at most {BOOTS} {why}; its last lines:\n{tail}");
    }
    bail!("the lab did not boot")
}

/// What came of one boot.
enum Watched {
    /// The command ended with this status, or its time was over.
    Ended(u8),
    /// The lab stopped for good under the command.
    Froze,
    /// The boot never reached the command.
    BootHung(&'static str),
}

fn watch(lab: &Qemu, deadline: Instant) -> Result<Watched> {
    let mut ready = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = left.min(if ready { LIFE_SILENCE } else { BOOT_SILENCE });
        match lab.events.recv_timeout(wait) {
            Ok(Event::Progress) => {}
            Ok(Event::Control(line)) => match line.split_once(' ') {
                Some(("exit", status)) => {
                    return Ok(Watched::Ended(status.parse().context("the lab's exit status")?));
                }
                _ if line == "ready" => ready = true,
                _ if line == "alive" => {}
                _ if line == "no-kvm" => {
                    bail!("the lab has no /dev/kvm; its last lines:\n{}", lab.console_tail());
                }
                _ => bail!("the lab said {line:?} on its control port"),
            },
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                eprintln!(
                    "xtask: the lab's time is over; its last lines:\n{}",
                    lab.console_tail()
                );
                return Ok(Watched::Ended(TIMED_OUT));
            }
            Err(RecvTimeoutError::Timeout) if ready => return Ok(Watched::Froze),
            Err(RecvTimeoutError::Timeout) => return Ok(Watched::BootHung("hangs")),
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) if ready => {
                bail!(
                    "the lab died under the command; its last lines:\n{}",
                    lab.console_tail()
                );
            }
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => {
                return Ok(Watched::BootHung("died"));
            }
        }
    }
}

/// The shell script the lab runs: folder, environment, command.
fn script(command: &LabCommand, directory: &Path) -> String {
    let inherited = ["PATH", "HOME"].map(|key| (key, std::env::var(key).unwrap_or_default()));
    let mut script = format!(
        "cd {}\nexport TMPDIR=/run/lab/tmp\n",
        quote(&directory.to_string_lossy())
    );
    let given = command
        .env
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()));
    for (key, value) in inherited.into_iter().chain(given) {
        script += &format!("export {key}={}\n", quote(&value));
    }
    let words: Vec<String> = command.argv.iter().map(|word| quote(word)).collect();
    script + "exec " + &words.join(" ") + "\n"
}

/// One word of a POSIX shell, whatever is in it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The kernel image in an unpacked kernel package.
pub(crate) fn boot_image(kernel: &Path) -> Result<PathBuf> {
    let folder = kernel.join("boot");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-"))
        })
        .with_context(|| format!("no kernel in {}", folder.display()))
}

/// A root that the lab's kernel was unpacked in.
fn kernel() -> Result<PathBuf> {
    let [preferred, usual] = KERNELS;
    let cache = cache_folder()?;
    packages::unpacked_dependency(preferred, &cache).or_else(|_| packages::unpacked_dependency(usual, &cache))
}

/// Where unpacked packages are kept between runs and clones.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("crumblecracker-lab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_single_quotes_survive_a_shell() {
        let word = "it's $HOME \\ \"x\"\n*";

        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quote(word))])
            .output()
            .unwrap();

        assert_eq!(output.stdout, word.as_bytes());
    }

    #[test]
    fn script_given_variable_overrides_the_inherited_one() {
        let mut command = LabCommand::new(["printenv", "HOME"]);
        command.env.push(("HOME".into(), "/elsewhere".into()));

        let output = std::process::Command::new("sh")
            .args(["-c", &script(&command, Path::new("/"))])
            .output()
            .unwrap();

        assert_eq!(output.stdout, b"/elsewhere\n");
    }
}
