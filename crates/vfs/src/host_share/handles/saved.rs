//! The state of the handles: what is open, and how.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use saved_state::{Decoder, Saved, record, require};

use super::{Handle, Handles};
use crate::error::Error;
use crate::saved::{Room, require_ascending};
use crate::sync::{read, write};

/// Largest handle: more than a guest ever gets.
const ID_MAX: u64 = 1 << 62;

/// How something is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::host_share) enum Access {
    Read = 0,
    Write = 1,
    ReadWrite = 2,
    Directory = 3,
}

impl Saved for Access {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, saved_state::Error> {
        Ok(match u8::decode(input)? {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::ReadWrite,
            3 => Self::Directory,
            _ => return Err(saved_state::Error::Value("how a file is open")),
        })
    }
}

record! {
    /// [`Handles`].
    pub(in crate::host_share) struct SavedHandles {
        /// Ascending by id.
        1 handles: Vec<SavedHandle>,
        2 next: u64,
    }
}

record! {
    /// [`Handle`].
    pub(in crate::host_share) struct SavedHandle {
        1 id: u64,
        2 node: u64,
        3 access: Access,
    }
}

impl Handle {
    fn access(&self) -> Result<Access, Errno> {
        Ok(match self {
            Self::File(file) => match fcntl_getfl(file)? & OFlags::ACCMODE {
                OFlags::WRONLY => Access::Write,
                OFlags::RDWR => Access::ReadWrite,
                _ => Access::Read,
            },
            Self::Directory(_) => Access::Directory,
            Self::Gone(access) => *access,
        })
    }
}

impl Handles {
    pub(in crate::host_share) fn save(&self, room: &mut Room) -> Result<SavedHandles, Error> {
        let Self { table, next, max: _ } = self;
        let table = read(table);
        room.take(table.len() as u64, 0)?;
        let mut handles = table
            .iter()
            .map(|(&id, (node, handle))| {
                Ok(SavedHandle {
                    id,
                    node: *node,
                    access: handle.access().map_err(Error::Open)?,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        handles.sort_unstable_by_key(|handle| handle.id);
        Ok(SavedHandles {
            handles,
            next: next.load(Ordering::Relaxed),
        })
    }

    /// Takes the handles, which `open` opens again, in place of those there are.
    pub(in crate::host_share) fn restore(
        &self,
        saved: SavedHandles,
        open: &dyn Fn(u64, Access) -> Result<Handle, Errno>,
    ) -> Result<(), Error> {
        let SavedHandles { handles, next } = saved;
        require((1..=ID_MAX).contains(&next), "the next handle")?;
        require_ascending(handles.iter().map(|handle| handle.id), "the order of handles")?;
        if handles.len() > self.max {
            return Err(Error::Open(Errno::NFILE));
        }
        let mut table = HashMap::new();
        for SavedHandle { id, node, access } in handles {
            require((1..next).contains(&id), "the number of a handle")?;
            let handle = open(node, access).map_err(Error::Open)?;
            table.insert(id, (node, Arc::new(handle)));
        }
        *write(&self.table) = table;
        self.next.store(next, Ordering::Relaxed);
        Ok(())
    }
}
