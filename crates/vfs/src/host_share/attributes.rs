//! Attributes of the host's files.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, Uid, chmod, chownat, ftruncate, getxattr, listxattr, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::handles::Handle;
use super::nodes::Version;
use super::{HostShare, descriptor_path, status_of};
use crate::attr::{Attr, FileKind, SetAttr, SetTime, Timestamp, device_number};
use crate::protocol::{PERMISSION_BITS, S_ISGID, S_ISUID, XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX};
use crate::server::without_set_id;
use crate::tree::FileRef;

impl HostShare {
    /// Attributes of an open file by its handle, else of a node.
    pub(super) fn status(&self, file: FileRef) -> Result<Statx, Errno> {
        match file.handle {
            Some(handle) => match &*self.handles.get(handle)? {
                Handle::File(file) => status_of(file.as_fd()),
                Handle::Directory(directory) => status_of(crate::sync::lock(directory).as_fd()),
                Handle::Gone(_) => Err(Errno::STALE),
            },
            None => status_of(self.descriptor(file.node)?.as_fd()),
        }
    }

    pub(super) fn change_attributes(&self, file: FileRef, change: &SetAttr) -> Result<Attr, Errno> {
        self.require_writable()?;
        let fd = self.descriptor(file.node);
        if let Some(size) = change.size {
            self.resize(file, &fd, size, change.kill_set_id)?;
        }
        if change.uid.is_some() || change.gid.is_some() || change.mode.is_some() || has_times(change) {
            let fd = fd?;
            if change.uid.is_some() || change.gid.is_some() {
                let owner = change.uid.map(Uid::from_raw);
                chownat(
                    &*fd,
                    "",
                    owner,
                    change.gid.map(Gid::from_raw),
                    AtFlags::EMPTY_PATH,
                )?;
            }
            if let Some(mode) = change.mode {
                chmod(descriptor_path(fd.as_fd()), Mode::from_raw_mode(mode))?;
            }
            if has_times(change) {
                let times = Timestamps {
                    last_access: timespec(change.atime),
                    last_modification: timespec(change.mtime),
                };
                utimensat(&*fd, "", &times, AtFlags::EMPTY_PATH)?;
            }
        }
        attr_of(&self.status(file)?)
    }

    /// Sets the size by the handle if there is one, because it may be all that is left of the file.
    fn resize(
        &self,
        file: FileRef,
        fd: &Result<Arc<OwnedFd>, Errno>,
        size: u64,
        kill_set_id: bool,
    ) -> Result<(), Errno> {
        match file.handle {
            Some(handle) => {
                let handle = self.handles.get(handle)?;
                ftruncate(handle.file()?, size)?;
                self.after_write(handle.file()?, kill_set_id)
            }
            None => {
                let fd = fd.as_ref().map_err(|error| *error)?;
                let file = self.open_regular(fd, OFlags::WRONLY)?;
                ftruncate(&file, size)?;
                self.after_write(&file, kill_set_id)
            }
        }
    }

    /// Opens the contents of a regular file that has been reached already.
    pub(super) fn open_regular(&self, fd: &OwnedFd, flags: OFlags) -> Result<File, Errno> {
        match super::nodes::kind_of_descriptor(fd)? {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            FileKind::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::PERM),
        }
        let path = descriptor_path(fd.as_fd());
        Ok(File::from(rustix::fs::open(
            path,
            flags | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )?))
    }

    /// Takes set-id bits away that a privileged process's write leaves.
    pub(super) fn after_write(&self, file: &File, kill_set_id: bool) -> Result<(), Errno> {
        if !kill_set_id || !self.privileged {
            return Ok(());
        }
        let mode = u32::from(status_of(file.as_fd())?.stx_mode) & PERMISSION_BITS;
        if mode & (S_ISUID | S_ISGID) != 0 && without_set_id(mode) != mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(without_set_id(mode)))?;
        }
        Ok(())
    }

    pub(super) fn xattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        require_user(name)?;
        let fd = self.descriptor(node)?;
        let mut value = Vec::with_capacity(XATTR_SIZE_MAX);
        getxattr(
            descriptor_path(fd.as_fd()),
            name,
            rustix::buffer::spare_capacity(&mut value),
        )?;
        Ok(value)
    }

    pub(super) fn xattr_names(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let fd = self.descriptor(node)?;
        let mut names = Vec::with_capacity(XATTR_SIZE_MAX);
        listxattr(
            descriptor_path(fd.as_fd()),
            rustix::buffer::spare_capacity(&mut names),
        )?;
        let shown = names
            .split_inclusive(|&byte| byte == 0)
            .filter(|name| require_user(name).is_ok());
        Ok(shown.flatten().copied().collect())
    }

    pub(super) fn set_xattr(&self, node: u64, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        self.require_writable()?;
        require_user(name)?;
        if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
            return Err(Errno::INVAL);
        }
        let fd = self.descriptor(node)?;
        setxattr(
            descriptor_path(fd.as_fd()),
            name,
            value,
            rustix::fs::XattrFlags::from_bits_retain(flags),
        )
    }

    pub(super) fn remove_xattr(&self, node: u64, name: &[u8]) -> Result<(), Errno> {
        self.require_writable()?;
        require_user(name)?;
        let fd = self.descriptor(node)?;
        removexattr(descriptor_path(fd.as_fd()), name)
    }
}

/// Other namespaces say things to the host's own kernel, which a guest has no say in.
fn require_user(name: &[u8]) -> Result<(), Errno> {
    if name.starts_with(b"user.") {
        Ok(())
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

fn has_times(change: &SetAttr) -> bool {
    change.atime.is_some() || change.mtime.is_some()
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(SetTime::To(time)) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        },
    }
}

pub(super) fn kind_of(status: &Statx) -> Result<FileKind, Errno> {
    FileKind::from_mode(status.stx_mode.into()).ok_or(Errno::IO)
}

/// The host's attributes as the guest sees them.
pub(super) fn attr_of(status: &Statx) -> Result<Attr, Errno> {
    let time = |at: StatxTimestamp| Timestamp {
        seconds: at.tv_sec,
        nanoseconds: at.tv_nsec,
    };
    let has_birth = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Attr {
        ino: status.stx_ino,
        kind: kind_of(status)?,
        mode: u32::from(status.stx_mode) & PERMISSION_BITS,
        nlink: status.stx_nlink,
        uid: status.stx_uid,
        gid: status.stx_gid,
        rdev: device_number(status.stx_rdev_major, status.stx_rdev_minor),
        size: status.stx_size,
        blocks: status.stx_blocks,
        atime: time(status.stx_atime),
        mtime: time(status.stx_mtime),
        ctime: time(status.stx_ctime),
        btime: has_birth.then(|| time(status.stx_btime)),
    })
}

/// Which contents a file has, as far as its attributes tell.
pub(super) fn version_of(status: &Statx) -> Version {
    let (modified, changed) = (status.stx_mtime, status.stx_ctime);
    (
        modified.tv_sec,
        modified.tv_nsec,
        changed.tv_sec,
        changed.tv_nsec,
        status.stx_size,
    )
}
