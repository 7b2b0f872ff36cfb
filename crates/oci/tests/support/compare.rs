//! Compares an image's index with a folder somebody else unpacked, file by file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use oci::{Digest, ImageIndex, NodeKind};

/// Everything that must be the same of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    kind: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    size: u64,
    rdev: (u32, u32),
    content: Option<Digest>,
    target: Option<Vec<u8>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Smallest path of the same file.
    first_name: Vec<u8>,
    nlink: u64,
}

pub type Tree = BTreeMap<Vec<u8>, Facts>;

/// Fails at the first difference.
pub fn assert_same(index: &ImageIndex, root: &Path) {
    let (ours, theirs) = (tree_of_index(index), tree_of_folder(root));
    for (path, facts) in &theirs {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(ours.get(path), Some(facts), "/{shown}");
    }
    let extra: Vec<_> = ours
        .keys()
        .filter(|path| !theirs.contains_key(*path))
        .map(|path| String::from_utf8_lossy(path))
        .collect();
    assert!(extra.is_empty(), "only in the index: {extra:?}");
}

pub fn tree_of_index(index: &ImageIndex) -> Tree {
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    walk(index, 1, b"", &mut |path, ino| {
        let first = names.entry(ino).or_insert_with(|| path.to_vec());
        if path < &first[..] {
            *first = path.to_vec();
        }
        found.insert(path.to_vec(), ino);
    });
    found
        .iter()
        .map(|(path, ino)| (path.clone(), facts_of_inode(index, *ino, names[ino].clone())))
        .collect()
}

fn walk(index: &ImageIndex, ino: u64, path: &[u8], each: &mut dyn FnMut(&[u8], u64)) {
    each(path, ino);
    for (name, child) in index.children(ino) {
        assert_eq!(index.lookup(ino, name), Some(child));
        let path = if path.is_empty() {
            name.to_vec()
        } else {
            [path, b"/", name].concat()
        };
        walk(index, child, &path, each);
    }
}

fn facts_of_inode(index: &ImageIndex, ino: u64, first_name: Vec<u8>) -> Facts {
    let node = index.node(ino).unwrap();
    let content = index.content(ino).map(|extent| {
        assert_eq!(extent.offset % 4096, 0);
        assert_eq!(extent.len, node.size);
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap()];
        index
            .blob_file(extent.blob)
            .read_exact_at(&mut bytes, extent.offset)
            .unwrap();
        Digest::of(&bytes)
    });
    let kind = match node.kind {
        NodeKind::Regular => 0o100000,
        NodeKind::Directory => 0o040000,
        NodeKind::Symlink => 0o120000,
        NodeKind::CharDevice => 0o020000,
        NodeKind::BlockDevice => 0o060000,
        NodeKind::Fifo => 0o010000,
    };
    let own = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    Facts {
        kind,
        mode: node.mode.into(),
        uid: node.uid,
        gid: node.gid,
        mtime: (node.mtime_s, node.mtime_ns.into()),
        size: if kind == 0o040000 { 0 } else { node.size },
        rdev: (
            node.rdev >> 8 & 0xfff,
            node.rdev & 0xff | node.rdev >> 12 & 0xfff00,
        ),
        content,
        target: index.symlink_target(ino).map(<[u8]>::to_vec),
        xattrs: index.xattrs(ino).map(own).collect(),
        first_name,
        nlink: node.nlink.into(),
    }
}

fn tree_of_folder(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let first = names.entry(metadata.ino()).or_insert_with(|| name.clone());
        if name < *first {
            first.clone_from(&name);
        }
        if metadata.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        tree.insert(name, facts_of_file(&path, &metadata));
    }
    for (path, facts) in &mut tree {
        let ino = fs::symlink_metadata(root.join(OsStr::from_bytes(path)))
            .unwrap()
            .ino();
        facts.first_name.clone_from(&names[&ino]);
    }
    tree
}

fn facts_of_file(path: &Path, metadata: &fs::Metadata) -> Facts {
    let kind = metadata.mode() & 0o170000;
    let is_device = matches!(kind, 0o020000 | 0o060000);
    let rdev = metadata.rdev();
    // Most file systems count subdirectories; some say 1 for every directory.
    let directories = || {
        let entries = fs::read_dir(path).unwrap();
        2 + entries
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count() as u64
    };
    Facts {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if metadata.is_dir() { 0 } else { metadata.size() },
        rdev: if is_device {
            (rustix::fs::major(rdev), rustix::fs::minor(rdev))
        } else {
            (0, 0)
        },
        content: metadata.is_file().then(|| Digest::of(&fs::read(path).unwrap())),
        target: metadata
            .is_symlink()
            .then(|| fs::read_link(path).unwrap().into_os_string().into_vec()),
        xattrs: xattrs_of(path),
        first_name: Vec::new(),
        nlink: if metadata.is_dir() {
            directories()
        } else {
            metadata.nlink()
        },
    }
}

fn xattrs_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    let names = list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = [0; 65536];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    xattrs.sort();
    xattrs
}
