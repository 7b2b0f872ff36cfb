//! An image's index as the read-only tree a file server stands on. Here two strangers meet: `oci` has the
//! index, `vfs` serves trees.

use std::io;
use std::sync::Arc;

use oci::{ImageIndex, NodeKind};
use vfs::{Child, Content, FileKind, Node, ReadOnlyTree};

/// The files of an image.
pub(crate) struct ImageTree {
    index: Arc<ImageIndex>,
}

impl ImageTree {
    pub(crate) fn new(index: Arc<ImageIndex>) -> Self {
        Self { index }
    }
}

fn kind_of(kind: NodeKind) -> FileKind {
    match kind {
        NodeKind::Regular => FileKind::Regular,
        NodeKind::Directory => FileKind::Directory,
        NodeKind::Symlink => FileKind::Symlink,
        NodeKind::CharDevice => FileKind::CharDevice,
        NodeKind::BlockDevice => FileKind::BlockDevice,
        NodeKind::Fifo => FileKind::Fifo,
    }
}

impl ReadOnlyTree for ImageTree {
    fn max_inode(&self) -> u64 {
        self.index.max_ino()
    }

    fn node(&self, ino: u64) -> Option<Node> {
        let node = self.index.node(ino)?;
        Some(Node {
            kind: kind_of(node.kind),
            mode: node.mode.into(),
            uid: node.uid,
            gid: node.gid,
            mtime_s: node.mtime_s,
            mtime_ns: node.mtime_ns,
            size: node.size,
            nlink: node.nlink,
            rdev: node.rdev,
        })
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.index.lookup(dir, name)
    }

    fn parent(&self, dir: u64) -> Option<u64> {
        self.index.parent(dir)
    }

    fn children(&self, dir: u64, from: u64, each: &mut dyn FnMut(Child<'_>) -> bool) {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for (name, ino) in self.index.children(dir).skip(from) {
            let Some(node) = self.index.node(ino) else {
                continue;
            };
            if !each(Child {
                name,
                ino,
                kind: kind_of(node.kind),
            }) {
                return;
            }
        }
    }

    fn symlink_target(&self, ino: u64) -> Option<Vec<u8>> {
        self.index.symlink_target(ino).map(<[u8]>::to_vec)
    }

    fn xattrs(&self, ino: u64, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.index.xattrs(ino) {
            each(name, value);
        }
    }

    fn content(&self, ino: u64) -> io::Result<Option<Content>> {
        let extent = self.index.content(ino).filter(|extent| extent.len > 0);
        Ok(extent.map(|extent| Content {
            file: self.index.blob_file(extent.blob),
            offset: extent.offset,
            len: extent.len,
        }))
    }
}
