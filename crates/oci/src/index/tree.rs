//! The tree in memory to which layers are applied, as unpacking them one over the other would.

use std::collections::BTreeMap;

use super::NodeKind;
use crate::layer::entries::{Change, Record};
use crate::layer::tar::EntryType;

/// Symbolic links followed on the way to one entry's directory, as Linux does.
const MAX_LINKS: u32 = 40;
/// Depth of directories. Links in parent paths could otherwise build trees of any depth.
const MAX_DEPTH: u32 = 2048;

pub(super) type NodeId = usize;

/// A file being assembled.
#[derive(Debug)]
pub(super) struct TreeNode<'a> {
    pub(super) kind: NodeKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) rdev: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
    /// Layer whose contents file has the bytes.
    pub(super) layer: u32,
    pub(super) link: &'a [u8],
    pub(super) xattrs: &'a [u8],
    pub(super) children: BTreeMap<&'a [u8], TreeDirent>,
    parent: NodeId,
    depth: u32,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreeDirent {
    pub(super) node: NodeId,
    /// The layer that put it there; whiteouts leave those of their own layer alone.
    layer: u32,
}

/// All files by number; the root is 0. Files that lost their last name stay, unreachable.
pub(super) struct Tree<'a> {
    pub(super) nodes: Vec<TreeNode<'a>>,
    layer: u32,
    /// Lookups left before the image is refused: links in links and whiteouts of long directories multiply.
    steps: u64,
    /// The directory entries were last put into, by path: they come in runs.
    last: Option<(&'a [u8], NodeId)>,
}

impl<'a> Tree<'a> {
    /// An empty tree that may be looked into `steps` times.
    pub(super) fn new(steps: u64) -> Tree<'a> {
        let root = TreeNode::implicit_directory(0, 0);
        Tree {
            nodes: vec![root],
            layer: 0,
            steps,
            last: None,
        }
    }

    /// All further changes are of layer number `layer`.
    pub(super) fn begin_layer(&mut self, layer: u32) {
        self.layer = layer;
        self.last = None;
    }

    /// Applies one change. An error is a reason to refuse the layer.
    pub(super) fn apply(&mut self, record: &Record<'a>) -> Result<(), &'static str> {
        if record.change == Change::Opaque {
            return self.apply_opaque(record.path);
        }
        if record.path.is_empty() {
            return self.apply_root(record);
        }
        let (parent, name) = split(record.path);
        match record.change {
            Change::Whiteout => {
                if let Some(dir) = self.directory(parent, false)? {
                    self.purge(dir, name)?;
                    self.last = None;
                }
                Ok(())
            }
            Change::Add(kind) => {
                // A directory that is asked for with `create` exists afterwards.
                let dir = self.directory(parent, true)?.ok_or("its directory is missing")?;
                self.add(dir, name, kind, record)
            }
            Change::Opaque => Ok(()),
        }
    }

    fn apply_root(&mut self, record: &Record<'a>) -> Result<(), &'static str> {
        if record.change != Change::Add(EntryType::Directory) {
            return Err("it would replace the root directory");
        }
        self.nodes[0].describe(record);
        Ok(())
    }

    fn apply_opaque(&mut self, path: &'a [u8]) -> Result<(), &'static str> {
        let Some(dir) = self.directory(path, false)? else {
            return Ok(());
        };
        let names: Vec<&[u8]> = self.nodes[dir].children.keys().copied().collect();
        for name in names {
            self.purge(dir, name)?;
        }
        self.last = None;
        Ok(())
    }

    /// Counts lookups.
    fn step(&mut self, count: usize) -> Result<(), &'static str> {
        let left = self.steps.checked_sub(count as u64);
        self.steps = left.ok_or("following the names and links of its image takes too many steps")?;
        Ok(())
    }

    fn add(
        &mut self,
        dir: NodeId,
        name: &'a [u8],
        kind: EntryType,
        record: &Record<'a>,
    ) -> Result<(), &'static str> {
        let present = self.nodes[dir].children.get(name).copied();
        let layer = self.layer;
        let node = match kind {
            EntryType::HardLink => self.link_target(record.link)?,
            EntryType::Directory => match present {
                Some(TreeDirent { node, .. }) if self.nodes[node].kind == NodeKind::Directory => {
                    self.nodes[node].describe(record);
                    node
                }
                _ => {
                    let id = self.new_directory(dir)?;
                    self.nodes[id].describe(record);
                    id
                }
            },
            EntryType::Regular => self.new_node(NodeKind::Regular, record),
            EntryType::Symlink => self.new_node(NodeKind::Symlink, record),
            EntryType::CharDevice => self.new_node(NodeKind::CharDevice, record),
            EntryType::BlockDevice => self.new_node(NodeKind::BlockDevice, record),
            EntryType::Fifo => self.new_node(NodeKind::Fifo, record),
        };
        if let Some(old) = present
            && old.node != node
            && matches!(self.nodes[old.node].kind, NodeKind::Directory | NodeKind::Symlink)
        {
            self.last = None;
        }
        self.nodes[dir].children.insert(name, TreeDirent { node, layer });
        Ok(())
    }

    fn link_target(&mut self, path: &'a [u8]) -> Result<NodeId, &'static str> {
        let missing = "it is a hard link to a file that is not there";
        let (parent, name) = split(path);
        let dir = self.directory(parent, false)?.ok_or(missing)?;
        let node = self.nodes[dir].children.get(name).ok_or(missing)?.node;
        match self.nodes[node].kind {
            NodeKind::Directory => Err("it is a hard link to a directory"),
            _ => Ok(node),
        }
    }

    fn new_node(&mut self, kind: NodeKind, record: &Record<'a>) -> NodeId {
        let mut node = TreeNode {
            kind,
            layer: self.layer,
            ..TreeNode::implicit_directory(0, 0)
        };
        node.describe(record);
        if kind == NodeKind::Symlink {
            node.size = record.link.len() as u64;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn new_directory(&mut self, parent: NodeId) -> Result<NodeId, &'static str> {
        let depth = self.nodes[parent].depth + 1;
        if depth > MAX_DEPTH {
            return Err("its directories are nested too deeply");
        }
        self.nodes.push(TreeNode::implicit_directory(parent, depth));
        Ok(self.nodes.len() - 1)
    }

    /// The directory at a path, links in it followed inside the root; missing parts are made or are `None`.
    fn directory(&mut self, path: &'a [u8], create: bool) -> Result<Option<NodeId>, &'static str> {
        if let Some((last, node)) = self.last
            && last == path
        {
            return Ok(Some(node));
        }
        let (mut dir, mut links) = (0, 0);
        let mut rest: Vec<&'a [u8]> = components(path).rev().collect();
        while let Some(name) = rest.pop() {
            self.step(1)?;
            match name {
                b"" | b"." => continue,
                b".." => {
                    dir = self.nodes[dir].parent;
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.nodes[dir].children.get(name).map(|dirent| dirent.node) else {
                if !create {
                    return Ok(None);
                }
                let id = self.new_directory(dir)?;
                let layer = self.layer;
                self.nodes[dir]
                    .children
                    .insert(name, TreeDirent { node: id, layer });
                dir = id;
                continue;
            };
            match self.nodes[child].kind {
                NodeKind::Directory => dir = child,
                NodeKind::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("its path has too many symbolic links");
                    }
                    let target = self.nodes[child].link;
                    if target.first() == Some(&b'/') {
                        dir = 0;
                    }
                    rest.extend(components(target).rev());
                }
                _ => return Err("its path goes through a file"),
            }
        }
        self.last = Some((path, dir));
        Ok(Some(dir))
    }

    /// Removes what lower layers have under a name; directories stay as far as this layer put things there.
    fn purge(&mut self, dir: NodeId, name: &[u8]) -> Result<(), &'static str> {
        self.step(1)?;
        let Some(dirent) = self.nodes[dir].children.get(name).copied() else {
            return Ok(());
        };
        if self.nodes[dirent.node].kind == NodeKind::Directory {
            let names: Vec<&[u8]> = self.nodes[dirent.node].children.keys().copied().collect();
            for child in names {
                self.purge(dirent.node, child)?;
            }
            if !self.nodes[dirent.node].children.is_empty() {
                return Ok(());
            }
        }
        if dirent.layer != self.layer {
            self.nodes[dir].children.remove(name);
        }
        Ok(())
    }
}

impl<'a> TreeNode<'a> {
    /// A directory no entry describes: owned by root, 0755, of the beginning of time.
    fn implicit_directory(parent: NodeId, depth: u32) -> TreeNode<'a> {
        TreeNode {
            kind: NodeKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            rdev: 0,
            size: 0,
            offset: 0,
            layer: 0,
            link: &[],
            xattrs: &[],
            children: BTreeMap::new(),
            parent,
            depth,
        }
    }

    /// The directory that holds this directory.
    pub(super) fn parent(&self) -> NodeId {
        self.parent
    }

    fn describe(&mut self, record: &Record<'a>) {
        self.mode = record.mode & 0o7777;
        self.uid = record.uid;
        self.gid = record.gid;
        self.mtime = record.mtime;
        self.rdev = record.rdev;
        self.size = record.size;
        self.offset = record.offset;
        self.link = record.link;
        self.xattrs = record.xattrs;
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

/// Directory and last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}
