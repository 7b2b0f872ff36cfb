//! Forks of a running guest: it is put by once, for as long as they are made, and each fork takes that up in a monitor
//! of its own. All of them map the same file of RAM, so a page is there once until one of them writes to it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::protocol::{Receiver, Sender};
use super::{Claim, Instances, Running, read_capped};
use crate::session::Process;
use crate::{Command, Error, Instance, Library, Result, Share, TakeUpOptions, open_backend};

/// The file in a fork's folder that says what it is made of, until it is.
const PLAN: &str = "plan";
/// The most that is read of it: less than what a message may have.
const PLAN_MAX: u64 = 1 << 20;

/// A running guest that stands ready to be forked: as it was when it was asked. Dropping this ends that; forks that were
/// made go on.
pub struct Forkable {
    pub(super) made: Made,
    /// The monitor keeps what forks are made of for as long as this is connected.
    pub(super) _connection: (Receiver, Sender),
}

/// What a monitor says of a guest that it has put by for forks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Made {
    /// Its name among those that are put by for forks.
    pub(super) snapshot: String,
    pub(super) backend: String,
    pub(super) shares: Vec<Share>,
    /// What commands have of the one the guest was started with.
    pub(super) usual: Command,
    pub(super) has_main: bool,
}

/// How a fork differs from its guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkOptions {
    /// A host name in place of the guest's.
    pub hostname: Option<String>,
    /// Whether it gets a machine id (machine-id(5)) of its own.
    pub new_machine_id: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    made: Made,
    options: ForkOptions,
}

impl Forkable {
    /// Leaves word in the folder of `claim` of what [`Running::fork`] is to make, in whichever process has the claim
    /// then.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn plan(&self, claim: &Claim, options: &ForkOptions) -> Result<()> {
        let plan = Plan {
            made: self.made.clone(),
            options: options.clone(),
        };
        let path = claim.folder().join(PLAN);
        let text = serde_json::to_vec(&plan).map_err(|error| Error::Message(error.to_string()))?;
        fs::write(&path, text).map_err(Error::file("write", &path))
    }
}

impl Instances {
    /// Takes the first name for a fork of `name` that is free: `name-1`, `name-2` and so on, from `from` on. Gives the
    /// number, too.
    ///
    /// # Errors
    /// As [`Instances::claim`], but for a name that is taken.
    pub fn claim_numbered(&self, name: &str, from: u32) -> Result<(Claim, u32)> {
        let mut number = from;
        loop {
            match self.claim(&format!("{name}-{number}")) {
                Err(Error::InstanceTaken(_)) if number < u32::MAX => number += 1,
                claimed => return claimed.map(|claim| (claim, number)),
            }
        }
    }
}

impl Running {
    /// Makes the fork that was planned for `claim`. Its main process is that of the guest it comes from; other commands
    /// that run in it go on unheard.
    ///
    /// # Errors
    /// Those of [`Instance::take_up`]; [`Error::File`] where nothing was planned.
    pub fn fork(library: &Library, claim: &Claim) -> Result<Self> {
        let Plan { made, options } = read_plan(&claim.folder())?;
        let backend = open_backend(Some(&made.backend), library)?;
        let options = TakeUpOptions {
            shares: made.shares,
            hostname: options.hostname,
            new_machine_id: options.new_machine_id,
            ..TakeUpOptions::default()
        };
        let forks = library.forked_guests();
        let (instance, processes) = Instance::take_up(&forks, &made.snapshot, backend, &options)?;
        let main = Process::first_of(processes, made.has_main)?;
        Ok(Self::with_main(instance, main, made.usual))
    }
}

fn read_plan(folder: &Path) -> Result<Plan> {
    let path = folder.join(PLAN);
    let text = read_capped(&path, PLAN_MAX).map_err(Error::file("read", &path))?;
    fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Message(error.to_string()))
}
