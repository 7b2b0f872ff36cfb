//! What can go wrong between a name of an image and the end of a command.

use std::path::PathBuf;
use std::time::Duration;

use guest_protocol::{ExecFailure, Failure};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request of this library failed. The message names the thing and, where there is one, the way out; its
/// sources say more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No folder for the cache is known.
    #[error("no cache folder is known: set HOME or XDG_CACHE_HOME, or name one with --cache-dir")]
    NoCacheFolder,
    /// The configuration file cannot be used.
    #[error("the configuration {} is refused: {reason}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What stands against it.
        reason: String,
    },
    /// Images.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// Debian's archive.
    #[error(transparent)]
    Debian(#[from] oci::debian::Error),
    /// An image that must be here already is not.
    #[error("image {0} is not in the cache, and pulling was forbidden; run `pull` first")]
    NotPulled(String),
    /// The image is for another architecture.
    #[error("image {image} is for {platform}; this machine's CPU backends run linux/amd64")]
    Platform {
        /// Its name.
        image: String,
        /// What it is for.
        platform: String,
    },
    /// An image that names no command, and none was given.
    #[error("image {0} names no command; give one after the image")]
    NoCommand(String),
    /// The user to run as is not in the image.
    #[error("user {0} is not in the image's /etc/passwd or /etc/group; give a number")]
    NoUser(String),
    /// A file tree for the guest cannot be made.
    #[error(transparent)]
    Vfs(#[from] vfs::Error),
    /// The kernel file.
    #[error("kernel {}: {reason}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What stands against it.
        reason: String,
    },
    /// The CPU backend.
    #[error(transparent)]
    Backend(#[from] hypervisor::Error),
    /// A backend of this name does not exist.
    #[error("there is no CPU backend {0:?}; `doctor` lists them")]
    NoBackend(String),
    /// The machine cannot be made.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The guest did not come up in time.
    #[error("the guest did not start within {} seconds", .0.as_secs())]
    BootDeadline(Duration),
    /// The machine ended before the guest was ready.
    #[error("the guest ended while it started: {0}")]
    BootEnded(String),
    /// The guest does not keep to the protocol.
    #[error("the guest program cannot be used: {0}")]
    Guest(String),
    /// The guest is gone.
    #[error("the guest is gone: {0}")]
    GuestGone(String),
    /// The guest refused a request.
    #[error("the guest cannot {}: {} (error {})", doing(.0.stage), .0.text, .0.errno)]
    Refused(Failure),
    /// A request that cannot be carried to the guest.
    #[error("the request is impossible: {0}")]
    Request(String),
    /// A program that cannot be executed.
    #[error("the guest cannot {}: {}", doing(.0.stage), reason(.0.errno))]
    Exec(ExecFailure),
    /// The host refused something.
    #[error("cannot {doing}")]
    Host {
        /// What, in the infinitive.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder of the host.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What, in the infinitive.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
}

/// What the host says of an error number of Linux.
fn reason(errno: u32) -> std::io::Error {
    std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0))
}

fn doing(stage: guest_protocol::Stage) -> &'static str {
    use guest_protocol::Stage;
    match stage {
        Stage::Request => "understand the request",
        Stage::Version => "speak this version",
        Stage::Mount => "mount",
        Stage::Configure => "configure itself",
        Stage::Slot => "hold one more process",
        Stage::Stdio => "make pipes or a terminal",
        Stage::Fork => "start a process",
        Stage::Cwd => "enter the working directory",
        Stage::Credentials => "become that user",
        Stage::Exec => "execute the program",
        Stage::File => "work on files",
    }
}
