//! ELF kernels (ELF-64 Object File Format, version 1.5).
//!
//! `linux-loader` reads segments one after the other on one thread, zeros included; most of the time that takes is
//! the host's making of pages, which [`GuestMemory::load_file`] spreads over threads.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use guest_memory::GuestMemory;

use crate::{Error, layout};

/// "File header": magic number, 64-bit, little endian, version 1.
const IDENTITY: &[u8] = b"\x7fELF\x02\x01\x01";
const HEADER_LEN: usize = 64;
const MACHINE: usize = 18;
const ENTRY: usize = 24;
const SEGMENTS_OFFSET: usize = 32;
const SEGMENT_LEN: usize = 54;
const SEGMENT_COUNT: usize = 56;
const EM_X86_64: u16 = 62;

/// "Program header table".
const PROGRAM_HEADER_LEN: u16 = 56;
const PT_LOAD: u32 = 1;
const FILE_OFFSET: usize = 8;
const PHYSICAL_ADDRESS: usize = 24;
const FILE_SIZE: usize = 32;
const MEMORY_SIZE: usize = 40;

/// A kernel, as its headers describe it.
#[derive(Debug)]
pub(super) struct ElfKernel {
    /// Address of the first instruction.
    pub(super) entry: u64,
    /// Address behind its last byte.
    pub(super) end: u64,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    gpa: u64,
    offset: u64,
    file_len: usize,
}

impl ElfKernel {
    /// Reads the headers, and refuses a kernel that is not wholly between 1 MiB and the end of low RAM on the
    /// largest of machines.
    pub(super) fn parse(mut file: &File) -> Result<Self, Error> {
        let mut header = [0; HEADER_LEN];
        read_at(&mut file, 0, &mut header)?;
        if !header.starts_with(IDENTITY) || u16_at(&header, MACHINE) != EM_X86_64 {
            return Err(refused("it is no ELF file for x86-64"));
        }
        if u16_at(&header, SEGMENT_LEN) != PROGRAM_HEADER_LEN {
            return Err(refused("its program headers have an unknown size"));
        }
        let count = usize::from(u16_at(&header, SEGMENT_COUNT));
        let mut table = vec![0; count * usize::from(PROGRAM_HEADER_LEN)];
        read_at(&mut file, u64_at(&header, SEGMENTS_OFFSET), &mut table)?;

        let mut kernel = Self {
            entry: u64_at(&header, ENTRY),
            end: 0,
            segments: Vec::new(),
        };
        let headers = table.chunks_exact(PROGRAM_HEADER_LEN.into());
        for header in headers.filter(|header| u32_at(header, 0) == PT_LOAD) {
            kernel.add(header)?;
        }
        if !(layout::HIGH_RAM_START..kernel.end).contains(&kernel.entry) {
            return Err(refused("its entry is not in it"));
        }
        Ok(kernel)
    }

    fn add(&mut self, header: &[u8]) -> Result<(), Error> {
        let gpa = u64_at(header, PHYSICAL_ADDRESS);
        let (file_len, len) = (u64_at(header, FILE_SIZE), u64_at(header, MEMORY_SIZE));
        if file_len > len {
            return Err(refused("a segment is longer in the file than in memory"));
        }
        let end = gpa.checked_add(len).filter(|end| *end <= layout::LOW_RAM_MAX);
        let end = end.ok_or_else(|| refused("it is longer than any machine's memory"))?;
        if gpa < layout::HIGH_RAM_START {
            return Err(refused("a segment lies below 1 MiB"));
        }
        self.end = self.end.max(end);
        self.segments.push(Segment {
            gpa,
            offset: u64_at(header, FILE_OFFSET),
            // Below `LOW_RAM_MAX`.
            file_len: file_len as usize,
        });
        Ok(())
    }

    /// Copies the segments to fresh RAM, which must reach up to [`ElfKernel::end`]. What is not in the file is zero
    /// there already.
    pub(super) fn load(&self, memory: &GuestMemory, file: &File) -> Result<(), Error> {
        for Segment {
            gpa,
            offset,
            file_len,
        } in &self.segments
        {
            memory
                .load_file(*gpa, file, *offset, *file_len)
                .map_err(unreadable)?;
        }
        Ok(())
    }
}

fn read_at(file: &mut &File, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(bytes))
        .map_err(unreadable)
}

fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("it ends too early"),
        _ => Error::Kernel(error.to_string()),
    }
}

fn refused(reason: &str) -> Error {
    Error::Kernel(reason.to_owned())
}

/// Headers are read whole before their fields are.
fn bytes_at<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(header, at))
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(header, at))
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(header, at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use guest_memory::{Bytes, GuestAddress};
    use proptest::prelude::*;

    use super::*;

    const GPA: u64 = 0x20_0000;
    const CODE: [u8; 16] = [0xf4; 16];

    /// An ELF kernel of one segment of 32 bytes at [`GPA`], of which the file has [`CODE`].
    fn elf() -> Vec<u8> {
        let mut elf = IDENTITY.to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        elf.extend(GPA.to_le_bytes());
        elf.extend(64_u64.to_le_bytes());
        elf.extend([0; 12]);
        elf.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        for field in [120, GPA, GPA, 16, 32, 8] {
            elf.extend(u64::to_le_bytes(field));
        }
        elf.extend(CODE);
        elf
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn load(bytes: &[u8]) -> Result<(ElfKernel, GuestMemory), Error> {
        let memory = GuestMemory::anonymous(&[(0, 4 * layout::MIB)]).unwrap();
        let file = file(bytes);
        let kernel = ElfKernel::parse(&file)?;
        kernel.load(&memory, &file)?;
        Ok((kernel, memory))
    }

    fn with(at: usize, field: u64) -> Vec<u8> {
        let mut elf = elf();
        elf[at..at + 8].copy_from_slice(&field.to_le_bytes());
        elf
    }

    #[test]
    fn load_puts_the_segment_at_its_physical_address() {
        let (kernel, memory) = load(&elf()).unwrap();

        assert_eq!((kernel.entry, kernel.end), (GPA, GPA + 32));
        let bytes: [u8; 16] = memory.read_obj(GuestAddress(GPA)).unwrap();
        assert_eq!(bytes, CODE);
    }

    #[test]
    fn load_truncated_anywhere_is_refused() {
        let whole = elf();
        for cut in 0..whole.len() {
            assert!(matches!(load(&whole[..cut]), Err(Error::Kernel(_))), "{cut}");
        }
    }

    #[test]
    fn load_segment_that_cannot_be_is_refused() {
        let header = HEADER_LEN;
        for (at, field) in [
            (header + FILE_OFFSET, 1 << 60),
            (header + PHYSICAL_ADDRESS, 1 << 60),
            (header + PHYSICAL_ADDRESS, u64::MAX),
            (header + PHYSICAL_ADDRESS, 0x1000),
            (header + FILE_SIZE, 33),
            (header + MEMORY_SIZE, 1 << 60),
            (ENTRY, GPA + 32),
            (ENTRY, 0),
            (SEGMENTS_OFFSET, u64::MAX),
        ] {
            let refused = load(&with(at, field));
            assert!(matches!(refused, Err(Error::Kernel(_))), "{at} {field:#x}");
        }
    }

    #[test]
    fn load_another_architecture_is_refused() {
        for (at, byte) in [(4, 1), (5, 2), (MACHINE, 183)] {
            let mut elf = elf();
            elf[at] = byte;
            assert!(matches!(load(&elf), Err(Error::Kernel(_))), "{at}");
        }
    }

    proptest! {
        #[test]
        fn load_damaged_headers_never_panic(
            damage in proptest::collection::vec((0_usize..120, 0_u8..), 1..6),
        ) {
            let mut bytes = elf();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let _ = load(&bytes);
        }
    }
}
