//! The state of a share: what the guest knows and has open of it. The files are the host's and stay there.

use std::sync::Mutex;

use rustix::fs::OFlags;
use rustix::io::Errno;
use saved_state::{Unit, record};

use super::HostShare;
use super::handles::{Access, Handle, SavedHandles};
use super::nodes::SavedNodes;
use crate::error::Error;
use crate::saved::Room;

const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// [`HostShare`].
    struct SavedShare {
        1 nodes: SavedNodes,
        2 handles: SavedHandles,
    }
}

impl HostShare {
    pub(super) fn save_state(&self) -> Result<Unit, Error> {
        let Self {
            nodes,
            handles,
            // How a directory is shared is for whoever shares it again to say.
            read_only: _,
            path: _,
            privileged: _,
        } = self;
        let mut room = Room::new();
        let saved = nodes.save(&mut room).and_then(|nodes| {
            Ok(SavedShare {
                nodes,
                handles: handles.save(&mut room)?,
            })
        });
        let saved = saved.map_err(|error| self.state_error(error))?;
        Ok(Unit::new(SCHEMA, &saved))
    }

    pub(super) fn restore_state(&self, unit: &Unit) -> Result<(), Error> {
        // Descriptors of earlier files are not to be found instead of those that are opened now.
        self.handles.clear();
        self.nodes.clear();
        self.restore_saved(unit).map_err(|error| {
            self.handles.clear();
            self.nodes.clear();
            self.state_error(error)
        })
    }

    fn restore_saved(&self, unit: &Unit) -> Result<(), Error> {
        let SavedShare { nodes, handles } = unit.decode(SCHEMA)?;
        self.nodes.restore(nodes)?;
        self.handles
            .restore(handles, &|node, access| self.open_again(node, access))
    }

    /// Opens what was open, or notes that it is gone: forbidden now, moved, or another file by that name. That this
    /// process or the system can open no more files is an error.
    fn open_again(&self, node: u64, access: Access) -> Result<Handle, Errno> {
        let opened = match access {
            Access::Directory => self
                .open_directory(node)
                .map(|directory| Handle::Directory(Mutex::new(directory))),
            Access::Read => self.open_file(node, OFlags::RDONLY),
            Access::Write => self
                .require_writable()
                .and_then(|()| self.open_file(node, OFlags::WRONLY)),
            Access::ReadWrite => self
                .require_writable()
                .and_then(|()| self.open_file(node, OFlags::RDWR)),
        };
        match opened {
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(error),
            Err(error) => {
                tracing::debug!(share = %self.path.display(), node, %error, "an open file is not found again");
                Ok(Handle::Gone(access))
            }
            opened => opened,
        }
    }

    fn open_file(&self, node: u64, flags: OFlags) -> Result<Handle, Errno> {
        let fd = self.descriptor(node)?;
        self.open_regular(&fd, flags).map(Handle::File)
    }

    fn state_error(&self, source: Error) -> Error {
        Error::ShareState {
            path: self.path.clone(),
            source: Box::new(source),
        }
    }
}
