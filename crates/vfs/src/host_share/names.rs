//! Names of the host's files: finding, creating, removing, moving.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid, chmod, chownat, linkat, mkdirat, mknodat,
    renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::handles::Handle;
use super::{HostShare, descriptor_path, open_beneath, status_of};
use crate::attr::{Entry, FileKind};
use crate::protocol::{PERMISSION_BITS, S_ISGID, open_flag};
use crate::tree::{Caller, NewFile};

impl HostShare {
    /// Opens `name` in a directory as O_PATH.
    fn open_name(&self, directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        open_beneath(directory.as_fd(), name, OFlags::PATH, Mode::empty())
    }

    pub(super) fn find(&self, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        let directory = self.descriptor(parent)?;
        self.nodes.enter(self.open_name(&directory, name)?, parent, name)
    }

    pub(super) fn create_symlink(
        &self,
        parent: u64,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry, Errno> {
        self.require_writable()?;
        let directory = self.descriptor(parent)?;
        symlinkat(target, &*directory, name)?;
        self.adopt(parent, &directory, name, caller, None)
    }

    pub(super) fn create_other(&self, parent: u64, name: &[u8], new: NewFile) -> Result<Entry, Errno> {
        self.require_writable()?;
        let directory = self.descriptor(parent)?;
        let mode = Mode::from_raw_mode(new.mode);
        match new.kind {
            FileKind::Directory => mkdirat(&*directory, name, mode)?,
            FileKind::Regular => mknodat(&*directory, name, FileType::RegularFile, mode, 0)?,
            FileKind::Fifo => mknodat(&*directory, name, FileType::Fifo, mode, 0)?,
            FileKind::Socket => mknodat(&*directory, name, FileType::Socket, mode, 0)?,
            // A device made by a guest would be the host's device.
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Symlink => return Err(Errno::PERM),
        }
        self.adopt(parent, &directory, name, new.caller, Some(new.mode))
    }

    /// Gives a file just made the owner and mode that the guest asked for, and enters it.
    fn adopt(
        &self,
        parent: u64,
        directory: &OwnedFd,
        name: &[u8],
        caller: Caller,
        mode: Option<u32>,
    ) -> Result<Entry, Errno> {
        let fd = self.open_name(directory, name)?;
        self.give_away(directory, &fd, caller, mode)?;
        self.nodes.enter(fd, parent, name)
    }

    /// Sets owner (if this process may) and mode, which this process's umask has cut. In a set-group-ID
    /// directory the kernel has set the group, and the bit on directories, already.
    fn give_away(
        &self,
        directory: &OwnedFd,
        fd: &OwnedFd,
        caller: Caller,
        mode: Option<u32>,
    ) -> Result<(), Errno> {
        let inherits = u32::from(status_of(directory.as_fd())?.stx_mode) & S_ISGID != 0;
        if self.privileged {
            let group = (!inherits).then(|| Gid::from_raw(caller.gid));
            chownat(
                fd,
                "",
                Some(Uid::from_raw(caller.uid)),
                group,
                AtFlags::EMPTY_PATH,
            )?;
        }
        let Some(mode) = mode else { return Ok(()) };
        let present = u32::from(status_of(fd.as_fd())?.stx_mode) & PERMISSION_BITS;
        let wanted = mode | (present & S_ISGID);
        if present != wanted {
            chmod(descriptor_path(fd.as_fd()), Mode::from_raw_mode(wanted))?;
        }
        Ok(())
    }

    pub(super) fn create_open(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, u64), Errno> {
        let exclusive = flags & open_flag::EXCL != 0;
        let created = self
            .require_writable()
            .and_then(|()| self.create_exclusive(parent, name, new, flags));
        match created {
            Err(Errno::EXIST | Errno::ROFS) if !exclusive => {
                let entry = match self.find(parent, name) {
                    Err(Errno::NOENT) if self.read_only => return Err(Errno::ROFS),
                    found => found?,
                };
                match self.open_node(entry.node, flags, false) {
                    Ok((handle, _)) => Ok((entry, handle)),
                    Err(error) => {
                        self.nodes.forget(entry.node, 1);
                        Err(error)
                    }
                }
            }
            outcome => outcome,
        }
    }

    fn create_exclusive(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, u64), Errno> {
        let directory = self.descriptor(parent)?;
        let flags = access_flags(flags) | OFlags::CREATE | OFlags::EXCL;
        let file = open_beneath(directory.as_fd(), name, flags, Mode::from_raw_mode(new.mode))?;
        self.give_away(&directory, &file, new.caller, Some(new.mode))?;
        self.enter_open(file, parent, name)
    }

    /// Enters a file that has just been made and opened.
    fn enter_open(&self, file: OwnedFd, parent: u64, name: &[u8]) -> Result<(Entry, u64), Errno> {
        let path = descriptor_path(file.as_fd());
        let path = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let entry = self.nodes.enter(path, parent, name)?;
        match self.handles.add(entry.node, Handle::File(File::from(file))) {
            Ok(handle) => Ok((entry, handle)),
            Err(error) => {
                self.nodes.forget(entry.node, 1);
                Err(error)
            }
        }
    }

    pub(super) fn create_nameless(
        &self,
        parent: u64,
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, u64), Errno> {
        self.require_writable()?;
        let directory = self.descriptor(parent)?;
        let flags = access_flags(flags) | OFlags::TMPFILE;
        let file = open_beneath(directory.as_fd(), b".", flags, Mode::from_raw_mode(new.mode))?;
        self.give_away(&directory, &file, new.caller, Some(new.mode))?;
        // No name leads to it: once its descriptor is out of the cache, only the handle does.
        self.enter_open(file, parent, b"")
    }

    pub(super) fn remove(&self, parent: u64, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
        self.require_writable()?;
        let directory = self.descriptor(parent)?;
        let removed = self.open_name(&directory, name)?;
        unlinkat(&*directory, name, flags)?;
        self.nodes.moved(removed, None)
    }

    pub(super) fn move_name(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.require_writable()?;
        let from = self.descriptor(parent)?;
        let to = self.descriptor(new_parent)?;
        let moved = self.open_name(&from, name)?;
        let present = self.open_name(&to, new_name).ok();
        let flags = RenameFlags::from_bits_retain(flags);
        renameat_with(&*from, name, &*to, new_name, flags)?;
        self.nodes.moved(moved, Some((new_parent, new_name)))?;
        if let Some(present) = present {
            let place = flags.contains(RenameFlags::EXCHANGE).then_some((parent, name));
            self.nodes.moved(present, place)?;
        }
        Ok(())
    }

    pub(super) fn add_link(&self, node: u64, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        self.require_writable()?;
        if self.nodes.kind(node)? == FileKind::Directory {
            return Err(Errno::PERM);
        }
        let fd = self.descriptor(node)?;
        let directory = self.descriptor(parent)?;
        // AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH (linkat(2)).
        linkat(
            CWD,
            descriptor_path(fd.as_fd()),
            &*directory,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        self.find(parent, name)
    }
}

/// The flags of the guest's open that mean something here. Appending is done by the guest's kernel, which
/// gives every write its offset.
pub(super) fn access_flags(flags: u32) -> OFlags {
    match flags & open_flag::ACCMODE {
        open_flag::WRONLY => OFlags::WRONLY,
        open_flag::RDWR => OFlags::RDWR,
        _ => OFlags::RDONLY,
    }
}
