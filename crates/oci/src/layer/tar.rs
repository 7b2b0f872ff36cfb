//! A streaming reader of tar archives that trusts nothing in them.

use std::io::{self, BufRead};

use super::header::{BLOCK, Block, GnuSparse, Header, read_segments};
use super::pax::Pax;
use super::sparse::{MapLines, SparseMap, check_segment_count};
use super::{Fault, Limits};

/// Longest name of an entry or a link in bytes: Linux's PATH_MAX without the NUL.
pub(crate) const MAX_PATH: usize = 4095;
const MAX_COMPONENT: usize = 255;
/// Longest PAX header or GNU long name.
const MAX_EXTENDED: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryType {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry of an archive. Content of regular files is read with [`TarReader::content`].
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to the root, without `.`, `..` and needless slashes; empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Low twelve bits of the mode.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    /// Length of a regular file, holes included.
    pub(crate) size: u64,
    /// Target of a symbolic link as it is, of a hard link in the form of `path`.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Stored parts of a sparse file.
    pub(crate) sparse: Option<SparseMap>,
}

/// Reads entries one after the other.
pub(crate) struct TarReader<R> {
    input: R,
    limits: Limits,
    entries: u64,
    /// Content bytes of the current entry not read yet, and the padding behind them.
    unread: u64,
    padding: u64,
    ended: bool,
}

/// Headers that speak of the entry after them.
#[derive(Default)]
struct Extended {
    pax: Pax,
    gnu_path: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(input: R, limits: Limits) -> TarReader<R> {
        TarReader {
            input,
            limits,
            entries: 0,
            unread: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end mark or where the input ends between entries.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Fault> {
        self.skip_content()?;
        let mut extended = Extended::default();
        let mut block: Block = [0; BLOCK];
        loop {
            if self.ended || !self.read_block(&mut block)? || block.iter().all(|&byte| byte == 0) {
                self.ended = true;
                return Ok(None);
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(Fault::Bad(format!(
                    "it has more than {} entries",
                    self.limits.entries
                )));
            }
            let header = Header::parse(&block)?;
            match header.type_flag() {
                b'x' => extended.pax = Pax::parse(&self.extended_data(&header)?)?,
                b'g' => drop(self.extended_data(&header)?),
                b'L' => extended.gnu_path = Some(self.extended_text(&header)?),
                b'K' => extended.gnu_link = Some(self.extended_text(&header)?),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    /// Passes the stored content of the current entry on, in order.
    pub(crate) fn content(
        &mut self,
        mut length: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Fault> {
        while length > 0 {
            let buffer = self.input.fill_buf().map_err(Fault::Input)?;
            if buffer.is_empty() {
                return Err(truncated());
            }
            let count = usize::try_from(length).map_or(buffer.len(), |length| buffer.len().min(length));
            sink(&buffer[..count]).map_err(Fault::Output)?;
            self.input.consume(count);
            length -= count as u64;
            self.unread = self.unread.saturating_sub(count as u64);
        }
        Ok(())
    }

    /// Reads what follows the end mark, so that the whole input has been seen.
    pub(crate) fn drain(mut self) -> Result<R, Fault> {
        loop {
            let count = self.input.fill_buf().map_err(Fault::Input)?.len();
            if count == 0 {
                return Ok(self.input);
            }
            self.input.consume(count);
        }
    }

    fn skip_content(&mut self) -> Result<(), Fault> {
        let rest = self.unread + self.padding;
        self.padding = 0;
        self.content(rest, |_| Ok(()))
    }

    /// Fills a block; false when the input ends before its first byte.
    fn read_block(&mut self, block: &mut Block) -> Result<bool, Fault> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf().map_err(Fault::Input)?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(false) } else { Err(truncated()) };
            }
            let count = buffer.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&buffer[..count]);
            self.input.consume(count);
            filled += count;
        }
        Ok(true)
    }

    fn begin_content(&mut self, size: u64) {
        self.unread = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn extended_data(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let size = header.size()?;
        if size > MAX_EXTENDED {
            return Err(Fault::Bad("it has an extended header longer than 1 MiB".into()));
        }
        self.begin_content(size);
        let mut data = Vec::new();
        self.content(size, |bytes| {
            data.extend_from_slice(bytes);
            Ok(())
        })?;
        self.skip_content()?;
        Ok(data)
    }

    /// The text of a GNU long name, which ends with NUL.
    fn extended_text(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let mut text = self.extended_data(header)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry, Fault> {
        let Extended {
            mut pax,
            gnu_path,
            gnu_link,
        } = extended;
        let raw_path = pax
            .sparse
            .name
            .take()
            .or(pax.path.take())
            .or(gnu_path)
            .unwrap_or_else(|| header.path());
        let kind = entry_type(header.type_flag(), &raw_path)?;
        let path = normalise(&raw_path).map_err(|reason| Fault::of_entry(&raw_path, reason))?;
        let bad = |reason: &str| Fault::of_entry(&raw_path, reason);
        let raw_link = pax.link.take().or(gnu_link).unwrap_or_else(|| header.link());
        let link = match kind {
            EntryType::HardLink => normalise(&raw_link)
                .ok()
                .filter(|link| !link.is_empty())
                .ok_or_else(|| bad("it is a hard link out of the root"))?,
            EntryType::Symlink => check_symlink(raw_link).map_err(bad)?,
            _ => Vec::new(),
        };
        let id = |number: u64, name| u32::try_from(number).map_err(|_| bad(name));
        let (major, minor) = match kind {
            EntryType::CharDevice | EntryType::BlockDevice => header.device()?,
            _ => (0, 0),
        };
        let mut entry = Entry {
            path,
            kind,
            mode: (header.mode()? & 0o7777) as u16,
            uid: id(
                pax.uid.map_or_else(|| header.uid(), Ok)?,
                "its uid is out of range",
            )?,
            gid: id(
                pax.gid.map_or_else(|| header.gid(), Ok)?,
                "its gid is out of range",
            )?,
            mtime: pax
                .mtime
                .map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            size: 0,
            link,
            device: (
                id(major, "its device number is out of range")?,
                id(minor, "its device number is out of range")?,
            ),
            xattrs: std::mem::take(&mut pax.xattrs),
            sparse: None,
        };
        check_xattrs(&entry.xattrs).map_err(bad)?;
        if kind == EntryType::Regular {
            self.begin_file(header, &pax, &mut entry)?;
        }
        Ok(entry)
    }

    /// Finds out where a regular file's content is and how long the file is.
    fn begin_file(&mut self, header: &Header, pax: &Pax, entry: &mut Entry) -> Result<(), Fault> {
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        if stored > self.limits.layer_bytes {
            return Err(Fault::of_entry(
                &entry.path,
                "it is longer than the limit for a layer",
            ));
        }
        let of_entry = |reason: &'static str| Fault::of_entry(&entry.path, reason);
        let map = if header.type_flag() == b'S' {
            let (segments, real_size) = self.old_gnu_segments(header)?;
            self.begin_content(stored);
            Some(SparseMap::new(segments, real_size, stored, &self.limits).map_err(of_entry)?)
        } else {
            self.begin_content(stored);
            match (pax.sparse.major, pax.sparse.minor, pax.sparse.real_size) {
                (Some(1), Some(0), Some(real_size)) => {
                    let segments = self.leading_segments(&entry.path)?;
                    Some(SparseMap::new(segments, real_size, self.unread, &self.limits).map_err(of_entry)?)
                }
                (_, _, Some(real_size)) if pax.sparse.has_map => {
                    let segments = SparseMap::pairs(&pax.sparse.map).map_err(of_entry)?;
                    Some(SparseMap::new(segments, real_size, stored, &self.limits).map_err(of_entry)?)
                }
                (None, None, _) if !pax.sparse.has_map => None,
                _ => return Err(of_entry("it is a sparse file of an unknown version")),
            }
        };
        entry.size = map.as_ref().map_or(stored, |map| map.real_size);
        entry.sparse = map;
        Ok(())
    }

    fn old_gnu_segments(&mut self, header: &Header) -> Result<(Vec<(u64, u64)>, u64), Fault> {
        let GnuSparse {
            mut segments,
            mut more,
            real_size,
        } = header.gnu_sparse()?;
        let mut block: Block = [0; BLOCK];
        while more {
            if !self.read_block(&mut block)? {
                return Err(truncated());
            }
            read_segments(&block[..504], &mut segments)?;
            check_segment_count(segments.len())?;
            more = block[504] != 0;
        }
        Ok((segments, real_size))
    }

    /// The map in front of a PAX 1.0 sparse file's data, in whole blocks.
    fn leading_segments(&mut self, path: &[u8]) -> Result<Vec<(u64, u64)>, Fault> {
        let mut lines = MapLines::default();
        let mut block: Block = [0; BLOCK];
        loop {
            if self.unread < BLOCK as u64 || !self.read_block(&mut block)? {
                return Err(Fault::of_entry(path, "its sparse map is truncated"));
            }
            self.unread -= BLOCK as u64;
            if lines
                .feed(&block)
                .map_err(|reason| Fault::of_entry(path, reason))?
            {
                return SparseMap::pairs(lines.numbers()).map_err(|reason| Fault::of_entry(path, reason));
            }
        }
    }
}

fn truncated() -> Fault {
    Fault::Bad("its archive ends in the middle of an entry".into())
}

fn entry_type(flag: u8, path: &[u8]) -> Result<EntryType, Fault> {
    Ok(match flag {
        // V7 had no type for directories but a slash at the end.
        b'0' | 0 if path.last() == Some(&b'/') => EntryType::Directory,
        b'0' | 0 | b'7' | b'S' => EntryType::Regular,
        b'1' => EntryType::HardLink,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::CharDevice,
        b'4' => EntryType::BlockDevice,
        b'5' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => {
            let shown = (other as char).escape_default();
            return Err(Fault::of_entry(
                path,
                format_args!("its type `{shown}` is not one of an image layer"),
            ));
        }
    })
}

/// Resolves `.` and `..` by name alone; leaving the root is an error, a leading slash is not.
pub(crate) fn normalise(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("its name is longer than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("its name has a NUL byte");
    }
    let mut clean: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(clean.pop().ok_or("its name leaves the root (`..`)")?),
            _ if component.len() > MAX_COMPONENT => return Err("its name has a part longer than 255 bytes"),
            _ => clean.push(component),
        }
    }
    Ok(clean.join(&b'/'))
}

fn check_symlink(target: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    match target.len() {
        0 => Err("it is a symbolic link to nothing"),
        1..=MAX_PATH if !target.contains(&0) => Ok(target),
        _ => Err("it is a symbolic link whose target no system can follow"),
    }
}

/// Linux's limits: names of 255 bytes, values of 64 KiB (xattr(7)).
fn check_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), &'static str> {
    let bad = |(name, value): &(Vec<u8>, Vec<u8>)| {
        name.is_empty() || name.len() > MAX_COMPONENT || name.contains(&0) || value.len() > 65536
    };
    if xattrs.len() > 1024 || xattrs.iter().any(bad) {
        return Err("its extended attributes are beyond the system's limits");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalise_resolves_inside_and_refuses_outside() {
        assert_eq!(normalise(b"./a//b/../c/").unwrap(), b"a/c");
        assert_eq!(normalise(b"/etc/passwd").unwrap(), b"etc/passwd");
        assert_eq!(normalise(b"./").unwrap(), b"");
        assert!(normalise(b"../x").is_err());
        assert!(normalise(b"a/../../x").is_err());
        assert!(normalise(&[b'a'; 256]).is_err());
        assert!(normalise(b"a\0b").is_err());
    }

    #[test]
    fn tar_empty_input_has_no_entries() {
        assert!(
            TarReader::new(&b""[..], Limits::default())
                .next()
                .unwrap()
                .is_none()
        );
        assert!(
            TarReader::new(&[0; 1024][..], Limits::default())
                .next()
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn tar_partial_block_is_refused() {
        let fault = TarReader::new(&[1; 100][..], Limits::default())
            .next()
            .unwrap_err();
        assert!(matches!(fault, Fault::Bad(reason) if reason.contains("ends in the middle")));
    }

    proptest::proptest! {
        #[test]
        fn tar_random_bytes_behind_a_real_header_never_panic(
            flag in proptest::prelude::any::<u8>(),
            damage in proptest::collection::vec((0usize..512, 0u8..), 0..8),
            tail in proptest::collection::vec(0u8.., 0..2048),
        ) {
            let mut header = tar::Header::new_gnu();
            header.set_path("some/name").unwrap();
            header.set_size(tail.len() as u64);
            header.as_mut_bytes()[156] = flag;
            for (at, byte) in damage {
                header.as_mut_bytes()[at] = byte;
            }
            header.set_cksum();
            let bytes = [&header.as_bytes()[..], &tail].concat();
            let mut reader = TarReader::new(&bytes[..], Limits::default());
            while let Ok(Some(entry)) = reader.next() {
                let stored = reader.unread;
                let _ = (entry, reader.content(stored, |_| Ok(())));
            }
        }
    }
}
