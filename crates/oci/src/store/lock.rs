//! Locks between processes: advisory locks of whole files, which the system drops when their holder dies.
//!
//! Order, from the outside in: `store`, then `settle`, `layer-…` or `names`, then `image-…`. `store` is held
//! shared by whoever adds, settles or opens something, and exclusively, without waiting, by the garbage collector. Files of
//! `layer-…` and `image-…` locks are removed only under the exclusive `store` lock, and opened only under a
//! shared one, so nobody locks a file that has no name any more.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A lock held until the last clone goes away.
pub(super) type Held = Arc<File>;

pub(super) fn shared(path: &Path) -> Result<Held> {
    wait(path, FlockOperation::LockShared)
}

pub(super) fn exclusive(path: &Path) -> Result<Held> {
    wait(path, FlockOperation::LockExclusive)
}

/// The exclusive lock, or `None` if anybody has any lock.
pub(super) fn try_exclusive(path: &Path) -> Result<Option<Held>> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Arc::new(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Error::io("lock", path)(error.into())),
    }
}

fn wait(path: &Path, operation: FlockOperation) -> Result<Held> {
    let file = open(path)?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Arc::new(file)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("lock", path)(error.into())),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    options.map_err(Error::io("open lock", path))
}
