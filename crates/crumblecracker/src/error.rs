//! What can go wrong between a name of an image and the end of a command.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_protocol::{ExecFailure, Failure};

use crate::post_mortem::PostMortem;

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
    /// Snapshots of guests.
    #[error(transparent)]
    Snapshot(#[from] saved_state::Error),
    /// A cache of snapshots that somebody else could have filled.
    #[error(
        "the snapshots in {} are not used: the folder belongs to another user, or others may write to it",
        .0.display()
    )]
    ForeignCache(PathBuf),
    /// No guest was put by under this name.
    #[error("no guest was put by as {0}; `snapshot ls` lists them")]
    NoSavedGuest(String),
    /// A name under which no guest can be put by.
    #[error(
        "a guest cannot be put by as {0:?}: names have 1 to 64 letters, digits, `.`, `-` and `_`, and begin with one of the first two"
    )]
    SavedGuestName(String),
    /// The name is taken.
    #[error("a guest was put by as {0} already; remove it first, or choose another name")]
    SavedGuestExists(String),
    /// Another process writes it.
    #[error("another process is writing the guest that was put by as {0}")]
    SavedGuestBusy(String),
    /// The image a guest ran from is not here.
    #[error("the guest ran from the image {name} ({id}), which is not in the cache any more; pull it again")]
    SavedGuestImage {
        /// Its name.
        name: String,
        /// Its digest.
        id: String,
    },
    /// The shares that are given are not those the guest had.
    #[error("the guest cannot go on: {guest} {what}")]
    SavedGuestShare {
        /// Where in the guest.
        guest: String,
        /// What stands against it.
        what: &'static str,
    },
    /// A name that no running guest can have.
    #[error(
        "{0:?} is no name for a guest: names have 1 to 64 letters, digits, `.`, `-` and `_`, and begin with one of the first two"
    )]
    InstanceName(String),
    /// A guest of that name exists.
    #[error("a guest named {0} is running already; `stop` ends it")]
    InstanceTaken(String),
    /// A guest of that name does not exist.
    #[error("no guest named {0} is running; `ps` lists those that are")]
    NoInstance(String),
    /// It exists, and cannot be talked to yet.
    #[error("the guest named {0} is still starting")]
    InstanceStarting(String),
    /// A folder of running guests that somebody else could have filled.
    #[error(
        "running guests in {} are not used: the folder belongs to another user, or others may write to it",
        .0.display()
    )]
    ForeignInstances(PathBuf),
    /// The guest lives in another cache folder than the one that was named.
    #[error("the guest's cache folder is {}: say so with --cache-dir", .0.display())]
    OtherCache(PathBuf),
    /// What the monitor of a running guest answered.
    #[error("{0}")]
    Monitor(String),
    /// A message between a monitor and who talks to it.
    #[error("a message of the guest's control socket is refused: {0}")]
    Message(String),
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
    /// Only the CPU in software can be watched.
    #[error("guests on {0} can be neither traced nor profiled; choose the CPU in software: --backend soft")]
    NotObservable(&'static str),
    /// The machine cannot be made.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The guest did not come up in time.
    #[error("the guest did not start within {} seconds", .0.as_secs())]
    BootDeadline(Duration),
    /// The machine ended before the guest was ready.
    #[error("the guest ended while it started: {}", .0.how)]
    BootEnded(PostMortem),
    /// The guest does not keep to the protocol.
    #[error("the guest program cannot be used: {0}")]
    Guest(String),
    /// The guest is gone, as far as the control channel tells.
    #[error("the guest is gone: {0}")]
    GuestGone(String),
    /// The guest is gone, and it is known how.
    #[error("the guest is gone: {}", .0.how)]
    GuestEnded(PostMortem),
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
    /// A disk of the host is full.
    #[error("the disk is full: cannot {doing} {}; free some space or choose another cache folder", path.display())]
    DiskFull {
        /// What, in the infinitive.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The host's answer.
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

impl Error {
    /// What is known of the guest whose end this error is.
    pub fn post_mortem(&self) -> Option<&PostMortem> {
        match self {
            Self::BootEnded(post_mortem) | Self::GuestEnded(post_mortem) => Some(post_mortem),
            _ => None,
        }
    }

    /// `map_err` helper for files of the host; a full disk gets its own words.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + Clone {
        let path = path.to_owned();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { doing, path, source },
            _ => Self::File { doing, path, source },
        }
    }
}

/// An error and its sources in one line, separated by colons; a source that its parent already told is left out.
/// What a registry, an image or a guest put into a message cannot break the line or control a terminal.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text.replace(char::is_control, " ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_joins_sources() {
        let error = Error::file("read", Path::new("/x"))(ErrorKind::NotFound.into());

        assert_eq!(one_line(&error), "cannot read /x: entity not found");
    }

    #[test]
    fn one_line_source_already_told_is_left_out() {
        let told = Error::Oci(oci::Error::NoImage("x".to_owned()));
        let error = std::io::Error::other(told);

        assert_eq!(one_line(&error), "no image `x` in the store: pull it first");
    }

    #[test]
    fn one_line_foreign_control_characters_are_blanks() {
        let error = Error::Guest("bad\nword\x1b[2J\u{9b}".to_owned());

        assert_eq!(
            one_line(&error),
            "the guest program cannot be used: bad word [2J "
        );
    }

    #[test]
    fn file_on_a_full_disk_names_the_way_out() {
        let error = Error::file("write", Path::new("/x"))(ErrorKind::StorageFull.into());

        assert!(error.to_string().contains("free some space"), "{error}");
    }
}
