//! The files a guest knows of.
//!
//! A node is a file's identity and a place it was seen at. Its O_PATH descriptor is kept in a cache of bounded
//! size; a node whose descriptor was dropped is opened again by its place, and must then be the same file.

mod saved;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::Errno;

use super::attributes::{attr_of, kind_of};
use super::{open_beneath, status_of};
use crate::attr::{Entry, FileKind};
use crate::protocol::ROOT_ID;
use crate::sync::lock;

pub(super) use self::saved::SavedNodes;

/// Most nodes; a guest that never forgets gets ENOMEM beyond.
const NODES_MAX: usize = 1 << 20;
/// Longest path opened at once, in bytes; a longer one is opened in pieces.
const PATH_PIECE: usize = 2048;

/// What makes a file the same file. The time of birth tells apart files that had one inode number in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    ino: u64,
    born: (i64, u32),
}

impl Identity {
    pub(super) fn of(status: &Statx) -> Self {
        Self {
            device: (status.stx_dev_major, status.stx_dev_minor),
            ino: status.stx_ino,
            born: (status.stx_btime.tv_sec, status.stx_btime.tv_nsec),
        }
    }
}

/// When a file was last changed and how long it was: equal values mean equal contents.
pub(super) type Version = (i64, u32, i64, u32, u64);

struct Node {
    identity: Identity,
    kind: FileKind,
    parent: u64,
    name: Box<[u8]>,
    uses: u64,
    /// Its O_PATH descriptor and when it was last used.
    cached: Option<(Arc<OwnedFd>, u64)>,
    /// The contents the guest may have cached.
    version: Option<Version>,
}

/// All nodes of a share.
pub(super) struct Nodes {
    root: Arc<OwnedFd>,
    root_identity: Identity,
    descriptors_max: usize,
    table: Mutex<Table>,
}

struct Table {
    nodes: HashMap<u64, Node>,
    by_identity: HashMap<Identity, u64>,
    /// Nodes with a descriptor by when it was last used.
    by_age: BTreeMap<u64, u64>,
    clock: u64,
    next: u64,
}

impl Nodes {
    pub(super) fn new(root: OwnedFd, status: &Statx, descriptors_max: usize) -> Self {
        let root_identity = Identity::of(status);
        let table = Table {
            nodes: HashMap::new(),
            by_identity: HashMap::new(),
            by_age: BTreeMap::new(),
            clock: 0,
            next: ROOT_ID + 1,
        };
        Self {
            root: Arc::new(root),
            root_identity,
            descriptors_max,
            table: Mutex::new(table),
        }
    }

    /// Forgets all nodes but the root.
    pub(super) fn clear(&self) {
        let mut table = lock(&self.table);
        table.nodes.clear();
        table.by_identity.clear();
        table.by_age.clear();
    }

    /// The O_PATH descriptor of a node; ENOENT for one the guest made up, ESTALE when the file is no longer
    /// where it was.
    pub(super) fn descriptor(&self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        if id == ROOT_ID {
            return Ok(Arc::clone(&self.root));
        }
        let (identity, path) = {
            let mut table = lock(&self.table);
            if let Some(cached) = table.use_cached(id)? {
                return Ok(cached);
            }
            (
                table.nodes.get(&id).ok_or(Errno::NOENT)?.identity,
                table.path(id)?,
            )
        };
        let fd = self.open_path(&path).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
            error => error,
        })?;
        if Identity::of(&status_of(fd.as_fd())?) != identity {
            return Err(Errno::STALE);
        }
        let fd = Arc::new(fd);
        lock(&self.table).cache(id, &fd, self.descriptors_max);
        Ok(fd)
    }

    /// Opens the names of `path`, the last one first, from the root.
    fn open_path(&self, path: &[Box<[u8]>]) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut names = path.iter().rev().peekable();
        while names.peek().is_some() {
            let mut piece = Vec::new();
            while piece.len() < PATH_PIECE
                && let Some(name) = names.next()
            {
                if !piece.is_empty() {
                    piece.push(b'/');
                }
                piece.extend_from_slice(name);
            }
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(open_beneath(from, &piece, OFlags::PATH, Mode::empty())?);
        }
        at.ok_or(Errno::STALE)
    }

    /// Type of a node.
    pub(super) fn kind(&self, id: u64) -> Result<FileKind, Errno> {
        if id == ROOT_ID {
            return Ok(FileKind::Directory);
        }
        lock(&self.table)
            .nodes
            .get(&id)
            .map(|node| node.kind)
            .ok_or(Errno::NOENT)
    }

    /// The node of the file `fd`, which has `name` in `parent`, with one more use.
    pub(super) fn enter(&self, fd: OwnedFd, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        let status = status_of(fd.as_fd())?;
        let attr = attr_of(&status)?;
        let identity = Identity::of(&status);
        if identity == self.root_identity {
            // A bind mount of the directory into itself.
            return Err(Errno::LOOP);
        }
        let fd = Arc::new(fd);
        let mut table = lock(&self.table);
        let known = table.by_identity.get(&identity).copied();
        let id = match known {
            Some(id) => id,
            None => table.add(identity, attr.kind)?,
        };
        if let Some(node) = table.nodes.get_mut(&id) {
            node.uses = node.uses.saturating_add(1);
            node.parent = parent;
            node.name = name.into();
        }
        table.cache(id, &fd, self.descriptors_max);
        Ok(Entry { node: id, attr })
    }

    pub(super) fn forget(&self, id: u64, count: u64) {
        let mut table = lock(&self.table);
        let Some(node) = table.nodes.get_mut(&id) else {
            return;
        };
        node.uses = node.uses.saturating_sub(count);
        if node.uses == 0 {
            table.remove(id);
        }
    }

    /// Notes that the file `fd`, if the guest knows it, is at `place` now, or at no known place. A file that
    /// has lost its name keeps its descriptor for as long as the cache allows.
    pub(super) fn moved(&self, fd: OwnedFd, place: Option<(u64, &[u8])>) -> Result<(), Errno> {
        let identity = Identity::of(&status_of(fd.as_fd())?);
        let fd = Arc::new(fd);
        let mut table = lock(&self.table);
        let Some(id) = table.by_identity.get(&identity).copied() else {
            return Ok(());
        };
        if let (Some(node), Some((parent, name))) = (table.nodes.get_mut(&id), place) {
            node.parent = parent;
            node.name = name.into();
        }
        table.cache(id, &fd, self.descriptors_max);
        Ok(())
    }

    /// Notes which contents the guest may cache and says whether those it has are still good.
    pub(super) fn same_version(&self, id: u64, version: Version) -> bool {
        let mut table = lock(&self.table);
        let Some(node) = table.nodes.get_mut(&id) else {
            return false;
        };
        node.version.replace(version) == Some(version)
    }
}

impl Table {
    fn add(&mut self, identity: Identity, kind: FileKind) -> Result<u64, Errno> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Errno::NOMEM);
        }
        let id = self.next;
        self.next += 1;
        let node = Node {
            identity,
            kind,
            parent: ROOT_ID,
            name: Box::default(),
            uses: 0,
            cached: None,
            version: None,
        };
        self.nodes.insert(id, node);
        self.by_identity.insert(identity, id);
        Ok(id)
    }

    fn remove(&mut self, id: u64) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.by_identity.remove(&node.identity);
        if let Some((_, age)) = node.cached {
            self.by_age.remove(&age);
        }
    }

    /// The descriptor of a node if it is in the cache, where it is the youngest then.
    fn use_cached(&mut self, id: u64) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::NOENT)?;
        let Some((fd, age)) = &mut node.cached else {
            return Ok(None);
        };
        self.by_age.remove(age);
        self.clock += 1;
        *age = self.clock;
        self.by_age.insert(self.clock, id);
        Ok(Some(Arc::clone(fd)))
    }

    /// Puts a descriptor into the cache, and takes the oldest out when there are too many.
    fn cache(&mut self, id: u64, fd: &Arc<OwnedFd>, max: usize) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        self.clock += 1;
        if let Some((_, age)) = node.cached.replace((Arc::clone(fd), self.clock)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, id);
        while self.by_age.len() > max {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            if let Some(node) = self.nodes.get_mut(&oldest) {
                node.cached = None;
            }
        }
    }

    /// The names that lead to a node, its own first; ESTALE when the guest has forgotten one on the way.
    fn path(&self, id: u64) -> Result<Vec<Box<[u8]>>, Errno> {
        let mut path = Vec::new();
        let mut at = id;
        while at != ROOT_ID {
            // Renames on the host can make a circle of what was true at different times.
            if path.len() > self.nodes.len() {
                return Err(Errno::STALE);
            }
            let node = self.nodes.get(&at).ok_or(Errno::STALE)?;
            path.push(node.name.clone());
            at = node.parent;
        }
        Ok(path)
    }
}

/// Type of the file that `fd` refers to.
pub(super) fn kind_of_descriptor(fd: &OwnedFd) -> Result<FileKind, Errno> {
    kind_of(&status_of(fd.as_fd())?)
}
