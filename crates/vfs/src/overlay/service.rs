//! The overlay as a tree to serve.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::io::Errno;
use saved_state::Unit;

use super::Overlay;
use super::inode::{Body, Found};
use super::names::FIRST_COOKIE;
use super::store::BLOCK;
use crate::attr::{Attr, BLOCK_SIZE, CachePolicy, Entry, FileKind, FileSystemStatus, SetAttr, SetTime};
use crate::error::Error;
use crate::protocol::{NAME_MAX, SEEK_DATA, SEEK_HOLE, fallocate_flag, open_flag};
use crate::sync::read;
use crate::transfer::{ReadBuffer, WriteSource};
use crate::tree::{Caller, DirectoryBatch, FileRef, NewFile, Opened, Tree, WriteKind};

/// Only the guest changes the tree, so that what it has learned stays true: a day stands for ever.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

impl Tree for Overlay {
    fn cache_policy(&self) -> CachePolicy {
        CachePolicy {
            entry: FOREVER,
            attr: FOREVER,
            absent: FOREVER,
            exclusive: true,
            stateless: true,
        }
    }

    fn reset(&self) {
        self.inodes.forget_all();
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        let names = read(&self.names);
        self.require_directory(parent)?;
        let found = names.find(parent, name).ok_or(Errno::NOENT)?;
        self.entry(found.ino)
    }

    fn forget(&self, node: u64, count: u64) {
        self.inodes.forget(node, count);
    }

    fn getattr(&self, file: FileRef) -> Result<Attr, Errno> {
        Ok(self.inodes.find(file.node)?.attr())
    }

    fn setattr(&self, file: FileRef, change: &SetAttr, _caller: Caller) -> Result<Attr, Errno> {
        self.change_attributes(file.node, change)
    }

    fn readlink(&self, node: u64) -> Result<Vec<u8>, Errno> {
        match self.inodes.find(node)? {
            Found::Image(..) => self.lower.symlink_target(node).ok_or(Errno::INVAL),
            Found::Own(inode) => match &inode.read().body {
                Body::Symlink(target) => Ok(target.clone()),
                _ => Err(Errno::INVAL),
            },
        }
    }

    fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Entry, Errno> {
        let new = NewFile {
            kind: FileKind::Symlink,
            mode: 0o777,
            rdev: 0,
            caller,
        };
        self.create_name(parent, name, new, target)
    }

    fn make(&self, parent: u64, name: &[u8], new: NewFile) -> Result<Entry, Errno> {
        self.create_name(parent, name, new, &[])
    }

    fn create(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        flags: u32,
    ) -> Result<(Entry, Option<u64>), Errno> {
        let (mut entry, created) = self.create_or_find(parent, name, new, flags & open_flag::EXCL != 0)?;
        if !created && flags & open_flag::TRUNC != 0 {
            let empty = SetAttr {
                size: Some(0),
                mtime: Some(SetTime::Now),
                ..SetAttr::default()
            };
            entry.attr = self.change_attributes(entry.node, &empty)?;
        }
        Ok((entry, None))
    }

    fn tmpfile(&self, parent: u64, new: NewFile, _flags: u32) -> Result<(Entry, Option<u64>), Errno> {
        Ok((self.create_nameless(parent, new)?, None))
    }

    fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        self.remove_name(parent, name, false)
    }

    fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        self.remove_name(parent, name, true)
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

    fn open(&self, _node: u64, _flags: u32, _kill_set_id: bool) -> Result<Opened, Errno> {
        Err(Errno::NOSYS)
    }

    fn opendir(&self, _node: u64) -> Result<u64, Errno> {
        Err(Errno::NOSYS)
    }

    fn release(&self, _handle: u64) {}

    fn read(&self, file: FileRef, offset: u64, out: &mut ReadBuffer<'_>) -> Result<(), Errno> {
        self.read_contents(file.node, offset, out)
    }

    fn write(
        &self,
        file: FileRef,
        offset: u64,
        data: &mut WriteSource<'_>,
        kind: WriteKind,
    ) -> Result<usize, Errno> {
        self.write_contents(file.node, offset, data, kind)
    }

    fn flush(&self, _file: FileRef) -> Result<(), Errno> {
        Ok(())
    }

    /// Nothing in the overlay outlives the virtual machine, so there is nothing to make durable.
    fn fsync(&self, file: FileRef, _data_only: bool) -> Result<(), Errno> {
        self.inodes.find(file.node).map(drop)
    }

    fn syncfs(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn readdir(&self, file: FileRef, cookie: u64, batch: &mut DirectoryBatch) -> Result<(), Errno> {
        let names = read(&self.names);
        let dir = file.node;
        let found = self.inodes.find(dir)?;
        if found.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        if cookie < 1 && !batch.push(b".", dir, FileKind::Directory, 1) {
            return Ok(());
        }
        let parent = names.parent(dir).unwrap_or(dir);
        if cookie < 2 && !batch.push(b"..", parent, FileKind::Directory, 2) {
            return Ok(());
        }
        if !found.is_linked() {
            return Ok(());
        }
        let behind = cookie.max(FIRST_COOKIE - 1);
        match names.own(dir) {
            Some(directory) => {
                for (cookie, entry) in directory.behind(behind) {
                    if !batch.push(&entry.name, entry.ino, entry.kind, cookie) {
                        break;
                    }
                }
            }
            None => {
                let mut next = behind + 1;
                self.lower.children(dir, next - FIRST_COOKIE, &mut |child| {
                    let fits = batch.push(child.name, child.ino, child.kind, next);
                    next += 1;
                    fits
                });
            }
        }
        Ok(())
    }

    fn statfs(&self) -> Result<FileSystemStatus, Errno> {
        let (bytes, inodes) = (&self.store.bytes, &self.store.inodes);
        Ok(FileSystemStatus {
            blocks: bytes.max() / BLOCK,
            blocks_free: bytes.left() / BLOCK,
            blocks_available: bytes.left() / BLOCK,
            files: inodes.max(),
            files_free: inodes.left(),
            block_size: BLOCK_SIZE,
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
        self.change_xattr(node, name, Some(value), flags)
    }

    fn removexattr(&self, node: u64, name: &[u8]) -> Result<(), Errno> {
        self.change_xattr(node, name, None, 0)
    }

    fn fallocate(&self, file: FileRef, offset: u64, len: u64, mode: u32) -> Result<(), Errno> {
        use fallocate_flag::{KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE};
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        let keep_size = mode & KEEP_SIZE != 0;
        match mode & !KEEP_SIZE {
            0 => self.change_contents(file.node, |contents| contents.reserve(offset, end, keep_size)),
            PUNCH_HOLE if keep_size => {
                self.change_contents(file.node, |contents| contents.punch(offset, end))
            }
            ZERO_RANGE => self.change_contents(file.node, |contents| {
                contents.punch(offset, end)?;
                contents.reserve(offset, end, keep_size)
            }),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    fn lseek(&self, file: FileRef, offset: u64, whence: u32) -> Result<u64, Errno> {
        match self.inodes.find(file.node)? {
            Found::Own(inode) => inode.read().contents(inode.kind)?.seek(offset, whence),
            Found::Image(_, node) if node.kind != FileKind::Regular => Err(Errno::INVAL),
            // The contents of an image have no holes but the one behind their end.
            Found::Image(_, node) if offset < node.size => match whence {
                SEEK_DATA => Ok(offset),
                SEEK_HOLE => Ok(node.size),
                _ => Err(Errno::INVAL),
            },
            Found::Image(..) => Err(Errno::NXIO),
        }
    }

    fn copy_file_range(
        &self,
        from: FileRef,
        from_offset: u64,
        to: FileRef,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        self.copy_contents(from.node, from_offset, to.node, to_offset, len)
    }

    fn save(&self, contents: &mut dyn Write) -> Result<Unit, Error> {
        self.save_state(contents)
    }

    fn restore(&self, unit: &Unit, contents: &mut dyn Read) -> Result<(), Error> {
        self.restore_state(unit, contents)
    }
}
