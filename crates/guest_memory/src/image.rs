//! RAM as a file: written without its zeroes, and mapped back copy-on-write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion};

use crate::mapping::LARGE_PAGE;
use crate::{GuestMemory, PAGE_SIZE};

/// What is looked at and copied at a time: a large page, so that what is zero throughout stays the host's to give in
/// large pages after a restore.
const PIECE: usize = LARGE_PAGE;

const ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// A stretch of RAM and where it lies in a file; all multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Where in the file its first byte is.
    pub offset: u64,
}

impl GuestMemory {
    /// Writes RAM to `file`, which is empty, and says what lies where; RAM outside of the extents is zero. Pages of
    /// zeroes inside of them are holes. `written_up_to` hears how much of the file is complete. Nobody may write to RAM
    /// meanwhile.
    ///
    /// # Errors
    /// What the file says.
    pub fn write_image(&self, file: &File, written_up_to: impl Fn(u64)) -> io::Result<Vec<Extent>> {
        let mut image = ImageWriter {
            file,
            len: 0,
            extents: Vec::new(),
            piece: vec![0; PIECE],
        };
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

    /// Maps `extents` of `file` over RAM that is still as it was made: pages come from the file when they are touched,
    /// and copies of those that are written stay here. It costs the same for much RAM as for little.
    ///
    /// Nobody may shorten or change the file as long as this RAM lives: a touch of what is gone ends the process.
    ///
    /// # Errors
    /// `InvalidInput` for an extent that is not whole pages of one region, `UnexpectedEof` where the file is too short;
    /// RAM must then be thrown away. What the system says.
    pub fn map_image(&self, file: &File, extents: &[Extent]) -> io::Result<()> {
        let len = file.metadata()?.len();
        for &Extent {
            gpa,
            len: bytes,
            offset,
        } in extents
        {
            if offset.checked_add(bytes).is_none_or(|end| end > len) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let region = self.map.find_region(GuestAddress(gpa));
            let whole = [gpa, bytes, offset].iter().all(|number| number % PAGE_SIZE == 0);
            let (Some(region), true) = (region, whole) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let at = (gpa - region.start_addr().0) as usize;
            let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
            MmapRegion::bitmap(region).overlay(at, bytes, file, offset)?;
        }
        Ok(())
    }
}

struct ImageWriter<'a> {
    file: &'a File,
    /// Bytes of the file so far.
    len: u64,
    extents: Vec<Extent>,
    piece: Vec<u8>,
}

impl ImageWriter<'_> {
    /// Takes up `len` bytes at `gpa`, at most [`PIECE`], unless they are all zero.
    fn piece(&mut self, memory: &GuestMemory, gpa: u64, len: usize) -> io::Result<()> {
        let slice =
            GuestMemoryBackend::get_slice(&**memory, GuestAddress(gpa), len).map_err(io::Error::other)?;
        slice.copy_to(&mut self.piece[..len]);
        let piece = &self.piece[..len];
        let start = self.len;
        let mut any = false;
        let mut run: Option<usize> = None;
        let page = PAGE_SIZE as usize;
        for at in (0..len).step_by(page) {
            let zero = piece[at..at + page] == ZEROES;
            any |= !zero;
            match (zero, run) {
                (false, None) => run = Some(at),
                (true, Some(from)) => {
                    self.file.write_all_at(&piece[from..at], start + from as u64)?;
                    run = None;
                }
                _ => {}
            }
        }
        if let Some(from) = run {
            self.file.write_all_at(&piece[from..], start + from as u64)?;
        }
        if any {
            self.add(gpa, len as u64);
        }
        Ok(())
    }

    /// Extents that follow each other are one.
    fn add(&mut self, gpa: u64, len: u64) {
        let offset = self.len;
        self.len += len;
        match self.extents.last_mut() {
            Some(last) if last.gpa + last.len == gpa => last.len += len,
            _ => self.extents.push(Extent { gpa, len, offset }),
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

    #[test]
    fn write_image_leaves_out_zeroes_and_map_image_brings_back_the_rest() {
        let (memory, places) = written();
        let file = tempfile::tempfile().unwrap();

        let extents = memory.write_image(&file, drop).unwrap();
        let copy = GuestMemory::anonymous(&REGIONS).unwrap();
        copy.map_image(&file, &extents).unwrap();

        let wanted = [
            (0, LARGE, 0),
            (2 * LARGE, LARGE, LARGE),
            (0x1_0000_0000 + LARGE, 0x3000, 2 * LARGE),
        ];
        let wanted = wanted.map(|(gpa, len, offset)| Extent { gpa, len, offset });
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
        let extents = memory.write_image(&file, drop).unwrap();
        let copies = [(); 2].map(|()| GuestMemory::anonymous(&REGIONS).unwrap());
        for copy in &copies {
            copy.map_image(&file, &extents).unwrap();
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
        for (gpa, len, offset) in [
            (0, LARGE, 0x1000),
            (0, LARGE, u64::MAX),
            (0x800, 0x1000, 0),
            (0, 0x1000, 0x800),
            (0, 0, 0),
            (4 * LARGE - 0x1000, 0x2000, 0),
            (8 * LARGE, 0x1000, 0),
        ] {
            assert!(memory.map_image(&file, &[Extent { gpa, len, offset }]).is_err());
        }
    }
}
