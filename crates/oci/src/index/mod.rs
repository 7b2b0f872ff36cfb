//! The flattened image: every file of all its layers by inode number, ready to be served.

mod build;
mod format;
mod tree;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use build::flatten;
use format::{DIGEST, DIRENT, HEADER, MAGIC, NODE, RawDirent, RawNode, u32_at, u64_at};

use crate::digest::Digest;

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type.
    pub kind: NodeKind,
    /// Permission, set-id and sticky bits, 0..=0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change: seconds since 1970.
    pub mtime_s: i64,
    /// Time of last change: nanoseconds, below 10^9.
    pub mtime_ns: u32,
    /// Length in bytes of a regular file or of a link's target, else 0.
    pub size: u64,
    /// Number of names; for a directory 2 plus the number of directories in it.
    pub nlink: u32,
    /// Device number in Linux's encoding (12 bits of major, 20 of minor), else 0.
    pub rdev: u32,
}

/// Where the bytes of a regular file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the contents file, for [`ImageIndex::blob_file`].
    pub blob: usize,
    /// Where they begin in it, a multiple of 4096.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

/// The files of an image. Inode 1 is the root; hard links share an inode; names are bytes.
///
/// Every method answers `None` or nothing for inode numbers that do not exist or have another type. Nothing
/// blocks; all of it may be called from any thread.
#[derive(Debug)]
pub struct ImageIndex {
    bytes: Vec<u8>,
    nodes: u32,
    dirents: Range<usize>,
    text: Range<usize>,
    xattrs: Range<usize>,
    blobs: Vec<Arc<File>>,
    /// Keeps the image from being removed.
    _hold: Option<Arc<File>>,
}

/// Digests of the layers whose contents files an index refers to, in its order.
pub(crate) fn blob_digests(bytes: &[u8]) -> Result<Vec<Digest>, &'static str> {
    let layout = Layout::of(bytes)?;
    let digests = bytes[layout.digests].chunks_exact(DIGEST);
    Ok(digests
        .filter_map(|digest| digest.try_into().ok().map(Digest::from_bytes))
        .collect())
}

/// Where the sections of an index are.
struct Layout {
    nodes: u32,
    dirents: Range<usize>,
    text: Range<usize>,
    xattrs: Range<usize>,
    digests: Range<usize>,
}

impl Layout {
    fn of(bytes: &[u8]) -> Result<Layout, &'static str> {
        let layout = Layout::read(bytes).ok_or("its sections do not fit")?;
        if bytes[..8] != MAGIC[..] {
            return Err("it is of another version");
        }
        Ok(layout)
    }

    fn read(bytes: &[u8]) -> Option<Layout> {
        let nodes = u32_at(bytes, 8)?;
        let mut end = HEADER.checked_add(usize::try_from(nodes).ok()?.checked_mul(NODE)?)?;
        let mut section = |length: usize| {
            let start = end;
            end = start.checked_add(length)?;
            Some(start..end)
        };
        let dirents = section(usize::try_from(u32_at(bytes, 12)?).ok()?.checked_mul(DIRENT)?)?;
        let text = section(usize::try_from(u64_at(bytes, 16)?).ok()?)?;
        let xattrs = section(usize::try_from(u64_at(bytes, 24)?).ok()?)?;
        let digests = section(usize::try_from(u32_at(bytes, 32)?).ok()?.checked_mul(DIGEST)?)?;
        (end == bytes.len()).then_some(Layout {
            nodes,
            dirents,
            text,
            xattrs,
            digests,
        })
    }
}

impl ImageIndex {
    /// Checks every record of an index over contents files of known lengths.
    pub(crate) fn load(
        bytes: Vec<u8>,
        blobs: Vec<Arc<File>>,
        hold: Option<Arc<File>>,
    ) -> io::Result<ImageIndex> {
        let damaged = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        let layout = Layout::of(&bytes).map_err(damaged)?;
        if layout.digests.len() != blobs.len() * DIGEST {
            return Err(damaged("it has another number of layers"));
        }
        let lengths: Vec<u64> = blobs
            .iter()
            .map(|blob| Ok(blob.metadata()?.len()))
            .collect::<io::Result<_>>()?;
        let Layout {
            nodes,
            dirents,
            text,
            xattrs,
            ..
        } = layout;
        let index = ImageIndex {
            bytes,
            nodes,
            dirents,
            text,
            xattrs,
            blobs,
            _hold: hold,
        };
        index
            .check(&lengths)
            .ok_or_else(|| damaged("a record is out of bounds"))?;
        Ok(index)
    }

    /// `Some` if every record stays inside its sections, so that nothing else needs to be checked later.
    fn check(&self, lengths: &[u64]) -> Option<()> {
        let dirents = self.dirents.len() / DIRENT;
        for number in 0..dirents {
            let dirent = self.dirent(number)?;
            let name = self.text_at(dirent.name_at.into(), dirent.name_length.into())?;
            (1..=self.nodes).contains(&dirent.ino).then_some(())?;
            (!name.is_empty() && !name.contains(&b'/') && !name.contains(&0)).then_some(())?;
        }
        (self.raw(1)?.kind == NodeKind::Directory).then_some(())?;
        for ino in 1..=u64::from(self.nodes) {
            let node = self.raw(ino)?;
            let end = node.at.checked_add(match node.kind {
                NodeKind::Directory => node.count.into(),
                _ => node.size,
            })?;
            let fits = match node.kind {
                NodeKind::Regular => {
                    node.size == 0 || end <= *lengths.get(usize::try_from(node.count).ok()?)?
                }
                NodeKind::Directory => end <= dirents as u64 && (1..=self.nodes).contains(&node.parent),
                NodeKind::Symlink => end <= self.text.len() as u64,
                _ => true,
            };
            (fits && node.mode <= 0o7777 && node.mtime_ns < 1_000_000_000).then_some(())?;
            self.xattr_list(node.xattrs)?;
        }
        Some(())
    }

    /// The largest inode number; all from 1 on are used.
    pub fn max_ino(&self) -> u64 {
        self.nodes.into()
    }

    /// What is known of an inode.
    pub fn node(&self, ino: u64) -> Option<Node> {
        let raw = self.raw(ino)?;
        Some(Node {
            kind: raw.kind,
            mode: raw.mode,
            uid: raw.uid,
            gid: raw.gid,
            mtime_s: raw.mtime_s,
            mtime_ns: raw.mtime_ns,
            size: raw.size,
            nlink: raw.nlink,
            rdev: raw.rdev,
        })
    }

    /// The inode a name has in a directory.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64> {
        let (mut low, mut high) = self.entries_of(dir).map(|range| (range.start, range.end))?;
        while low < high {
            let middle = low + (high - low) / 2;
            let dirent = self.dirent(middle)?;
            match self.name(&dirent).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(dirent.ino.into()),
            }
        }
        None
    }

    /// Names and inodes in a directory, sorted by name; `nth` and `skip` cost nothing.
    pub fn children(&self, dir: u64) -> impl ExactSizeIterator<Item = (&[u8], u64)> {
        self.entries_of(dir)
            .unwrap_or(0..0)
            .map(|number| match self.dirent(number) {
                Some(dirent) => (self.name(&dirent), u64::from(dirent.ino)),
                None => (&[][..], 1),
            })
    }

    /// The directory that holds a directory; the root holds itself.
    pub fn parent(&self, dir: u64) -> Option<u64> {
        self.raw(dir)
            .filter(|node| node.kind == NodeKind::Directory)
            .map(|node| node.parent.into())
    }

    /// Target of a symbolic link.
    pub fn symlink_target(&self, ino: u64) -> Option<&[u8]> {
        let node = self.raw(ino).filter(|node| node.kind == NodeKind::Symlink)?;
        self.text_at(node.at, node.size)
    }

    /// Names and values of an inode's extended attributes, sorted by name.
    pub fn xattrs(&self, ino: u64) -> impl Iterator<Item = (&[u8], &[u8])> {
        let list = self.raw(ino).and_then(|node| self.xattr_list(node.xattrs));
        crate::layer::entries::xattrs(list.unwrap_or(&[]))
    }

    /// Where the bytes of a regular file are; `len` may be 0.
    pub fn content(&self, ino: u64) -> Option<Extent> {
        let node = self.raw(ino).filter(|node| node.kind == NodeKind::Regular)?;
        Some(Extent {
            blob: usize::try_from(node.count).ok()?,
            offset: node.at,
            len: node.size,
        })
    }

    /// A contents file by its number in an [`Extent`].
    ///
    /// # Panics
    /// If `blob` does not come from this index.
    pub fn blob_file(&self, blob: usize) -> Arc<File> {
        self.blobs[blob].clone()
    }

    /// Resolves a path below the root, following symbolic links inside the image, at most 40.
    pub fn resolve(&self, path: &[u8]) -> Option<u64> {
        let split = |path: &[u8]| {
            path.split(|&b| b == b'/')
                .map(<[u8]>::to_vec)
                .rev()
                .collect::<Vec<_>>()
        };
        let (mut rest, mut ino, mut links) = (split(path), 1, 0);
        while let Some(component) = rest.pop() {
            match &component[..] {
                b"" | b"." => {}
                b".." => ino = self.parent(ino)?,
                name => {
                    let child = self.lookup(ino, name)?;
                    let Some(target) = self.symlink_target(child) else {
                        ino = child;
                        continue;
                    };
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    if target.first() == Some(&b'/') {
                        ino = 1;
                    }
                    rest.extend(split(target));
                }
            }
        }
        Some(ino)
    }

    fn raw(&self, ino: u64) -> Option<RawNode> {
        let number =
            usize::try_from(ino.checked_sub(1).filter(|&number| number < self.nodes.into())?).ok()?;
        let start = HEADER + number * NODE;
        RawNode::decode(self.bytes.get(start..start + NODE)?)
    }

    fn dirent(&self, number: usize) -> Option<RawDirent> {
        let start = self.dirents.start + number * DIRENT;
        RawDirent::decode(self.bytes.get(start..start + DIRENT)?)
    }

    fn entries_of(&self, dir: u64) -> Option<Range<usize>> {
        let node = self.raw(dir).filter(|node| node.kind == NodeKind::Directory)?;
        let start = usize::try_from(node.at).ok()?;
        Some(start..start + usize::try_from(node.count).ok()?)
    }

    fn name(&self, dirent: &RawDirent) -> &[u8] {
        self.text_at(dirent.name_at.into(), dirent.name_length.into())
            .unwrap_or(&[])
    }

    fn text_at(&self, at: u64, length: u64) -> Option<&[u8]> {
        section(&self.bytes[self.text.clone()], at, length)
    }

    fn xattr_list(&self, at: u32) -> Option<&[u8]> {
        let all = &self.bytes[self.xattrs.clone()];
        let length = u32_at(all, usize::try_from(at).ok()?)?;
        section(all, u64::from(at) + 4, length.into())
    }
}

fn section(all: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    all.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

#[cfg(test)]
mod tests;
