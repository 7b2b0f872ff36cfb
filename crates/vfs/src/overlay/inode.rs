//! Inodes the overlay has of its own, and the table of them.
//!
//! An inode of the image is copied here, without its contents, when something about it changes. It keeps its
//! number, so that hard links stay one file and what the guest has open stays valid.

mod saved;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};

use rustix::io::Errno;

use super::contents::Contents;
use super::store::Store;
use crate::attr::{Attr, BLOCK_SIZE, FileKind, Timestamp};
use crate::protocol::PERMISSION_BITS;
use crate::read_only::{Node, ReadOnlyTree};
use crate::sync::{lock, read, write};

pub(super) use self::saved::SavedInodes;

/// What one inode costs besides its texts, in bytes of the guest's budget: about what it takes of memory.
const INODE_COST: u64 = 256;
/// Parts of the table with locks of their own.
const SHARDS: usize = 16;

/// An inode of the overlay's own.
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) kind: FileKind,
    state: RwLock<State>,
    store: Arc<Store>,
}

/// What changes about an inode.
pub(super) struct State {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) nlink: u32,
    pub(super) atime: Timestamp,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) btime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) body: Body,
    /// Bytes of budget that texts and attributes of this inode use.
    charged: u64,
}

/// What an inode holds.
pub(super) enum Body {
    File(Contents),
    Symlink(Vec<u8>),
    /// Directories (their entries are in [`super::names::Names`]) and special files.
    Nothing,
}

impl State {
    fn new(mode: u32, uid: u32, gid: u32, body: Body) -> Self {
        let now = Timestamp::now();
        Self {
            mode,
            uid,
            gid,
            rdev: 0,
            nlink: 1,
            atime: now,
            mtime: now,
            ctime: now,
            btime: Some(now),
            xattrs: BTreeMap::new(),
            body,
            charged: INODE_COST,
        }
    }

    /// Notes a change of the contents.
    pub(super) fn touch(&mut self) {
        let now = Timestamp::now();
        self.mtime = now;
        self.ctime = now;
    }

    /// The contents of a regular file; EISDIR or EINVAL for another type.
    pub(super) fn contents(&self, kind: FileKind) -> Result<&Contents, Errno> {
        match &self.body {
            Body::File(contents) => Ok(contents),
            _ => Err(no_contents(kind)),
        }
    }

    /// The same, to change.
    pub(super) fn contents_mut(&mut self, kind: FileKind) -> Result<&mut Contents, Errno> {
        match &mut self.body {
            Body::File(contents) => Ok(contents),
            _ => Err(no_contents(kind)),
        }
    }
}

/// The error of reading or writing a file that is not regular.
pub(super) fn no_contents(kind: FileKind) -> Errno {
    if kind == FileKind::Directory {
        Errno::ISDIR
    } else {
        Errno::INVAL
    }
}

/// What a new inode is made of.
pub(super) struct NewInode {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    /// Target of a symbolic link.
    pub(super) target: Vec<u8>,
}

impl Inode {
    /// An inode that was not in the image.
    pub(super) fn create(ino: u64, new: NewInode, store: &Arc<Store>) -> Result<Arc<Self>, Errno> {
        let charged = INODE_COST + new.target.len() as u64;
        store.inodes.charge(1)?;
        if let Err(error) = store.bytes.charge(charged) {
            store.inodes.refund(1);
            return Err(error);
        }
        let body = match new.kind {
            FileKind::Regular => Body::File(Contents::new(Arc::clone(store), None)),
            FileKind::Symlink => Body::Symlink(new.target),
            _ => Body::Nothing,
        };
        let nlink = if new.kind == FileKind::Directory { 2 } else { 1 };
        let state = State {
            rdev: new.rdev,
            nlink,
            charged,
            ..State::new(new.mode, new.uid, new.gid, body)
        };
        Ok(Arc::new(Self {
            ino,
            kind: new.kind,
            state: RwLock::new(state),
            store: Arc::clone(store),
        }))
    }

    /// The copy of an inode of the image. Costs of it are bounded by the image and never refused.
    fn from_image(
        ino: u64,
        node: &Node,
        lower: &dyn ReadOnlyTree,
        store: &Arc<Store>,
    ) -> Result<Arc<Self>, Errno> {
        let body = match node.kind {
            FileKind::Regular => {
                let content = lower
                    .content(ino)
                    .map_err(|error| crate::transfer::errno_of(&error))?;
                Body::File(Contents::new(Arc::clone(store), content))
            }
            FileKind::Symlink => Body::Symlink(lower.symlink_target(ino).ok_or(Errno::IO)?),
            _ => Body::Nothing,
        };
        let mut xattrs = BTreeMap::new();
        lower.xattrs(ino, &mut |name, value| {
            xattrs.insert(name.to_vec(), value.to_vec());
        });
        let texts: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let charged = INODE_COST + texts as u64;
        store.inodes.charge_always(1);
        store.bytes.charge_always(charged);
        let time = Timestamp {
            seconds: node.mtime_s,
            nanoseconds: node.mtime_ns,
        };
        let state = State {
            rdev: node.rdev,
            nlink: node.nlink,
            atime: time,
            mtime: time,
            ctime: time,
            btime: None,
            xattrs,
            charged,
            ..State::new(node.mode & PERMISSION_BITS, node.uid, node.gid, body)
        };
        Ok(Arc::new(Self {
            ino,
            kind: node.kind,
            state: RwLock::new(state),
            store: Arc::clone(store),
        }))
    }

    pub(super) fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    pub(super) fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        write(&self.state)
    }

    pub(super) fn attr(&self) -> Attr {
        let state = self.read();
        let (size, blocks) = match &state.body {
            Body::File(contents) => (contents.size(), contents.sectors()),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Nothing => directory_size(self.kind),
        };
        Attr {
            ino: self.ino,
            kind: self.kind,
            mode: state.mode,
            nlink: state.nlink,
            uid: state.uid,
            gid: state.gid,
            rdev: state.rdev,
            size,
            blocks,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: state.btime,
        }
    }

    /// Replaces (`Some`) or removes (`None`) an extended attribute within the budget.
    pub(super) fn put_xattr(
        &self,
        state: &mut State,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Errno> {
        let old = state
            .xattrs
            .get(name)
            .map_or(0, |old| (name.len() + old.len()) as u64);
        let new = value.map_or(0, |value| (name.len() + value.len()) as u64);
        if new > old {
            self.store.bytes.charge(new - old)?;
        } else {
            self.store.bytes.refund(old - new);
        }
        state.charged = state.charged + new - old;
        match value {
            Some(value) => state.xattrs.insert(name.to_vec(), value.to_vec()),
            None => state.xattrs.remove(name),
        };
        Ok(())
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.store.bytes.refund(self.read().charged);
        self.store.inodes.refund(1);
    }
}

/// Size and sectors of a directory (one block, as on ext4) or special file.
fn directory_size(kind: FileKind) -> (u64, u64) {
    if kind == FileKind::Directory {
        (u64::from(BLOCK_SIZE), u64::from(BLOCK_SIZE) / 512)
    } else {
        (0, 0)
    }
}

/// Attributes of an inode as it is in the image.
fn image_attr(ino: u64, node: &Node) -> Attr {
    let (size, blocks) = match node.kind {
        FileKind::Regular => (
            node.size,
            node.size.div_ceil(u64::from(BLOCK_SIZE)) * (u64::from(BLOCK_SIZE) / 512),
        ),
        FileKind::Symlink => (node.size, 0),
        kind => directory_size(kind),
    };
    let time = Timestamp {
        seconds: node.mtime_s,
        nanoseconds: node.mtime_ns,
    };
    Attr {
        ino,
        kind: node.kind,
        mode: node.mode & PERMISSION_BITS,
        nlink: node.nlink,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        size,
        blocks,
        atime: time,
        mtime: time,
        ctime: time,
        btime: None,
    }
}

/// An inode as it is at present.
pub(super) enum Found {
    Image(u64, Node),
    Own(Arc<Inode>),
}

impl Found {
    pub(super) fn kind(&self) -> FileKind {
        match self {
            Self::Image(_, node) => node.kind,
            Self::Own(inode) => inode.kind,
        }
    }

    pub(super) fn attr(&self) -> Attr {
        match self {
            Self::Image(ino, node) => image_attr(*ino, node),
            Self::Own(inode) => inode.attr(),
        }
    }

    /// Whether names lead to it.
    pub(super) fn is_linked(&self) -> bool {
        match self {
            Self::Image(..) => true,
            Self::Own(inode) => inode.read().nlink > 0,
        }
    }
}

/// The inodes that differ from the image, and how often the guest uses each inode.
///
/// Locks are taken in this order: `uses`, then `own`, then an inode's own.
pub(super) struct InodeTable {
    lower: Arc<dyn ReadOnlyTree>,
    store: Arc<Store>,
    own: [RwLock<Shard>; SHARDS],
    uses: [Mutex<HashMap<u64, u64>>; SHARDS],
}

#[derive(Default)]
struct Shard {
    inodes: HashMap<u64, Arc<Inode>>,
    /// Inodes of the image that exist no more.
    gone: HashSet<u64>,
}

impl InodeTable {
    pub(super) fn new(lower: Arc<dyn ReadOnlyTree>, store: Arc<Store>) -> Self {
        Self {
            lower,
            store,
            own: Default::default(),
            uses: Default::default(),
        }
    }

    fn shard(&self, ino: u64) -> &RwLock<Shard> {
        &self.own[ino as usize % SHARDS]
    }

    /// Inode `ino`; ENOENT when there is none.
    pub(super) fn find(&self, ino: u64) -> Result<Found, Errno> {
        {
            let shard = read(self.shard(ino));
            if let Some(inode) = shard.inodes.get(&ino) {
                return Ok(Found::Own(Arc::clone(inode)));
            }
            if shard.gone.contains(&ino) {
                return Err(Errno::NOENT);
            }
        }
        self.lower
            .node(ino)
            .map(|node| Found::Image(ino, node))
            .ok_or(Errno::NOENT)
    }

    /// Inode `ino` to change: of the overlay's own from now on.
    pub(super) fn change(&self, ino: u64) -> Result<Arc<Inode>, Errno> {
        let node = match self.find(ino)? {
            Found::Own(inode) => return Ok(inode),
            Found::Image(_, node) => node,
        };
        let copy = Inode::from_image(ino, &node, &*self.lower, &self.store)?;
        let mut shard = write(self.shard(ino));
        if shard.gone.contains(&ino) {
            return Err(Errno::NOENT);
        }
        // Another thread may have been first; its copy counts.
        Ok(Arc::clone(shard.inodes.entry(ino).or_insert(copy)))
    }

    /// Adds a new inode.
    pub(super) fn add(&self, inode: &Arc<Inode>) {
        write(self.shard(inode.ino))
            .inodes
            .insert(inode.ino, Arc::clone(inode));
    }

    /// Counts one more use by the guest.
    pub(super) fn count_use(&self, ino: u64) {
        let mut uses = lock(&self.uses[ino as usize % SHARDS]);
        let count = uses.entry(ino).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Takes uses back and removes the inode when nothing leads to it any more.
    pub(super) fn forget(&self, ino: u64, count: u64) {
        let mut uses = lock(&self.uses[ino as usize % SHARDS]);
        let Some(present) = uses.get_mut(&ino) else { return };
        *present = present.saturating_sub(count);
        if *present == 0 {
            uses.remove(&ino);
            self.remove_unlinked(ino);
        }
    }

    /// Removes the inode if it has neither names nor uses.
    pub(super) fn collect(&self, ino: u64) {
        let uses = lock(&self.uses[ino as usize % SHARDS]);
        if !uses.contains_key(&ino) {
            self.remove_unlinked(ino);
        }
    }

    /// Takes all uses of all inodes back.
    pub(super) fn forget_all(&self) {
        for uses in &self.uses {
            let mut uses = lock(uses);
            for (ino, _) in uses.drain() {
                self.remove_unlinked(ino);
            }
        }
    }

    fn remove_unlinked(&self, ino: u64) {
        let mut shard = write(self.shard(ino));
        if shard.inodes.get(&ino).is_none_or(|inode| inode.read().nlink > 0) {
            return;
        }
        let removed = shard.inodes.remove(&ino);
        if ino <= self.lower.max_inode() {
            shard.gone.insert(ino);
        }
        // The contents are given back without the lock.
        drop(shard);
        drop(removed);
    }
}
