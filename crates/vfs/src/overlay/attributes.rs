//! Attributes, ordinary and extended, and the contents of files.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::Overlay;
use super::inode::{Found, Inode, State, no_contents};
use super::slices::{SliceSink, SliceSource};
use crate::attr::{Attr, FileKind, SetAttr, SetTime, Timestamp};
use crate::protocol::{XATTR_CREATE, XATTR_REPLACE, XATTR_SIZE_MAX};
use crate::server::without_set_id;
use crate::transfer::{ReadBuffer, WriteSource};
use crate::tree::WriteKind;

/// Capabilities of a program file, which do not outlive a change of it.
const CAPABILITY: &[u8] = b"security.capability";
/// Largest file in bytes, as `loff_t` has it.
pub(super) const SIZE_MAX: u64 = i64::MAX as u64;
/// Most bytes copied by one COPY_FILE_RANGE, so that no request takes long.
const COPY_MAX: u64 = 64 << 20;
/// Size of the buffer they are copied through.
const COPY_BUFFER: usize = 256 << 10;

impl Overlay {
    pub(super) fn change_attributes(&self, ino: u64, change: &SetAttr) -> Result<Attr, Errno> {
        let inode = self.inodes.change(ino)?;
        {
            let mut state = inode.write();
            if let Some(size) = change.size {
                resize(&inode, &mut state, size, change.kill_set_id)?;
            }
            if change.uid.is_some() || change.gid.is_some() {
                state.uid = change.uid.unwrap_or(state.uid);
                state.gid = change.gid.unwrap_or(state.gid);
                if inode.kind != FileKind::Directory {
                    state.mode = without_set_id(state.mode);
                    drop_capability(&inode, &mut state)?;
                }
            }
            state.mode = change.mode.unwrap_or(state.mode);
            let now = Timestamp::now();
            let time = |set: Option<SetTime>, old| match set {
                Some(SetTime::Now) => now,
                Some(SetTime::To(time)) => time,
                None => old,
            };
            state.atime = time(change.atime, state.atime);
            state.mtime = time(change.mtime, state.mtime);
            state.ctime = change.ctime.unwrap_or(now);
        }
        Ok(inode.attr())
    }

    pub(super) fn read_contents(&self, ino: u64, offset: u64, out: &mut ReadBuffer<'_>) -> Result<(), Errno> {
        match self.inodes.find(ino)? {
            Found::Own(inode) => inode.read().contents(inode.kind)?.read(offset, out),
            Found::Image(_, node) if node.kind != FileKind::Regular => Err(no_contents(node.kind)),
            Found::Image(..) => {
                let content = self
                    .lower
                    .content(ino)
                    .map_err(|error| crate::transfer::errno_of(&error))?;
                let Some(content) = content.filter(|content| offset < content.len) else {
                    return Ok(());
                };
                // No more than a reply holds, so the number fits.
                let len = (content.len - offset).min(out.remaining() as u64) as usize;
                let read = out.fill_from_file(&content.file, content.offset + offset, len)?;
                if read < len { Err(Errno::IO) } else { Ok(()) }
            }
        }
    }

    pub(super) fn write_contents(
        &self,
        ino: u64,
        offset: u64,
        data: &mut WriteSource<'_>,
        kind: WriteKind,
    ) -> Result<usize, Errno> {
        let found = self.inodes.find(ino)?;
        if found.kind() != FileKind::Regular {
            return Err(no_contents(found.kind()));
        }
        if offset
            .checked_add(data.remaining() as u64)
            .is_none_or(|end| end > SIZE_MAX)
        {
            return Err(Errno::FBIG);
        }
        let inode = self.inodes.change(ino)?;
        let mut state = inode.write();
        let written = state.contents_mut(inode.kind)?.write(offset, data)?;
        if written > 0 {
            if kind.kill_set_id {
                state.mode = without_set_id(state.mode);
            }
            drop_capability(&inode, &mut state)?;
            if !kind.from_cache {
                state.touch();
            }
        }
        Ok(written)
    }

    /// Runs `change` on the contents of a regular file.
    pub(super) fn change_contents(
        &self,
        ino: u64,
        change: impl FnOnce(&mut super::contents::Contents) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let inode = self.inodes.change(ino)?;
        let mut state = inode.write();
        change(state.contents_mut(inode.kind)?)?;
        drop_capability(&inode, &mut state)?;
        state.touch();
        Ok(())
    }

    pub(super) fn copy_contents(
        &self,
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let mut buffer = vec![0; COPY_BUFFER.min(usize::try_from(len).unwrap_or(COPY_BUFFER))];
        let len = len.min(COPY_MAX);
        let mut done = 0;
        while done < len {
            let part = buffer
                .len()
                .min(usize::try_from(len - done).unwrap_or(COPY_BUFFER));
            // One file is locked at a time, so that two copies in opposite directions cannot wait for each
            // other.
            let mut sink = SliceSink(&mut buffer[..part]);
            let mut out = ReadBuffer::new(&mut sink, 0, part);
            let copied = self
                .read_contents(from, from_offset + done, &mut out)
                .map(|()| out.filled());
            let written = copied.and_then(|copied| {
                let bytes = SliceSource(&buffer[..copied]);
                self.write_contents(
                    to,
                    to_offset + done,
                    &mut WriteSource::new(&bytes, 0, copied),
                    WriteKind::default(),
                )
            });
            match written {
                Ok(0) => break,
                Ok(written) => done += written as u64,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// All extended attributes of an inode.
    fn xattrs(&self, ino: u64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
        Ok(match self.inodes.find(ino)? {
            Found::Own(inode) => inode.read().xattrs.clone(),
            Found::Image(..) => {
                let mut xattrs = BTreeMap::new();
                self.lower.xattrs(ino, &mut |name, value| {
                    xattrs.insert(name.to_vec(), value.to_vec());
                });
                xattrs
            }
        })
    }

    pub(super) fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        require_xattr_namespace(name)?;
        self.xattrs(ino)?.remove(name).ok_or(Errno::NODATA)
    }

    pub(super) fn xattr_names(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for name in self
            .xattrs(ino)?
            .into_keys()
            .filter(|name| require_xattr_namespace(name).is_ok())
        {
            names.extend_from_slice(&name);
            names.push(0);
        }
        Ok(names)
    }

    pub(super) fn change_xattr(
        &self,
        ino: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result<(), Errno> {
        require_xattr_namespace(name)?;
        let inode = self.inodes.change(ino)?;
        let mut state = inode.write();
        let exists = state.xattrs.contains_key(name);
        if exists && flags & XATTR_CREATE != 0 {
            return Err(Errno::EXIST);
        }
        if !exists && (flags & XATTR_REPLACE != 0 || value.is_none()) {
            return Err(Errno::NODATA);
        }
        // listxattr(2) shows no more than XATTR_LIST_MAX bytes of names; values share the same bound here.
        let others = state.xattrs.iter().filter(|(other, _)| other.as_slice() != name);
        let total: usize = others.map(|(other, value)| other.len() + 1 + value.len()).sum();
        if let Some(value) = value
            && total + name.len() + 1 + value.len() > 2 * XATTR_SIZE_MAX
        {
            return Err(Errno::NOSPC);
        }
        inode.put_xattr(&mut state, name, value)?;
        state.ctime = Timestamp::now();
        Ok(())
    }
}

/// Sets the size of a regular file.
fn resize(inode: &Inode, state: &mut State, size: u64, kill_set_id: bool) -> Result<(), Errno> {
    if size > SIZE_MAX {
        return Err(Errno::FBIG);
    }
    state.contents_mut(inode.kind)?.truncate(size)?;
    if kill_set_id {
        state.mode = without_set_id(state.mode);
    }
    drop_capability(inode, state)?;
    state.mtime = Timestamp::now();
    Ok(())
}

fn drop_capability(inode: &Inode, state: &mut State) -> Result<(), Errno> {
    if state.xattrs.contains_key(CAPABILITY) {
        inode.put_xattr(state, CAPABILITY, None)?;
    }
    Ok(())
}

/// Allows the namespaces of attributes that a file system stores as they are; `system.` is for ACLs, which
/// are not offered.
fn require_xattr_namespace(name: &[u8]) -> Result<(), Errno> {
    let stored = [b"user.".as_slice(), b"trusted.", b"security."];
    let known = stored
        .into_iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    if known { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}
