//! Flattening: from the lists of all layers to the file of the image's index.

use super::NodeKind;
use super::format::{HEADER, MAGIC, NODE, RawDirent, RawNode};
use super::tree::{NodeId, Tree, TreeNode};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Limits;
use crate::layer::entries::{EntriesReader, Record, xattrs};

/// Builds the index of an image whose layers, lowest first, have these digests and encoded lists.
pub(crate) fn flatten(layers: &[(Digest, Vec<u8>)], limits: &Limits) -> Result<Vec<u8>> {
    let mut tree = Tree::new(limits.steps);
    let mut count = 0;
    for (number, (digest, entries)) in layers.iter().enumerate() {
        let refuse = |reason: String| Error::BadLayer {
            layer: digest.to_string(),
            reason,
        };
        let damaged =
            || refuse("its stored list of entries is damaged: remove the image and pull it again".into());
        let reader = EntriesReader::new(entries).map_err(|_| damaged())?;
        count += reader.left();
        if count > limits.entries {
            return Err(refuse(format!(
                "with it the image has more than {} entries",
                limits.entries
            )));
        }
        tree.begin_layer(u32::try_from(number).map_err(|_| refuse("there are too many layers".into()))?);
        for record in reader {
            let record = record.map_err(|_| damaged())?;
            tree.apply(&record)
                .map_err(|reason| refuse(of_entry(&record, reason)))?;
        }
    }
    let digests: Vec<Digest> = layers.iter().map(|(digest, _)| *digest).collect();
    Emitter::default()
        .emit(&tree, &digests)
        .ok_or_else(|| Error::BadDocument {
            what: "the image".into(),
            reason: "its names and attributes take more than 4 GiB".into(),
        })
}

fn of_entry(record: &Record, reason: &str) -> String {
    let path = &record.path[..record.path.len().min(200)];
    format!(
        "entry `{}`: {reason}",
        String::from_utf8_lossy(path).escape_debug()
    )
}

/// Writes a tree breadth first, so that the entries of a directory and its children's nodes are together.
#[derive(Default)]
struct Emitter {
    /// Nodes by inode number minus one, and the inode number plus names counted of each node.
    order: Vec<NodeId>,
    ino: Vec<u32>,
    nlink: Vec<u32>,
    nodes: Vec<u8>,
    dirents: Vec<u8>,
    text: Vec<u8>,
    xattrs: Vec<u8>,
}

impl Emitter {
    fn emit(mut self, tree: &Tree, digests: &[Digest]) -> Option<Vec<u8>> {
        self.number(tree)?;
        self.xattrs.extend(0u32.to_le_bytes());
        for place in 0..self.order.len() {
            self.node(tree, self.order[place])?;
        }
        let mut bytes = Vec::with_capacity(HEADER + self.nodes.len() + self.dirents.len() + self.text.len());
        bytes.extend(MAGIC);
        bytes.extend(u32::try_from(self.nodes.len() / NODE).ok()?.to_le_bytes());
        bytes.extend(
            u32::try_from(self.dirents.len() / super::format::DIRENT)
                .ok()?
                .to_le_bytes(),
        );
        bytes.extend((self.text.len() as u64).to_le_bytes());
        bytes.extend((self.xattrs.len() as u64).to_le_bytes());
        bytes.extend(u32::try_from(digests.len()).ok()?.to_le_bytes());
        bytes.resize(HEADER, 0);
        for section in [&self.nodes, &self.dirents, &self.text, &self.xattrs] {
            bytes.extend_from_slice(section);
        }
        digests.iter().for_each(|digest| bytes.extend(digest.as_bytes()));
        Some(bytes)
    }

    /// Gives every reachable node its inode number and counts its names.
    fn number(&mut self, tree: &Tree) -> Option<()> {
        self.ino = vec![0; tree.nodes.len()];
        self.nlink = vec![0; tree.nodes.len()];
        self.order.push(0);
        self.ino[0] = 1;
        self.nlink[0] = 2;
        let mut place = 0;
        while let Some(&dir) = self.order.get(place) {
            place += 1;
            for dirent in tree.nodes[dir].children.values() {
                let child = dirent.node;
                let is_dir = tree.nodes[child].kind == NodeKind::Directory;
                if self.ino[child] == 0 {
                    self.order.push(child);
                    self.ino[child] = u32::try_from(self.order.len()).ok()?;
                }
                self.nlink[child] += if is_dir { 2 } else { 1 };
                self.nlink[dir] += u32::from(is_dir);
            }
        }
        Some(())
    }

    fn node(&mut self, tree: &Tree, id: NodeId) -> Option<()> {
        let node = &tree.nodes[id];
        let (at, count) = match node.kind {
            NodeKind::Directory => self.children(node)?,
            NodeKind::Symlink => (u64::from(self.append_text(node.link)?), 0),
            _ => (node.offset, node.layer),
        };
        let raw = RawNode {
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink: self.nlink[id],
            mtime_s: node.mtime.0,
            mtime_ns: node.mtime.1,
            rdev: node.rdev,
            size: if node.kind == NodeKind::Directory {
                0
            } else {
                node.size
            },
            at,
            count,
            xattrs: self.append_xattrs(node.xattrs)?,
            parent: if node.kind == NodeKind::Directory {
                self.ino[node.parent()]
            } else {
                0
            },
        };
        raw.encode(&mut self.nodes);
        Some(())
    }

    /// Writes a directory's entries; tells the first one's number and how many there are.
    fn children(&mut self, dir: &TreeNode) -> Option<(u64, u32)> {
        let first = (self.dirents.len() / super::format::DIRENT) as u64;
        for (name, dirent) in &dir.children {
            let raw = RawDirent {
                name_at: self.append_text(name)?,
                name_length: u16::try_from(name.len()).ok()?,
                ino: self.ino[dirent.node],
            };
            raw.encode(&mut self.dirents);
        }
        Some((first, u32::try_from(dir.children.len()).ok()?))
    }

    fn append_text(&mut self, text: &[u8]) -> Option<u32> {
        let at = u32::try_from(self.text.len()).ok()?;
        self.text.extend_from_slice(text);
        Some(at)
    }

    /// Writes a list of attributes sorted by name; offset 0 is the empty one.
    fn append_xattrs(&mut self, encoded: &[u8]) -> Option<u32> {
        if encoded.is_empty() {
            return Some(0);
        }
        let at = u32::try_from(self.xattrs.len()).ok()?;
        let mut list: Vec<_> = xattrs(encoded).collect();
        list.sort();
        self.xattrs
            .extend(u32::try_from(encoded.len()).ok()?.to_le_bytes());
        for (name, value) in list {
            self.xattrs.push(u8::try_from(name.len()).ok()?);
            self.xattrs.extend_from_slice(name);
            self.xattrs.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
            self.xattrs.extend_from_slice(value);
        }
        Some(at)
    }
}
