//! Options that several requests have.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use crumblecracker::{CpuProfile, Platform, PullOptions, PullPolicy};

use crate::values::{self, VolumeSpec};

/// Which of this program's streams a command has.
#[derive(Debug, Args)]
pub(crate) struct Attached {
    /// Forward standard input [default: yes, unless it is a terminal and standard output is not]
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) interactive: Option<bool>,
    /// Give the command a terminal [default: when standard input and output are terminals]
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) tty: Option<bool>,
    /// Give the command no terminal
    #[arg(long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
}

/// What a command finds around it.
#[derive(Debug, Args)]
pub(crate) struct Around {
    /// Set a variable; a name alone takes the host's value
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables a file lists, one on a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory of the command
    #[arg(long, short, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// User, and group, to run the command as
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
}

/// How a guest is made, and of what.
#[derive(Debug, Args)]
pub(crate) struct Guest {
    #[command(flatten)]
    pub(crate) fetch: Fetch,
    /// Share a file or folder of the host
    #[arg(long, short, value_name = "HOST:GUEST[:ro]", value_parser = values::volume)]
    pub(crate) volume: Vec<VolumeSpec>,
    /// Program in place of the image's entrypoint; an empty word means none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Memory of the guest in MiB, or with M or G after the number [default: 512]
    #[arg(long, short, value_name = "SIZE", value_parser = values::memory_mib)]
    pub(crate) memory: Option<u64>,
    /// Number of CPUs of the guest [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cpus: Option<u32>,
    /// What the guest's CPUs are: host, or a processor that is the same everywhere, so that the guest can move between
    /// backends and hosts: x86-64-v2, x86-64-v3, x86-64-v4 [default: host]
    #[arg(long, value_name = "PROFILE")]
    pub(crate) cpu: Option<CpuProfile>,
    /// Give up after so many seconds when the guest does not come up [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub(crate) boot_timeout: Option<Duration>,
    /// Host name that the guest has for itself
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// With --from: an /etc/machine-id of its own
    #[arg(long, requires = "from")]
    pub(crate) new_machine_id: bool,
    /// When to ask the network for the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: When,
    /// Kernel to boot, a bzImage or an ELF file, in place of Debian's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Boot the guest, rather than start it from a snapshot of one that has booted, and keep none
    #[arg(long)]
    pub(crate) no_snapshot: bool,
    /// CPU backend to use; `cc doctor` lists them
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Go on with a guest that was put by, in place of an image; what follows is a command to run in it
    #[arg(
        long,
        value_name = "SNAPSHOT",
        conflicts_with_all = ["memory", "cpus", "cpu", "kernel", "platform", "insecure_registry", "no_snapshot"]
    )]
    pub(crate) from: Option<String>,
    /// The image, then the command and its arguments in place of the image's own
    #[arg(
        required_unless_present = "from",
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND]"
    )]
    words: Vec<String>,
}

impl Guest {
    /// The image and the words of the command.
    pub(crate) fn image_and_command(&self) -> (&str, &[String]) {
        if self.from.is_some() {
            let separator = self.words.first().is_some_and(|word| word == "--");
            return ("", &self.words[usize::from(separator)..]);
        }
        match self.words.split_first() {
            Some((image, rest)) if rest.first().is_some_and(|word| word == "--") => (image, &rest[1..]),
            Some((image, rest)) => (image, rest),
            None => ("", &[]),
        }
    }
}

/// How images are fetched.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Platform of the image, as linux/amd64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<Platform>,
    /// Speak plain HTTP to this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
}

impl Fetch {
    pub(crate) fn options(&self, policy: PullPolicy) -> PullOptions {
        let usual = PullOptions::default();
        PullOptions {
            policy,
            platform: self.platform.clone().unwrap_or(usual.platform),
            insecure_registries: self.insecure_registry.clone(),
        }
    }
}

/// The words of `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Always,
    Missing,
    Never,
}

impl From<When> for PullPolicy {
    fn from(when: When) -> Self {
        match when {
            When::Always => Self::Always,
            When::Missing => Self::Missing,
            When::Never => Self::Never,
        }
    }
}
