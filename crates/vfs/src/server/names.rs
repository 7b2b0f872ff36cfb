//! Requests about names and attributes.

use std::time::Duration;

use rustix::io::Errno;

use super::Server;
use super::call::Call;
use crate::attr::{Attr, Entry, FileKind, SetAttr, SetTime, Timestamp, device_parts};
use crate::protocol::{
    AttrOut, CreateIn, EntryOut, GETATTR_FH, GetattrIn, LinkIn, MkdirIn, MknodIn, OPEN_KILL_SUIDGID, OpenOut,
    PERMISSION_BITS, Rename2In, RenameIn, S_ISGID, S_ISUID, S_IXGRP, STATX_BASIC_STATS, STATX_BTIME,
    SetattrIn, StatxIn, StatxOut, StatxTime, rename_flag, setattr_flag,
};
use crate::protocol::{FOPEN_KEEP_CACHE, open_flag};
use crate::tree::{FileRef, NewFile};

impl Server {
    /// The wire form of an entry with what the guest may remember.
    pub(super) fn entry_out(&self, entry: &Entry) -> EntryOut {
        let names = self.tree.cache_policy().entry;
        let attributes = self.attr_validity(&entry.attr);
        EntryOut {
            nodeid: entry.node,
            generation: 0,
            entry_valid: names.as_secs(),
            attr_valid: attributes.as_secs(),
            entry_valid_nsec: names.subsec_nanos(),
            attr_valid_nsec: attributes.subsec_nanos(),
            attr: entry.attr.to_wire(),
        }
    }

    /// How long the guest may use attributes. With FUSE_HANDLE_KILLPRIV_V2 a write takes set-id bits away
    /// here, and Linux does not ask for the new mode before the old one expires: it would run the file with
    /// rights it has no more. So files with such bits are asked for every time.
    fn attr_validity(&self, attr: &Attr) -> Duration {
        let set_id = attr.kind == FileKind::Regular && attr.mode & (S_ISUID | S_ISGID) != 0;
        if set_id {
            Duration::ZERO
        } else {
            self.tree.cache_policy().attr
        }
    }

    fn reply_attr(&self, call: &mut Call<'_>, attr: &Attr) -> Result<usize, Errno> {
        let valid = self.attr_validity(attr);
        call.reply(&AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: attr.to_wire(),
        })
    }

    pub(super) fn lookup(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let name = call.arguments().text()?.name()?;
        call.require_space::<EntryOut>()?;
        match self.tree.lookup(call.node(), &name) {
            Ok(entry) => call.reply(&self.entry_out(&entry)),
            Err(Errno::NOENT) => {
                let absent = self.tree.cache_policy().absent;
                if absent.is_zero() {
                    return Err(Errno::NOENT);
                }
                // Node id 0 says that the name does not exist and may be remembered so.
                call.reply(&EntryOut {
                    entry_valid: absent.as_secs(),
                    entry_valid_nsec: absent.subsec_nanos(),
                    ..EntryOut::default()
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn getattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: GetattrIn = call.arguments().take()?;
        let handle = (asked.getattr_flags & GETATTR_FH != 0).then_some(asked.fh);
        let attr = self.tree.getattr(FileRef {
            node: call.node(),
            handle,
        })?;
        self.reply_attr(call, &attr)
    }

    pub(super) fn statx(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: StatxIn = call.arguments().take()?;
        let handle = (asked.getattr_flags & GETATTR_FH != 0).then_some(asked.fh);
        let attr = self.tree.getattr(FileRef {
            node: call.node(),
            handle,
        })?;
        let valid = self.attr_validity(&attr);
        call.reply(&statx_out(&attr, valid))
    }

    pub(super) fn setattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: SetattrIn = call.arguments().take()?;
        let handle = (asked.valid & setattr_flag::FH != 0).then_some(asked.fh);
        let change = set_attr(&asked)?;
        let file = FileRef {
            node: call.node(),
            handle,
        };
        let attr = self.tree.setattr(file, &change, call.caller())?;
        self.reply_attr(call, &attr)
    }

    pub(super) fn readlink(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let target = self.tree.readlink(call.node())?;
        call.reply_bytes(&target)
    }

    pub(super) fn symlink(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut text = call.arguments().text()?;
        let name = text.name()?;
        let target = text.target()?;
        call.require_space::<EntryOut>()?;
        let entry = self.tree.symlink(call.node(), &name, &target, call.caller())?;
        call.reply(&self.entry_out(&entry))
    }

    pub(super) fn mknod(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: MknodIn = arguments.take()?;
        let name = arguments.text()?.name()?;
        let kind = FileKind::from_mode(asked.mode).ok_or(Errno::INVAL)?;
        if matches!(kind, FileKind::Directory | FileKind::Symlink) {
            return Err(Errno::INVAL);
        }
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let rdev = if device { asked.rdev } else { 0 };
        self.make(call, &name, kind, asked.mode, rdev)
    }

    pub(super) fn mkdir(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: MkdirIn = arguments.take()?;
        let name = arguments.text()?.name()?;
        self.make(call, &name, FileKind::Directory, asked.mode, 0)
    }

    fn make(
        &self,
        call: &mut Call<'_>,
        name: &[u8],
        kind: FileKind,
        mode: u32,
        rdev: u32,
    ) -> Result<usize, Errno> {
        call.require_space::<EntryOut>()?;
        let new = NewFile {
            kind,
            mode: mode & PERMISSION_BITS,
            rdev,
            caller: call.caller(),
        };
        let entry = self.tree.make(call.node(), name, new)?;
        call.reply(&self.entry_out(&entry))
    }

    pub(super) fn create(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: CreateIn = arguments.take()?;
        let name = arguments.text()?.name()?;
        call.require_space::<(EntryOut, OpenOut)>()?;
        let created = self
            .tree
            .create(call.node(), &name, new_regular(call, &asked), asked.flags)?;
        self.reply_created(call, created)
    }

    pub(super) fn tmpfile(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: CreateIn = call.arguments().take()?;
        call.require_space::<(EntryOut, OpenOut)>()?;
        let created = self
            .tree
            .tmpfile(call.node(), new_regular(call, &asked), asked.flags)?;
        self.reply_created(call, created)
    }

    fn reply_created(&self, call: &mut Call<'_>, created: (Entry, Option<u64>)) -> Result<usize, Errno> {
        let (entry, handle) = created;
        let end = call.reply(&self.entry_out(&entry))?;
        let opened = OpenOut {
            fh: handle.unwrap_or(0),
            open_flags: FOPEN_KEEP_CACHE,
            padding: 0,
        };
        call.reply_at(end, zerocopy::IntoBytes::as_bytes(&opened))
    }

    pub(super) fn unlink(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let name = call.arguments().text()?.name()?;
        self.tree.unlink(call.node(), &name).map(|()| 0)
    }

    pub(super) fn rmdir(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let name = call.arguments().text()?.name()?;
        self.tree.rmdir(call.node(), &name).map(|()| 0)
    }

    pub(super) fn rename(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: RenameIn = arguments.take()?;
        let mut text = arguments.text()?;
        let (name, new_name) = (text.name()?, text.name()?);
        self.tree
            .rename(call.node(), &name, asked.newdir, &new_name, 0)
            .map(|()| 0)
    }

    pub(super) fn rename2(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: Rename2In = arguments.take()?;
        let mut text = arguments.text()?;
        let (name, new_name) = (text.name()?, text.name()?);
        // RENAME_WHITEOUT is for overlayfs stacked on this file system and is not offered.
        if !matches!(asked.flags, 0 | rename_flag::NOREPLACE | rename_flag::EXCHANGE) {
            return Err(Errno::INVAL);
        }
        self.tree
            .rename(call.node(), &name, asked.newdir, &new_name, asked.flags)
            .map(|()| 0)
    }

    pub(super) fn link(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: LinkIn = arguments.take()?;
        let name = arguments.text()?.name()?;
        call.require_space::<EntryOut>()?;
        let entry = self.tree.link(asked.oldnodeid, call.node(), &name)?;
        call.reply(&self.entry_out(&entry))
    }
}

/// The regular file that CREATE or TMPFILE asks for. A caller that may not keep set-id bits cannot make a
/// file that the same request would have to strip of them again.
fn new_regular(call: &Call<'_>, asked: &CreateIn) -> NewFile {
    let mut mode = asked.mode & PERMISSION_BITS;
    if asked.open_flags & OPEN_KILL_SUIDGID != 0 && asked.flags & open_flag::TRUNC != 0 {
        mode = without_set_id(mode);
    }
    NewFile {
        kind: FileKind::Regular,
        mode,
        rdev: 0,
        caller: call.caller(),
    }
}

/// `mode` without set-user-ID, and without set-group-ID where the group may execute (FUSE_HANDLE_KILLPRIV_V2).
pub(crate) fn without_set_id(mode: u32) -> u32 {
    let group = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    mode & !(S_ISUID | group)
}

fn set_attr(asked: &SetattrIn) -> Result<SetAttr, Errno> {
    let has = |flag| asked.valid & flag != 0;
    let time = |seconds: u64, nanoseconds: u32| {
        let valid = nanoseconds < 1_000_000_000;
        // The bits of a signed number of seconds.
        valid
            .then_some(Timestamp {
                seconds: seconds as i64,
                nanoseconds,
            })
            .ok_or(Errno::INVAL)
    };
    let set_time = |to: u32, now: u32, seconds, nanoseconds| {
        Ok(match (has(now), has(to)) {
            (true, _) => Some(SetTime::Now),
            (false, true) => Some(SetTime::To(time(seconds, nanoseconds)?)),
            (false, false) => None,
        })
    };
    Ok(SetAttr {
        mode: has(setattr_flag::MODE).then_some(asked.mode & PERMISSION_BITS),
        uid: has(setattr_flag::UID).then_some(asked.uid),
        gid: has(setattr_flag::GID).then_some(asked.gid),
        size: has(setattr_flag::SIZE).then_some(asked.size),
        atime: set_time(
            setattr_flag::ATIME,
            setattr_flag::ATIME_NOW,
            asked.atime,
            asked.atimensec,
        )?,
        mtime: set_time(
            setattr_flag::MTIME,
            setattr_flag::MTIME_NOW,
            asked.mtime,
            asked.mtimensec,
        )?,
        ctime: match has(setattr_flag::CTIME) {
            true => Some(time(asked.ctime, asked.ctimensec)?),
            false => None,
        },
        kill_set_id: has(setattr_flag::KILL_SUIDGID),
    })
}

fn statx_out(attr: &Attr, valid: Duration) -> StatxOut {
    let time = |at: Timestamp| StatxTime {
        seconds: at.seconds,
        nanoseconds: at.nanoseconds,
        reserved: 0,
    };
    let wire = attr.to_wire();
    let (rdev_major, rdev_minor) = device_parts(attr.rdev);
    StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        mask: STATX_BASIC_STATS | if attr.btime.is_some() { STATX_BTIME } else { 0 },
        blksize: wire.blksize,
        nlink: wire.nlink,
        uid: wire.uid,
        gid: wire.gid,
        // All bits of a mode lie in its low 16.
        mode: wire.mode as u16,
        ino: wire.ino,
        size: wire.size,
        blocks: wire.blocks,
        atime: time(attr.atime),
        btime: time(attr.btime.unwrap_or_default()),
        ctime: time(attr.ctime),
        mtime: time(attr.mtime),
        rdev_major,
        rdev_minor,
        ..StatxOut::default()
    }
}
