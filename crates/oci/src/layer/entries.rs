//! The list of a layer's entries as it is stored: the archive's metadata in the archive's order.
//!
//! Little-endian: magic, number of entries (u64), length of the contents file (u64), then per entry: type
//! (u8), mode (u16), uid, gid (u32), seconds (i64), nanoseconds (u32), device (u32), size, offset (u64), path
//! and link (u16 length, bytes), number of attributes (u16) and each one's name (u8 length) and value (u32).

use super::tar::{Entry, EntryType};

const MAGIC: &[u8; 8] = b"CCLAYER1";
/// Bytes an entry has at least; bounds the number of entries a file can claim.
const MIN_ENTRY: usize = 49;

/// What an entry does to the tree (OCI image specification, "Representing Changes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Adds a node, or replaces what is there.
    Add(EntryType),
    /// Removes what lower layers have at the path.
    Whiteout,
    /// Removes what lower layers have in the directory at the path.
    Opaque,
}

/// One change, borrowed from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) change: Change,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    /// Linux's encoding of the device number.
    pub(crate) rdev: u32,
    pub(crate) size: u64,
    /// Where a regular file begins in the contents file.
    pub(crate) offset: u64,
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    /// Encoded attributes, see [`xattrs`].
    pub(crate) xattrs: &'a [u8],
}

/// Linux's encoding of a device number in 32 bits (`new_encode_dev`): 12 bits of major, 20 of minor.
pub(crate) fn encode_device((major, minor): (u32, u32)) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Builds the list.
pub(crate) struct EntriesWriter {
    bytes: Vec<u8>,
    count: u64,
}

impl EntriesWriter {
    pub(crate) fn new() -> EntriesWriter {
        EntriesWriter {
            bytes: [&MAGIC[..], &[0; 16]].concat(),
            count: 0,
        }
    }

    /// Adds an entry; `rdev` and `offset` as in [`Record`].
    pub(crate) fn push(&mut self, change: Change, entry: &Entry, rdev: u32, offset: u64) {
        self.count += 1;
        let bytes = &mut self.bytes;
        bytes.push(code(change));
        bytes.extend(entry.mode.to_le_bytes());
        bytes.extend(entry.uid.to_le_bytes());
        bytes.extend(entry.gid.to_le_bytes());
        bytes.extend(entry.mtime.0.to_le_bytes());
        bytes.extend(entry.mtime.1.to_le_bytes());
        bytes.extend(rdev.to_le_bytes());
        bytes.extend(entry.size.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        // Lengths were limited by the reader of the archive: names to 4095, attributes to 1024.
        for text in [&entry.path, &entry.link] {
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes.extend((entry.xattrs.len() as u16).to_le_bytes());
        for (name, value) in &entry.xattrs {
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name);
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        }
    }

    /// Bytes of the list so far.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The finished list.
    pub(crate) fn finish(mut self, contents_length: u64) -> Vec<u8> {
        self.bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&contents_length.to_le_bytes());
        self.bytes
    }
}

fn code(change: Change) -> u8 {
    match change {
        Change::Add(EntryType::Regular) => 0,
        Change::Add(EntryType::HardLink) => 1,
        Change::Add(EntryType::Symlink) => 2,
        Change::Add(EntryType::CharDevice) => 3,
        Change::Add(EntryType::BlockDevice) => 4,
        Change::Add(EntryType::Directory) => 5,
        Change::Add(EntryType::Fifo) => 6,
        Change::Whiteout => 7,
        Change::Opaque => 8,
    }
}

fn change(code: u8) -> Option<Change> {
    Some(match code {
        0 => Change::Add(EntryType::Regular),
        1 => Change::Add(EntryType::HardLink),
        2 => Change::Add(EntryType::Symlink),
        3 => Change::Add(EntryType::CharDevice),
        4 => Change::Add(EntryType::BlockDevice),
        5 => Change::Add(EntryType::Directory),
        6 => Change::Add(EntryType::Fifo),
        7 => Change::Whiteout,
        8 => Change::Opaque,
        _ => return None,
    })
}

/// Reads the list; yields `Err` once and then nothing where it is damaged.
pub(crate) struct EntriesReader<'a> {
    rest: &'a [u8],
    left: u64,
    contents_length: u64,
}

/// The list is not what was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl<'a> EntriesReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<EntriesReader<'a>, Damaged> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(Damaged)?;
        let left = u64::from_le_bytes(take(&mut rest)?);
        let contents_length = u64::from_le_bytes(take(&mut rest)?);
        if left > (rest.len() / MIN_ENTRY) as u64 {
            return Err(Damaged);
        }
        Ok(EntriesReader {
            rest,
            left,
            contents_length,
        })
    }

    /// How many entries are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    fn record(&mut self) -> Result<Record<'a>, Damaged> {
        let rest = &mut self.rest;
        let record = Record {
            change: change(take::<1>(rest)?[0]).ok_or(Damaged)?,
            mode: u16::from_le_bytes(take(rest)?),
            uid: u32::from_le_bytes(take(rest)?),
            gid: u32::from_le_bytes(take(rest)?),
            mtime: (i64::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?)),
            rdev: u32::from_le_bytes(take(rest)?),
            size: u64::from_le_bytes(take(rest)?),
            offset: u64::from_le_bytes(take(rest)?),
            path: take_text(rest)?,
            link: take_text(rest)?,
            xattrs: take_xattrs(rest)?,
        };
        let end = record.offset.checked_add(record.size).ok_or(Damaged)?;
        if record.change == Change::Add(EntryType::Regular) && end > self.contents_length {
            return Err(Damaged);
        }
        Ok(record)
    }
}

impl<'a> Iterator for EntriesReader<'a> {
    type Item = Result<Record<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.record();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (head, tail) = rest.split_first_chunk().ok_or(Damaged)?;
    *rest = tail;
    Ok(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Damaged> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Damaged)?;
    *rest = tail;
    Ok(head)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = u16::from_le_bytes(take(rest)?);
    take_slice(rest, length.into())
}

/// Takes all attributes of an entry in their encoded form, without their number.
fn take_xattrs<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let count = u16::from_le_bytes(take(rest)?);
    let start = *rest;
    for _ in 0..count {
        take_xattr(rest)?;
    }
    Ok(&start[..start.len() - rest.len()])
}

fn take_xattr<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Damaged> {
    let name_length = take::<1>(rest)?[0];
    let name = take_slice(rest, name_length.into())?;
    let value_length = u32::from_le_bytes(take(rest)?);
    let value = take_slice(rest, usize::try_from(value_length).map_err(|_| Damaged)?)?;
    Ok((name, value))
}

/// Names and values of encoded attributes; ends early where they are damaged.
pub(crate) fn xattrs(mut encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || take_xattr(&mut encoded).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            path: b"a/b".to_vec(),
            kind: EntryType::Regular,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: (-3, 4),
            size: 5,
            link: b"x".to_vec(),
            device: (0, 0),
            xattrs: vec![(b"user.k".to_vec(), b"v".to_vec()), (b"n".to_vec(), vec![])],
            sparse: None,
        }
    }

    #[test]
    fn entries_written_are_read_back() {
        let mut writer = EntriesWriter::new();
        writer.push(Change::Add(EntryType::Regular), &entry(), 9, 4096);
        writer.push(Change::Opaque, &entry(), 0, 0);
        let bytes = writer.finish(8192);
        let records: Vec<_> = EntriesReader::new(&bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(
            (records[0].offset, records[0].rdev, records[0].mtime),
            (4096, 9, (-3, 4))
        );
        assert_eq!(records[1].change, Change::Opaque);
        let xattrs: Vec<_> = xattrs(records[0].xattrs).collect();
        assert_eq!(xattrs, [(&b"user.k"[..], &b"v"[..]), (b"n", b"")]);
    }

    #[test]
    fn entries_content_out_of_bounds_is_damage() {
        let mut writer = EntriesWriter::new();
        writer.push(Change::Add(EntryType::Regular), &entry(), 0, 4096);
        let bytes = writer.finish(4096);
        assert_eq!(EntriesReader::new(&bytes).unwrap().next(), Some(Err(Damaged)));
    }

    #[test]
    fn device_numbers_are_encoded_as_linux_does() {
        assert_eq!(encode_device((1, 3)), Some(0x103));
        assert_eq!(encode_device((259, 0x12345)), Some(0x123 << 20 | 259 << 8 | 0x45));
        assert_eq!(encode_device((4096, 0)), None);
        assert_eq!(encode_device((0, 1 << 20)), None);
    }

    proptest::proptest! {
        #[test]
        fn entries_random_damage_never_panics(at in 0usize..120, byte in 0u8.., cut in 0usize..150) {
            let mut writer = EntriesWriter::new();
            writer.push(Change::Add(EntryType::Regular), &entry(), 9, 4096);
            writer.push(Change::Whiteout, &entry(), 0, 0);
            let mut bytes = writer.finish(8192);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(reader) = EntriesReader::new(&bytes) {
                for record in reader.flatten() {
                    let _ = xattrs(record.xattrs).count();
                }
            }
        }
    }
}
