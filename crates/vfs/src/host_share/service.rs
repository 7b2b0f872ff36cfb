//! The share as a tree to serve.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, RawDir, SeekFrom, copy_file_range, fallocate, fdatasync,
    fstatvfs, fsync, readlinkat, seek, statat, syncfs,
};
use rustix::io::Errno;
use saved_state::Unit;

use super::attributes::{attr_of, version_of};
use super::handles::Handle;
use super::names::access_flags;
use super::{HostShare, open_beneath, status_of};
use crate::attr::{Attr, CachePolicy, Entry, FileKind, FileSystemStatus, SetAttr};
use crate::error::Error;
use crate::protocol::{NAME_MAX, ROOT_ID, SEEK_DATA, SEEK_HOLE, SYMLINK_MAX, open_flag};
use crate::sync::lock;
use crate::transfer::{ReadBuffer, WriteSource};
use crate::tree::{Caller, DirectoryBatch, FileRef, NewFile, Opened, Tree, WriteKind};

/// How long the guest trusts what it has seen of a directory that others change too.
const VALID: Duration = Duration::from_secs(1);
/// Smallest and largest buffer for reading directories, in bytes; one entry of the host always fits.
const LISTING_BUFFER: (usize, usize) = (1 << 10, 64 << 10);
/// Most bytes copied by one COPY_FILE_RANGE, so that no request takes long.
const COPY_MAX: u64 = 256 << 20;

impl HostShare {
    /// Opens the contents of a node and says whether what the guest has cached of them is still good.
    pub(super) fn open_node(&self, node: u64, flags: u32, kill_set_id: bool) -> Result<(u64, bool), Errno> {
        let truncate = flags & open_flag::TRUNC != 0;
        if truncate || flags & open_flag::ACCMODE != 0 {
            self.require_writable()?;
        }
        let fd = self.descriptor(node)?;
        let mut access = access_flags(flags);
        if truncate {
            access |= OFlags::TRUNC;
        }
        let file = self.open_regular(&fd, access)?;
        if truncate {
            self.after_write(&file, kill_set_id)?;
        }
        let keep_cache = self
            .nodes
            .same_version(node, version_of(&status_of(file.as_fd())?));
        Ok((self.handles.add(node, Handle::File(file))?, keep_cache))
    }

    /// Opens a directory to list it.
    pub(super) fn open_directory(&self, node: u64) -> Result<OwnedFd, Errno> {
        let fd = self.descriptor(node)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        open_beneath(fd.as_fd(), b".", flags, Mode::empty())
    }

    fn list(&self, file: FileRef, cookie: u64, batch: &mut DirectoryBatch) -> Result<(), Errno> {
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        let directory = lock(handle.directory()?);
        seek(&*directory, SeekFrom::Start(cookie))?;
        let mut buffer = vec![MaybeUninit::uninit(); batch.left().clamp(LISTING_BUFFER.0, LISTING_BUFFER.1)];
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match kind_of_type(entry.file_type()) {
                Some(kind) => kind,
                None => match statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(status) => FileKind::from_mode(status.st_mode).ok_or(Errno::IO)?,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error),
                },
            };
            // What lies above the share is none of the guest's business.
            let outside = file.node == ROOT_ID && name.to_bytes() == b"..";
            let ino = if outside { ROOT_ID } else { entry.ino() };
            if !batch.push(name.to_bytes(), ino, kind, entry.next_entry_cookie()) {
                break;
            }
        }
        Ok(())
    }
}

impl Tree for HostShare {
    fn cache_policy(&self) -> CachePolicy {
        CachePolicy {
            entry: VALID,
            attr: VALID,
            absent: Duration::ZERO,
            exclusive: false,
            stateless: false,
        }
    }

    fn reset(&self) {
        self.handles.clear();
        self.nodes.clear();
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        self.find(parent, name)
    }

    fn forget(&self, node: u64, count: u64) {
        self.nodes.forget(node, count);
    }

    fn getattr(&self, file: FileRef) -> Result<Attr, Errno> {
        attr_of(&self.status(file)?)
    }

    fn setattr(&self, file: FileRef, change: &SetAttr, _caller: Caller) -> Result<Attr, Errno> {
        self.change_attributes(file, change)
    }

    fn readlink(&self, node: u64) -> Result<Vec<u8>, Errno> {
        if self.nodes.kind(node)? != FileKind::Symlink {
            return Err(Errno::INVAL);
        }
        let fd = self.descriptor(node)?;
        let target = readlinkat(&*fd, "", Vec::with_capacity(SYMLINK_MAX + 1))?;
        Ok(target.into_bytes())
    }

    fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Entry, Errno> {
        self.create_symlink(parent, name, target, caller)
    }

    fn make(&self, parent: u64, name: &[u8], new: NewFile) -> Result<Entry, Errno> {
        self.create_other(parent, name, new)
    }

    fn create(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, Option<u64>), Errno> {
        self.create_open(parent, name, new, flags)
            .map(|(entry, handle)| (entry, Some(handle)))
    }

    fn tmpfile(&self, parent: u64, new: NewFile, flags: u32) -> Result<(Entry, Option<u64>), Errno> {
        self.create_nameless(parent, new, flags)
            .map(|(entry, handle)| (entry, Some(handle)))
    }

    fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::empty())
    }

    fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn rename(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.move_name(parent, name, new_parent, new_name, flags)
    }

    fn link(&self, node: u64, new_parent: u64, new_name: &[u8]) -> Result<Entry, Errno> {
        self.add_link(node, new_parent, new_name)
    }

    fn open(&self, node: u64, flags: u32, kill_set_id: bool) -> Result<Opened, Errno> {
        let (handle, keep_cache) = self.open_node(node, flags, kill_set_id)?;
        Ok(Opened { handle, keep_cache })
    }

    fn opendir(&self, node: u64) -> Result<u64, Errno> {
        if self.nodes.kind(node)? != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let directory = self.open_directory(node)?;
        self.handles.add(node, Handle::Directory(Mutex::new(directory)))
    }

    fn release(&self, handle: u64) {
        self.handles.remove(handle);
    }

    fn read(&self, file: FileRef, offset: u64, out: &mut ReadBuffer<'_>) -> Result<(), Errno> {
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        let len = out.remaining();
        out.fill_from_file(handle.file()?, offset, len).map(drop)
    }

    fn write(
        &self,
        file: FileRef,
        offset: u64,
        data: &mut WriteSource<'_>,
        kind: WriteKind,
    ) -> Result<usize, Errno> {
        self.require_writable()?;
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        let len = data.remaining();
        let written = data.write_to_file(len, handle.file()?, offset)?;
        self.after_write(handle.file()?, kind.kill_set_id)?;
        Ok(written)
    }

    /// Every write has reported its own errors.
    fn flush(&self, file: FileRef) -> Result<(), Errno> {
        match &*self.handles.get(file.handle.ok_or(Errno::BADF)?)? {
            Handle::File(_) | Handle::Directory(_) => Ok(()),
            Handle::Gone(_) => Err(Errno::STALE),
        }
    }

    fn fsync(&self, file: FileRef, data_only: bool) -> Result<(), Errno> {
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        match &*handle {
            Handle::File(file) if data_only => fdatasync(file),
            Handle::File(file) => fsync(file),
            Handle::Directory(directory) => fsync(&*lock(directory)),
            Handle::Gone(_) => Err(Errno::STALE),
        }
    }

    fn syncfs(&self) -> Result<(), Errno> {
        syncfs(self.open_directory(ROOT_ID)?)
    }

    fn readdir(&self, file: FileRef, cookie: u64, batch: &mut DirectoryBatch) -> Result<(), Errno> {
        self.list(file, cookie, batch)
    }

    fn statfs(&self) -> Result<FileSystemStatus, Errno> {
        let status = fstatvfs(&*self.descriptor(ROOT_ID)?)?;
        Ok(FileSystemStatus {
            blocks: status.f_blocks,
            blocks_free: status.f_bfree,
            blocks_available: status.f_bavail,
            files: status.f_files,
            files_free: status.f_ffree,
            block_size: u32::try_from(status.f_frsize).unwrap_or(crate::attr::BLOCK_SIZE),
            name_max: NAME_MAX as u32,
        })
    }

    fn getxattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattr(node, name)
    }

    fn listxattr(&self, node: u64) -> Result<Vec<u8>, Errno> {
        self.xattr_names(node)
    }

    fn setxattr(&self, node: u64, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        self.set_xattr(node, name, value, flags)
    }

    fn removexattr(&self, node: u64, name: &[u8]) -> Result<(), Errno> {
        self.remove_xattr(node, name)
    }

    fn fallocate(&self, file: FileRef, offset: u64, len: u64, mode: u32) -> Result<(), Errno> {
        self.require_writable()?;
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let mode = FallocateFlags::from_bits_retain(mode);
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        fallocate(handle.file()?, mode, offset, len)
    }

    fn lseek(&self, file: FileRef, offset: u64, whence: u32) -> Result<u64, Errno> {
        let handle = self.handles.get(file.handle.ok_or(Errno::BADF)?)?;
        // The position that this moves is not used: contents are read and written by offset.
        let position = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        seek(handle.file()?, position)
    }

    fn copy_file_range(
        &self,
        from: FileRef,
        from_offset: u64,
        to: FileRef,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        self.require_writable()?;
        let from = self.handles.get(from.handle.ok_or(Errno::BADF)?)?;
        let to = self.handles.get(to.handle.ok_or(Errno::BADF)?)?;
        let (mut read_at, mut write_at) = (from_offset, to_offset);
        let len = usize::try_from(len.min(COPY_MAX)).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(
            from.file()?,
            Some(&mut read_at),
            to.file()?,
            Some(&mut write_at),
            len,
        )?;
        Ok(copied as u64)
    }

    fn save(&self, _contents: &mut dyn Write) -> Result<Unit, Error> {
        self.save_state()
    }

    fn restore(&self, unit: &Unit, _contents: &mut dyn Read) -> Result<(), Error> {
        self.restore_state(unit)
    }
}

fn kind_of_type(file_type: FileType) -> Option<FileKind> {
    Some(match file_type {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::Unknown => return None,
    })
}
