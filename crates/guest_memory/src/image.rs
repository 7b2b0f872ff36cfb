//! RAM as a file: written without its zeroes, and mapped back copy-on-write.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion};

use crate::mapping::LARGE_PAGE;
use crate::{GuestMemory, PAGE_SIZE};

/// What is looked at and copied at a time: a large page, so that what is zero throughout stays the host's to give in
/// large pages after a restore.
const PIECE: usize = LARGE_PAGE;

const ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// How finely RAM that was mapped from an image is told apart from it: less would be more mappings, more would copy what
/// did not change.
const BLOCK: usize = 64 << 10;

/// A stretch of RAM and where it lies in the files of an image; all but the file's number multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Which of the files.
    pub file: u32,
    /// Where in the file its first byte is.
    pub offset: u64,
}

impl GuestMemory {
    /// Writes RAM to `file`, which is empty, and says what lies where, `file` being number 0; RAM outside of the extents is
    /// zero. Pages of zeroes inside of them are holes. `written_up_to` hears how much of the file is complete. Nobody may
    /// write to RAM meanwhile.
    ///
    /// `base` is what this RAM was mapped from, or a part of that. What did not change since is not written: it stays where
    /// it is in the base's files, whose numbers are greater by one then.
    ///
    /// # Errors
    /// What the file says.
    pub fn write_image(
        &self,
        file: &File,
        base: &[Extent],
        written_up_to: impl Fn(u64),
    ) -> io::Result<Vec<Extent>> {
        let mut image = ImageWriter {
            file,
            base: Vec::new(),
            len: 0,
            extents: Vec::new(),
            piece: vec![0; PIECE],
            own: Vec::new(),
        };
        // Where the host does not tell what did not change, all is written.
        if !base.is_empty()
            && let Ok(own) = self.own_pages()
        {
            image.own = own;
            image.base = base.to_vec();
            image.base.sort_by_key(|extent| extent.gpa);
        }
        for region in self.regions() {
            let end = region.gpa + region.len;
            let mut gpa = region.gpa;
            while gpa < end {
                let next = (gpa + 1).next_multiple_of(PIECE as u64).min(end);
                image.piece(self, gpa, (next - gpa) as usize)?;
                written_up_to(image.len);
                gpa = next;
            }
        }
        file.set_len(image.len)?;
        Ok(image.extents)
    }

    /// Maps `extents` of `files` over RAM that is still as it was made: pages come from the files when they are touched,
    /// and copies of those that are written stay here. It costs the same for much RAM as for little.
    ///
    /// Nobody may shorten or change the files as long as this RAM lives: a touch of what is gone ends the process.
    ///
    /// # Errors
    /// `InvalidInput` for an extent that is not whole pages of one region, or of no file, `UnexpectedEof` where the file is
    /// too short; RAM must then be thrown away. What the system says.
    pub fn map_image(&self, files: &[File], extents: &[Extent]) -> io::Result<()> {
        let lengths = files
            .iter()
            .map(|file| file.metadata().map(|metadata| metadata.len()))
            .collect::<io::Result<Vec<_>>>()?;
        for extent in extents {
            let Extent { gpa, len, offset, .. } = *extent;
            let number = extent.file as usize;
            let (Some(file), Some(&length)) = (files.get(number), lengths.get(number)) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            if offset.checked_add(len).is_none_or(|end| end > length) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let region = self.map.find_region(GuestAddress(gpa));
            let whole = [gpa, len, offset].iter().all(|number| number % PAGE_SIZE == 0);
            let (Some(region), true) = (region, whole) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let at = (gpa - region.start_addr().0) as usize;
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
            MmapRegion::bitmap(region).overlay(at, len, file, offset)?;
        }
        Ok(())
    }
}

/// Copies `len` bytes of a file to another, pages of zeroes apart: there the other must be empty, and have holes.
///
/// # Errors
/// What the files say; `UnexpectedEof` where the first is too short.
pub fn copy_data(from: &File, offset: u64, to: &File, to_offset: u64, len: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut piece[..count];
        from.read_exact_at(piece, offset + done)?;
        write_data(piece, to, to_offset + done)?;
        done += count as u64;
    }
    Ok(())
}

/// Writes what is not zero of `piece`, page by page; false where there is no such.
fn write_data(piece: &[u8], file: &File, offset: u64) -> io::Result<bool> {
    let mut run: Option<usize> = None;
    let mut any = false;
    for (number, page) in piece.chunks(PAGE_SIZE as usize).enumerate() {
        let at = number * PAGE_SIZE as usize;
        let zero = *page == ZEROES[..page.len()];
        any |= !zero;
        match (zero, run) {
            (false, None) => run = Some(at),
            (true, Some(from)) => {
                file.write_all_at(&piece[from..at], offset + from as u64)?;
                run = None;
            }
            _ => {}
        }
    }
    if let Some(from) = run {
        file.write_all_at(&piece[from..], offset + from as u64)?;
    }
    Ok(any)
}

struct ImageWriter<'a> {
    file: &'a File,
    /// In ascending order.
    base: Vec<Extent>,
    /// Bytes of the file so far.
    len: u64,
    extents: Vec<Extent>,
    piece: Vec<u8>,
    /// Pages that are no longer the base's, in ascending order.
    own: Vec<Range<u64>>,
}

impl ImageWriter<'_> {
    /// Takes up `len` bytes at `gpa`, at most [`PIECE`].
    fn piece(&mut self, memory: &GuestMemory, gpa: u64, len: usize) -> io::Result<()> {
        if !self.reaches_into_base(gpa, len as u64) {
            return self.write(memory, gpa, len);
        }
        for offset in (0..len).step_by(BLOCK) {
            let at = gpa + offset as u64;
            let len = BLOCK.min(len - offset);
            match self.in_base(at, len as u64) {
                Some(extent) if !self.has_own(at, len as u64) => self.add(extent),
                _ => self.write(memory, at, len)?,
            }
        }
        Ok(())
    }

    /// Whether a page among `len` bytes at `gpa` is no longer the base's.
    fn has_own(&self, gpa: u64, len: u64) -> bool {
        let after = self.own.partition_point(|pages| pages.start < gpa + len);
        let last = after.checked_sub(1).and_then(|last| self.own.get(last));
        last.is_some_and(|pages| gpa < pages.end)
    }

    /// The last extent of the base that begins before `gpa`.
    fn last_before(&self, gpa: u64) -> Option<&Extent> {
        let after = self.base.partition_point(|extent| extent.gpa < gpa);
        after.checked_sub(1).and_then(|last| self.base.get(last))
    }

    fn reaches_into_base(&self, gpa: u64, len: u64) -> bool {
        let last = self.last_before(gpa + len);
        last.is_some_and(|extent| gpa < extent.gpa + extent.len)
    }

    /// Where `len` bytes at `gpa` lie in the base, if they do as a whole.
    fn in_base(&self, gpa: u64, len: u64) -> Option<Extent> {
        let has_it = |extent: &&Extent| gpa + len <= extent.gpa + extent.len;
        let extent = self.last_before(gpa + 1).filter(has_it)?;
        Some(Extent {
            gpa,
            len,
            file: extent.file + 1,
            offset: extent.offset + (gpa - extent.gpa),
        })
    }

    /// Writes `len` bytes at `gpa`, at most [`PIECE`], unless they are all zero.
    fn write(&mut self, memory: &GuestMemory, gpa: u64, len: usize) -> io::Result<()> {
        let slice =
            GuestMemoryBackend::get_slice(&**memory, GuestAddress(gpa), len).map_err(io::Error::other)?;
        slice.copy_to(&mut self.piece[..len]);
        let start = self.len;
        let any = write_data(&self.piece[..len], self.file, start)?;
        if any {
            self.len += len as u64;
            self.add(Extent {
                gpa,
                len: len as u64,
                file: 0,
                offset: start,
            });
        }
        Ok(())
    }

    /// Extents that follow each other are one.
    fn add(&mut self, extent: Extent) {
        let follows = |last: &&mut Extent| {
            last.file == extent.file
                && last.gpa + last.len == extent.gpa
                && last.offset + last.len == extent.offset
        };
        match self.extents.last_mut().filter(follows) {
            Some(last) => last.len += extent.len,
            None => self.extents.push(extent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    const LARGE: u64 = LARGE_PAGE as u64;
    const REGIONS: [(u64, u64); 2] = [(0, 4 * LARGE), (0x1_0000_0000, LARGE + 0x3000)];

    /// RAM with a few bytes in it: at its start, in its third large page, and at its very end.
    fn written() -> (GuestMemory, [u64; 3]) {
        let memory = GuestMemory::anonymous(&REGIONS).unwrap();
        let places = [0x10, 2 * LARGE + 0x5008, 0x1_0000_0000 + LARGE + 0x2ff8];
        for place in places {
            memory.write_obj(place | 1, GuestAddress(place)).unwrap();
        }
        (memory, places)
    }

    fn extent(gpa: u64, len: u64, offset: u64) -> Extent {
        Extent {
            gpa,
            len,
            file: 0,
            offset,
        }
    }

    #[test]
    fn write_image_over_a_base_has_only_what_changed() {
        let (memory, places) = written();
        let files = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let base = memory.write_image(&files[0], &[], drop).unwrap();
        let changed = GuestMemory::anonymous(&REGIONS).unwrap();
        changed.map_image(&files[..1], &base).unwrap();
        // A read makes no page one's own; these are a block of zeroes, one with something in it, and one that was all zero.
        assert_eq!(
            changed.read_obj::<u64>(GuestAddress(places[2])).unwrap(),
            places[2] | 1
        );
        changed.write_obj(0_u64, GuestAddress(places[0])).unwrap();
        changed.write_obj(5_u64, GuestAddress(places[1] + 8)).unwrap();
        changed.write_obj(6_u64, GuestAddress(3 * LARGE)).unwrap();

        let extents = changed.write_image(&files[1], &base, drop).unwrap();
        let copy = GuestMemory::anonymous(&REGIONS).unwrap();
        let [older, newer] = files;
        let written = newer.metadata().unwrap().len();
        copy.map_image(&[newer, older], &extents).unwrap();

        assert_eq!(written, BLOCK as u64 + LARGE);
        let number = |place| copy.read_obj::<u64>(GuestAddress(place)).unwrap();
        assert_eq!(places.map(number), [0, places[1] | 1, places[2] | 1]);
        assert_eq!((number(places[1] + 8), number(3 * LARGE)), (5, 6));
    }

    #[test]
    fn write_image_leaves_out_zeroes_and_map_image_brings_back_the_rest() {
        let (memory, places) = written();
        let file = tempfile::tempfile().unwrap();

        let extents = memory.write_image(&file, &[], drop).unwrap();
        let copy = GuestMemory::anonymous(&REGIONS).unwrap();
        copy.map_image(&[file.try_clone().unwrap()], &extents).unwrap();

        let wanted = [
            (0, LARGE, 0),
            (2 * LARGE, LARGE, LARGE),
            (0x1_0000_0000 + LARGE, 0x3000, 2 * LARGE),
        ];
        let wanted = wanted.map(|(gpa, len, offset)| extent(gpa, len, offset));
        assert_eq!(extents, wanted);
        for place in places {
            assert_eq!(copy.read_obj::<u64>(GuestAddress(place)).unwrap(), place | 1);
            assert_eq!(copy.read_obj::<u64>(GuestAddress(place ^ 0x20)).unwrap(), 0);
        }
    }

    #[test]
    fn map_image_writes_stay_with_the_writer() {
        let (memory, places) = written();
        let file = tempfile::tempfile().unwrap();
        let extents = memory.write_image(&file, &[], drop).unwrap();
        let copies = [(); 2].map(|()| GuestMemory::anonymous(&REGIONS).unwrap());
        for copy in &copies {
            copy.map_image(&[file.try_clone().unwrap()], &extents).unwrap();
        }

        copies[0].write_obj(0_u64, GuestAddress(places[0])).unwrap();

        assert_eq!(copies[0].read_obj::<u64>(GuestAddress(places[0])).unwrap(), 0);
        assert_eq!(copies[1].read_obj::<u64>(GuestAddress(places[0])).unwrap(), 0x11);
    }

    #[test]
    fn map_image_impossible_extents_are_refused() {
        let memory = GuestMemory::anonymous(&REGIONS).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(LARGE).unwrap();
        let files = [file];
        for (gpa, len, offset) in [
            (0, LARGE, 0x1000),
            (0, LARGE, u64::MAX),
            (0x800, 0x1000, 0),
            (0, 0x1000, 0x800),
            (0, 0, 0),
            (4 * LARGE - 0x1000, 0x2000, 0),
            (8 * LARGE, 0x1000, 0),
        ] {
            assert!(memory.map_image(&files, &[extent(gpa, len, offset)]).is_err());
        }
        let of_no_file = Extent {
            file: 1,
            ..extent(0, LARGE, 0)
        };
        assert!(memory.map_image(&files, &[of_no_file]).is_err());
    }
}
