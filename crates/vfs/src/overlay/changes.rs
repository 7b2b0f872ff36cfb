//! Creating, removing and moving names.
//!
//! Every function first finds out whether all will go well and then changes things, so that an error leaves
//! nothing half done.

use std::sync::Arc;

use rustix::io::Errno;

use super::Overlay;
use super::inode::{Inode, NewInode};
use super::names::{Names, Target, name_cost};
use crate::attr::{Entry, FileKind, Timestamp};
use crate::protocol::{ROOT_ID, S_ISGID, rename_flag};
use crate::sync::write;
use crate::tree::{Caller, NewFile};

/// Most names of one file, as ext4 has it.
const LINK_MAX: u32 = 65000;

impl Overlay {
    /// Creates a file of any type; EEXIST when the name is taken.
    pub(super) fn create_name(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        target: &[u8],
    ) -> Result<Entry, Errno> {
        let mut names = write(&self.names);
        self.require_directory(parent)?;
        if names.find(parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        self.add_name(&mut names, parent, name, new, target)
    }

    /// Creates a file under a name that is known to be free, in a directory that exists.
    fn add_name(
        &self,
        names: &mut Names,
        parent: u64,
        name: &[u8],
        new: NewFile,
        target: &[u8],
    ) -> Result<Entry, Errno> {
        let directory = self.inodes.change(parent)?;
        let inode = self.new_inode(&directory, new, target)?;
        self.store.bytes.charge(name_cost(name))?;
        names.change(parent).put(
            name,
            Target {
                ino: inode.ino,
                kind: new.kind,
            },
        );
        if new.kind == FileKind::Directory {
            names.add_directory(inode.ino, parent);
        }
        self.inodes.add(&inode);
        let mut state = directory.write();
        state.touch();
        if new.kind == FileKind::Directory {
            state.nlink = state.nlink.saturating_add(1);
        }
        drop(state);
        self.entry(inode.ino)
    }

    /// A new inode with the owner that Linux gives it (`inode_init_owner`): in a directory with the
    /// set-group-ID bit the group is the directory's, and directories get the bit too.
    fn new_inode(&self, directory: &Inode, new: NewFile, target: &[u8]) -> Result<Arc<Inode>, Errno> {
        let Caller { uid, mut gid } = new.caller;
        let mut mode = new.mode;
        {
            let state = directory.read();
            if state.mode & S_ISGID != 0 {
                gid = state.gid;
                if new.kind == FileKind::Directory {
                    mode |= S_ISGID;
                }
            }
        }
        let (kind, rdev, target) = (new.kind, new.rdev, target.to_vec());
        Inode::create(
            self.new_ino(),
            NewInode {
                kind,
                mode,
                uid,
                gid,
                rdev,
                target,
            },
            &self.store,
        )
    }

    /// Creates a regular file unless the name is taken, and says whether it did.
    pub(super) fn create_or_find(
        &self,
        parent: u64,
        name: &[u8],
        new: NewFile,
        exclusive: bool,
    ) -> Result<(Entry, bool), Errno> {
        let mut names = write(&self.names);
        self.require_directory(parent)?;
        match names.find(parent, name) {
            None => Ok((self.add_name(&mut names, parent, name, new, &[])?, true)),
            Some(_) if exclusive => Err(Errno::EXIST),
            Some(Target {
                kind: FileKind::Directory,
                ..
            }) => Err(Errno::ISDIR),
            Some(Target {
                kind: FileKind::Symlink,
                ..
            }) => Err(Errno::LOOP),
            Some(found) => Ok((self.entry(found.ino)?, false)),
        }
    }

    /// Creates a file without a name.
    pub(super) fn create_nameless(&self, parent: u64, new: NewFile) -> Result<Entry, Errno> {
        self.require_directory(parent)?;
        let directory = self.inodes.change(parent)?;
        let inode = self.new_inode(&directory, new, &[])?;
        inode.write().nlink = 0;
        let attr = inode.attr();
        self.inodes.count_use(inode.ino);
        self.inodes.add(&inode);
        Ok(Entry {
            node: inode.ino,
            attr,
        })
    }

    pub(super) fn remove_name(&self, parent: u64, name: &[u8], directory: bool) -> Result<(), Errno> {
        let mut names = write(&self.names);
        self.require_directory(parent)?;
        let found = names.find(parent, name).ok_or(Errno::NOENT)?;
        match (found.kind == FileKind::Directory, directory) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !names.is_empty(found.ino) => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        let holder = self.inodes.change(parent)?;
        let inode = self.inodes.change(found.ino)?;
        names.change(parent).remove(name);
        holder.write().touch();
        self.drop_link(&mut names, &holder, &inode);
        drop(names);
        drop(inode);
        self.inodes.collect(found.ino);
        Ok(())
    }

    /// Takes a name off `inode`, which was in `holder`.
    fn drop_link(&self, names: &mut Names, holder: &Inode, inode: &Inode) {
        if inode.kind == FileKind::Directory {
            names.remove_directory(inode.ino);
            let mut state = holder.write();
            state.nlink = state.nlink.saturating_sub(1);
        }
        let mut state = inode.write();
        state.nlink = if inode.kind == FileKind::Directory {
            0
        } else {
            state.nlink.saturating_sub(1)
        };
        state.ctime = Timestamp::now();
    }

    pub(super) fn add_link(&self, node: u64, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        let mut names = write(&self.names);
        self.require_directory(parent)?;
        if names.find(parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        let found = self.inodes.find(node)?;
        if found.kind() == FileKind::Directory {
            return Err(Errno::PERM);
        }
        if found.attr().nlink >= LINK_MAX {
            return Err(Errno::MLINK);
        }
        let inode = self.inodes.change(node)?;
        let holder = self.inodes.change(parent)?;
        self.store.bytes.charge(name_cost(name))?;
        names.change(parent).put(
            name,
            Target {
                ino: node,
                kind: inode.kind,
            },
        );
        {
            let mut state = inode.write();
            state.nlink += 1;
            state.ctime = Timestamp::now();
        }
        holder.write().touch();
        self.entry(node)
    }

    pub(super) fn move_name(
        &self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let mut names = write(&self.names);
        self.require_directory(parent)?;
        self.require_directory(new_parent)?;
        let moved = names.find(parent, name).ok_or(Errno::NOENT)?;
        let present = names.find(new_parent, new_name);
        let (from, to) = (
            Place { dir: parent, name },
            Place {
                dir: new_parent,
                name: new_name,
            },
        );
        if flags == rename_flag::EXCHANGE {
            let present = present.ok_or(Errno::NOENT)?;
            return self.exchange(&mut names, (from, moved), (to, present));
        }
        if flags == rename_flag::NOREPLACE && present.is_some() {
            return Err(Errno::EXIST);
        }
        if moved.kind == FileKind::Directory && names.is_within(new_parent, moved.ino, ROOT_ID) {
            return Err(Errno::INVAL);
        }
        if let Some(present) = present {
            // Two names of one file: rename(2) leaves both.
            if present.ino == moved.ino {
                return Ok(());
            }
            match (
                moved.kind == FileKind::Directory,
                present.kind == FileKind::Directory,
            ) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !names.is_empty(present.ino) => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        self.replace(&mut names, (from, moved), (to, present))?;
        drop(names);
        if let Some(present) = present {
            self.inodes.collect(present.ino);
        }
        Ok(())
    }

    /// Moves a name to where nothing is or what may be replaced.
    fn replace(
        &self,
        names: &mut Names,
        (from, moved): (Place<'_>, Target),
        (to, present): (Place<'_>, Option<Target>),
    ) -> Result<(), Errno> {
        let holder = self.inodes.change(from.dir)?;
        let new_holder = self.inodes.change(to.dir)?;
        let inode = self.inodes.change(moved.ino)?;
        let replaced = present
            .map(|present| self.inodes.change(present.ino))
            .transpose()?;
        if replaced.is_none() {
            // The old name gives back about as much; the names of a full file system can still be changed.
            self.store.bytes.charge_always(name_cost(to.name));
        }
        names.change(to.dir).put(to.name, moved);
        names.change(from.dir).remove(from.name);
        if let Some(replaced) = &replaced {
            self.drop_link(names, &new_holder, replaced);
        }
        if moved.kind == FileKind::Directory {
            move_directory(names, moved.ino, &holder, &new_holder);
        }
        touch_all(&[&holder, &new_holder], &[&inode]);
        Ok(())
    }

    fn exchange(
        &self,
        names: &mut Names,
        (from, moved): (Place<'_>, Target),
        (to, present): (Place<'_>, Target),
    ) -> Result<(), Errno> {
        let into_itself =
            |what: Target, dir| what.kind == FileKind::Directory && names.is_within(dir, what.ino, ROOT_ID);
        if into_itself(moved, to.dir) || into_itself(present, from.dir) {
            return Err(Errno::INVAL);
        }
        if moved.ino == present.ino {
            return Ok(());
        }
        let holder = self.inodes.change(from.dir)?;
        let new_holder = self.inodes.change(to.dir)?;
        let inodes = [self.inodes.change(moved.ino)?, self.inodes.change(present.ino)?];
        names.change(from.dir).put(from.name, present);
        names.change(to.dir).put(to.name, moved);
        if moved.kind == FileKind::Directory {
            move_directory(names, moved.ino, &holder, &new_holder);
        }
        if present.kind == FileKind::Directory {
            move_directory(names, present.ino, &new_holder, &holder);
        }
        touch_all(&[&holder, &new_holder], &[&inodes[0], &inodes[1]]);
        Ok(())
    }
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: u64,
    name: &'a [u8],
}

/// Notes that directory `ino` has moved; its `..` is a name of the directory it is in.
fn move_directory(names: &mut Names, ino: u64, from: &Inode, to: &Inode) {
    names.set_parent(ino, to.ino);
    if from.ino != to.ino {
        let mut state = from.write();
        state.nlink = state.nlink.saturating_sub(1);
        drop(state);
        let mut state = to.write();
        state.nlink = state.nlink.saturating_add(1);
    }
}

/// Notes that entries of `directories` have changed and that `moved` have moved.
fn touch_all(directories: &[&Inode], moved: &[&Inode]) {
    for directory in directories {
        directory.write().touch();
    }
    for inode in moved {
        inode.write().ctime = Timestamp::now();
    }
}
