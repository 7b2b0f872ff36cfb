//! The file of an image's index: fixed-size records, little-endian, all offsets checked when it is loaded.
//!
//! Header (64 bytes): magic, nodes (u32), directory entries (u32), bytes of text (u64), bytes of attributes
//! (u64), contents files (u32), reserved. Then the sections in that order: nodes (64 bytes each, inode 1
//! first), entries (12 bytes each), text (names and link targets), attributes, digests of the layers.

use super::NodeKind;

pub(super) const MAGIC: &[u8; 8] = b"CCIMAGE1";
pub(super) const HEADER: usize = 64;
pub(super) const NODE: usize = 64;
pub(super) const DIRENT: usize = 12;
pub(super) const DIGEST: usize = 32;

/// A node as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawNode {
    pub(super) kind: NodeKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: u32,
    pub(super) rdev: u32,
    pub(super) size: u64,
    /// Regular file: offset in its contents file. Directory: first entry. Link: offset of the target's text.
    pub(super) at: u64,
    /// Regular file: number of its contents file. Directory: number of entries.
    pub(super) count: u32,
    /// Offset of its attributes; the section begins with an empty list for all who have none.
    pub(super) xattrs: u32,
    /// Directory that holds a directory.
    pub(super) parent: u32,
}

impl RawNode {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([kind_code(self.kind), 0]);
        into.extend(self.mode.to_le_bytes());
        into.extend(self.uid.to_le_bytes());
        into.extend(self.gid.to_le_bytes());
        into.extend(self.nlink.to_le_bytes());
        into.extend(self.mtime_s.to_le_bytes());
        into.extend(self.mtime_ns.to_le_bytes());
        into.extend(self.rdev.to_le_bytes());
        into.extend(self.size.to_le_bytes());
        into.extend(self.at.to_le_bytes());
        into.extend(self.count.to_le_bytes());
        into.extend(self.xattrs.to_le_bytes());
        into.extend(self.parent.to_le_bytes());
        into.extend([0; 4]);
    }

    /// Reads a record of [`NODE`] bytes; `None` if its type is unknown or it is shorter.
    pub(super) fn decode(bytes: &[u8]) -> Option<RawNode> {
        Some(RawNode {
            kind: kind(*bytes.first()?)?,
            mode: u16_at(bytes, 2)?,
            uid: u32_at(bytes, 4)?,
            gid: u32_at(bytes, 8)?,
            nlink: u32_at(bytes, 12)?,
            mtime_s: u64_at(bytes, 16)?.cast_signed(),
            mtime_ns: u32_at(bytes, 24)?,
            rdev: u32_at(bytes, 28)?,
            size: u64_at(bytes, 32)?,
            at: u64_at(bytes, 40)?,
            count: u32_at(bytes, 48)?,
            xattrs: u32_at(bytes, 52)?,
            parent: u32_at(bytes, 56)?,
        })
    }
}

/// A directory entry as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawDirent {
    pub(super) name_at: u32,
    pub(super) name_length: u16,
    pub(super) ino: u32,
}

impl RawDirent {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.name_at.to_le_bytes());
        into.extend(self.name_length.to_le_bytes());
        into.extend([0; 2]);
        into.extend(self.ino.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<RawDirent> {
        Some(RawDirent {
            name_at: u32_at(bytes, 0)?,
            name_length: u16_at(bytes, 4)?,
            ino: u32_at(bytes, 8)?,
        })
    }
}

fn kind_code(kind: NodeKind) -> u8 {
    match kind {
        NodeKind::Regular => 0,
        NodeKind::Directory => 1,
        NodeKind::Symlink => 2,
        NodeKind::CharDevice => 3,
        NodeKind::BlockDevice => 4,
        NodeKind::Fifo => 5,
    }
}

fn kind(code: u8) -> Option<NodeKind> {
    Some(match code {
        0 => NodeKind::Regular,
        1 => NodeKind::Directory,
        2 => NodeKind::Symlink,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        _ => return None,
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
