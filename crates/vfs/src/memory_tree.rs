//! A small read-only tree in memory: the empty image, and images in tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::attr::FileKind;
use crate::read_only::{Child, Content, Node, ReadOnlyTree};

/// A read-only tree whose metadata lies in memory and whose contents lie in one anonymous file.
pub struct MemoryTree {
    inodes: Vec<Inode>,
    contents: Arc<File>,
}

struct Inode {
    node: Node,
    parent: u64,
    /// Children of a directory, in listing order.
    children: Vec<(Vec<u8>, u64)>,
    by_name: BTreeMap<Vec<u8>, u64>,
    target: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    offset: u64,
}

/// Builds a [`MemoryTree`], one file after the other; inode 1 is the root, there from the start.
pub struct MemoryTreeBuilder {
    inodes: Vec<Inode>,
    contents: File,
    used: u64,
}

impl MemoryTreeBuilder {
    /// A tree of an empty root directory of mode 0755, owned by root.
    ///
    /// # Errors
    /// When the system gives no anonymous file.
    pub fn new() -> io::Result<Self> {
        let contents = File::from(memfd_create("image-contents", MemfdFlags::CLOEXEC)?);
        let root = Inode::new(
            Node {
                nlink: 2,
                ..new_node(FileKind::Directory, 0o755)
            },
            1,
        );
        Ok(Self {
            inodes: vec![root],
            contents,
            used: 0,
        })
    }

    /// Adds a file of any kind and returns its inode. `name` replaces nothing: the last of two equal names
    /// counts for look-ups.
    pub fn add(&mut self, dir: u64, name: &[u8], kind: FileKind, mode: u32) -> u64 {
        self.inodes.push(Inode::new(new_node(kind, mode), dir));
        let ino = self.inodes.len() as u64;
        if kind == FileKind::Directory {
            self.inode(ino).node.nlink = 1;
        }
        self.link(dir, name, ino);
        if kind == FileKind::Directory {
            self.inode(dir).node.nlink += 1;
        }
        ino
    }

    /// Adds a regular file with contents.
    ///
    /// # Errors
    /// When the contents cannot be stored.
    pub fn add_file(&mut self, dir: u64, name: &[u8], mode: u32, bytes: &[u8]) -> io::Result<u64> {
        let ino = self.add(dir, name, FileKind::Regular, mode);
        self.contents.write_all(bytes)?;
        let offset = self.used;
        self.used += bytes.len() as u64;
        let inode = self.inode(ino);
        inode.offset = offset;
        inode.node.size = bytes.len() as u64;
        Ok(ino)
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, dir: u64, name: &[u8], target: &[u8]) -> u64 {
        let ino = self.add(dir, name, FileKind::Symlink, 0o777);
        let inode = self.inode(ino);
        inode.target = target.to_vec();
        inode.node.size = target.len() as u64;
        ino
    }

    /// Gives inode `ino` one more name.
    pub fn link(&mut self, dir: u64, name: &[u8], ino: u64) {
        let parent = self.inode(dir);
        parent.children.push((name.to_vec(), ino));
        parent.by_name.insert(name.to_vec(), ino);
        self.inode(ino).node.nlink += 1;
    }

    /// Gives inode `ino` an extended attribute.
    pub fn set_xattr(&mut self, ino: u64, name: &[u8], value: &[u8]) {
        self.inode(ino).xattrs.push((name.to_vec(), value.to_vec()));
    }

    /// The node of inode `ino`, to change owner, times and the like.
    pub fn node(&mut self, ino: u64) -> &mut Node {
        &mut self.inode(ino).node
    }

    /// The finished tree.
    #[must_use]
    pub fn build(self) -> MemoryTree {
        MemoryTree {
            inodes: self.inodes,
            contents: Arc::new(self.contents),
        }
    }

    /// Panics for a number that this builder did not give out, which is a mistake of its user.
    fn inode(&mut self, ino: u64) -> &mut Inode {
        &mut self.inodes[ino as usize - 1]
    }
}

fn new_node(kind: FileKind, mode: u32) -> Node {
    Node {
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime_s: 0,
        mtime_ns: 0,
        size: 0,
        nlink: 0,
        rdev: 0,
    }
}

impl Inode {
    fn new(node: Node, parent: u64) -> Self {
        Self {
            node,
            parent,
            children: Vec::new(),
            by_name: BTreeMap::new(),
            target: Vec::new(),
            xattrs: Vec::new(),
            offset: 0,
        }
    }
}

impl MemoryTree {
    fn inode(&self, ino: u64) -> Option<&Inode> {
        self.inodes.get(usize::try_from(ino.checked_sub(1)?).ok()?)
    }

    fn directory(&self, ino: u64) -> Option<&Inode> {
        self.inode(ino)
            .filter(|inode| inode.node.kind == FileKind::Directory)
    }
}

impl ReadOnlyTree for MemoryTree {
    fn max_inode(&self) -> u64 {
        self.inodes.len() as u64
    }

    fn node(&self, ino: u64) -> Option<Node> {
        self.inode(ino).map(|inode| inode.node)
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.directory(dir)?.by_name.get(name).copied()
    }

    fn parent(&self, dir: u64) -> Option<u64> {
        self.directory(dir).map(|inode| inode.parent)
    }

    fn children(&self, dir: u64, from: u64, each: &mut dyn FnMut(Child<'_>) -> bool) {
        let children = self
            .directory(dir)
            .map(|inode| inode.children.as_slice())
            .unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for (name, ino) in children.iter().skip(from) {
            let Some(node) = self.node(*ino) else { continue };
            if !each(Child {
                name,
                ino: *ino,
                kind: node.kind,
            }) {
                return;
            }
        }
    }

    fn symlink_target(&self, ino: u64) -> Option<Vec<u8>> {
        self.inode(ino)
            .filter(|inode| inode.node.kind == FileKind::Symlink)
            .map(|inode| inode.target.clone())
    }

    fn xattrs(&self, ino: u64, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.inode(ino).into_iter().flat_map(|inode| &inode.xattrs) {
            each(name, value);
        }
    }

    fn content(&self, ino: u64) -> io::Result<Option<Content>> {
        let regular = self
            .inode(ino)
            .filter(|inode| inode.node.kind == FileKind::Regular);
        Ok(regular.filter(|inode| inode.node.size > 0).map(|inode| Content {
            file: Arc::clone(&self.contents),
            offset: inode.offset,
            len: inode.node.size,
        }))
    }
}
