//! Sections of a kernel's file (ELF-64 Object File Format, "Sections").

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};

const IDENTITY: &[u8] = b"\x7fELF\x02\x01\x01";
const SECTIONS_OFFSET: usize = 40;
const SECTION_LEN: usize = 58;
const SECTION_COUNT: usize = 60;
const NAMES_INDEX: usize = 62;
const SECTION_HEADER_LEN: usize = 64;
/// "Section types, sh_type": no bytes in the file.
const NOBITS: u32 = 8;
/// "Section attributes, sh_flags": holds instructions.
const EXECUTABLE: u64 = 4;
/// The largest section that is read.
const MOST: u64 = 256 << 20;

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    name: String,
    kind: u32,
    flags: u64,
    /// Where it is in memory.
    pub(super) address: u64,
    offset: u64,
    pub(super) len: u64,
}

/// The sections of one file; none where it has none, or is no such file.
pub(super) struct Sections<'a> {
    file: &'a File,
    all: Vec<Section>,
}

impl<'a> Sections<'a> {
    pub(super) fn read(file: &'a File) -> Result<Self> {
        let mut header = [0; SECTION_HEADER_LEN];
        read_at(file, 0, &mut header)?;
        let mut sections = Self {
            file,
            all: Vec::new(),
        };
        let usual = u16_at(&header, SECTION_LEN).map(usize::from) == Some(SECTION_HEADER_LEN);
        if !header.starts_with(IDENTITY) || !usual {
            return Ok(sections);
        }
        let count = usize::from(u16_at(&header, SECTION_COUNT).unwrap_or(0));
        let mut table = vec![0; count * SECTION_HEADER_LEN];
        read_at(file, u64_at(&header, SECTIONS_OFFSET).unwrap_or(0), &mut table)?;
        let headers: Vec<_> = table
            .chunks_exact(SECTION_HEADER_LEN)
            .filter_map(section)
            .collect();
        let names_at = usize::from(u16_at(&header, NAMES_INDEX).unwrap_or(0));
        let names = match headers.get(names_at) {
            Some((_, names)) => sections.bytes(names)?,
            None => Vec::new(),
        };
        for (name_at, mut section) in headers {
            section.name = text_at(&names, name_at).unwrap_or_default();
            sections.all.push(section);
        }
        Ok(sections)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Section> {
        self.all.iter().find(|section| section.name == name)
    }

    /// Address and bytes of the section of this name.
    pub(super) fn contents(&self, name: &str) -> Result<Option<(u64, Vec<u8>)>> {
        let Some(section) = self.named(name) else {
            return Ok(None);
        };
        Ok(Some((section.address, self.bytes(section)?)))
    }

    /// Where code lies in memory, as (first address, length).
    pub(super) fn code(&self) -> Vec<(u64, u64)> {
        let code = self.all.iter().filter(|section| section.flags & EXECUTABLE != 0);
        code.map(|section| (section.address, section.len)).collect()
    }

    fn bytes(&self, section: &Section) -> Result<Vec<u8>> {
        if section.kind == NOBITS || section.len > MOST {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; section.len as usize];
        read_at(self.file, section.offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// Where its name is, and the section.
fn section(header: &[u8]) -> Option<(usize, Section)> {
    let section = Section {
        name: String::new(),
        kind: u32_at(header, 4)?,
        flags: u64_at(header, 8)?,
        address: u64_at(header, 16)?,
        offset: u64_at(header, 24)?,
        len: u64_at(header, 32)?,
    };
    Some((u32_at(header, 0)? as usize, section))
}

fn read_at(mut file: &File, offset: u64, bytes: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// The text that begins there and ends with a NUL.
pub(super) fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let len = rest.iter().position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..len]).into_owned())
}
