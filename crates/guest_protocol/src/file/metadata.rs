//! What is known about a file, as the kernel's statx(2) tells it.

use crate::bytes::{FieldReader, FrameWriter};
use crate::{Error, wire};

const NS: u32 = 1_000_000_000;

/// A moment of a file, which may lie before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// ns after them, below 1,000,000,000.
    pub ns: u32,
}

/// What is known about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    /// Type and permissions, as `st_mode` has them.
    pub mode: u16,
    /// Number of names.
    pub links: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Inode number.
    pub inode: u64,
    /// Length, in bytes.
    pub size: u64,
    /// Space it takes, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred block size for reading and writing, in bytes.
    pub block_size: u32,
    /// Major and minor number of the device it lies on.
    pub device: (u32, u32),
    /// Major and minor number of the device a device file stands for.
    pub device_file: (u32, u32),
    /// Last access.
    pub accessed: FileTime,
    /// Last change of its contents.
    pub modified: FileTime,
    /// Last change of its metadata.
    pub changed: FileTime,
    /// When it was made, where the file system knows.
    pub created: Option<FileTime>,
}

/// Bits of the mask of what every file has (`STATX_BASIC_STATS`).
const BASIC: u32 = 0x7ff;

/// The fields lie in the order of the offsets in [`wire`]; attributes are left out.
pub(crate) fn encode_metadata(w: &mut FrameWriter<'_>, metadata: &FileMetadata) {
    let FileMetadata {
        mode,
        links,
        uid,
        gid,
        inode,
        size,
        blocks,
        block_size,
        device,
        device_file,
        accessed,
        modified,
        changed,
        created,
    } = metadata;
    let has_created = if created.is_some() {
        wire::METADATA_HAS_CREATED
    } else {
        0
    };
    w.u32(BASIC | has_created);
    w.u32(*block_size);
    w.u64(0);
    w.u32(*links);
    w.u32(*uid);
    w.u32(*gid);
    w.u16(*mode);
    w.u16(0);
    w.u64(*inode);
    w.u64(*size);
    w.u64(*blocks);
    w.u64(0);
    encode_time(w, accessed);
    encode_time(w, &created.unwrap_or(FileTime { seconds: 0, ns: 0 }));
    encode_time(w, changed);
    encode_time(w, modified);
    for number in [device_file.0, device_file.1, device.0, device.1] {
        w.u32(number);
    }
}

fn encode_time(w: &mut FrameWriter<'_>, time: &FileTime) {
    w.require("time", time.ns < NS);
    w.u64(time.seconds.cast_unsigned());
    w.u32(time.ns);
    w.u32(0);
}

pub(crate) fn decode_metadata(r: &mut FieldReader<'_>) -> Result<FileMetadata, Error> {
    let mask = r.u32()?;
    let block_size = r.u32()?;
    r.skip(8)?;
    let (links, uid, gid, mode) = (r.u32()?, r.u32()?, r.u32()?, r.u16()?);
    r.skip(2)?;
    let (inode, size, blocks) = (r.u64()?, r.u64()?, r.u64()?);
    r.skip(8)?;
    let (accessed, created) = (decode_time(r)?, decode_time(r)?);
    let (changed, modified) = (decode_time(r)?, decode_time(r)?);
    Ok(FileMetadata {
        mode,
        links,
        uid,
        gid,
        inode,
        size,
        blocks,
        block_size,
        device_file: (r.u32()?, r.u32()?),
        device: (r.u32()?, r.u32()?),
        accessed,
        modified,
        changed,
        created: (mask & wire::METADATA_HAS_CREATED != 0).then_some(created),
    })
}

fn decode_time(r: &mut FieldReader<'_>) -> Result<FileTime, Error> {
    let (seconds, ns) = (r.u64()?.cast_signed(), r.u32()?);
    r.skip(4)?;
    if ns >= NS {
        return Err(r.bad("time"));
    }
    Ok(FileTime { seconds, ns })
}
