//! What the guests of `bench boot` are: a program that says that it is there, and a kernel that says so with its first
//! instruction.

use anyhow::{Context, Result};

use super::FIRST_LINE;
use crate::lab::Archive;

/// An archive with nothing but [`init_program`].
pub(super) fn initramfs() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, &init_program());
    archive.finish()
}

/// An x86-64 ELF program that prints [`FIRST_LINE`] and then sleeps for ever.
fn init_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let message = format!("{FIRST_LINE}\n");
    let mut code = vec![0xb8, 1, 0, 0, 0]; // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
    code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip + 16], the message
    code.push(0xba); // mov edx, its length
    code.extend((message.len() as u32).to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xb8, 34, 0, 0, 0]); // mov eax, 34 (pause)
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xeb, 0xf7]); // jmp to the mov
    code.extend(message.as_bytes());
    let size = HEADERS + code.len() as u64;

    // ELF-64 Object File Format 1.5, "File header": class 64, little endian, version 1.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, EV_CURRENT
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend([0; 12]); // section headers, flags: none
    elf.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // sizes and counts
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, read and execute
    for field in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(u64::to_le_bytes(field)); // offset, addresses, sizes, alignment
    }
    elf.extend(code);
    elf
}

/// `kernel`, an ELF file, with code at all its ways in that writes [`FIRST_LINE`] to the serial port and stops: so
/// that the time of the first instruction is seen, after all the work that loading it is.
///
/// # Errors
/// A file that is no such kernel.
pub(super) fn first_instruction_kernel(kernel: &[u8]) -> Result<Vec<u8>> {
    let segments = segments(kernel).context("the kernel is no ELF file")?;
    let entry = number(kernel, 24, 8).context("the kernel is no ELF file")?;
    // Xen, public/elfnote.h: 18 is XEN_ELFNOTE_PHYS32_ENTRY, where monitors enter that boot by PVH.
    let by_pvh = segments
        .iter()
        .filter(|segment| segment.kind == PT_NOTE)
        .find_map(|notes| note(kernel, notes, b"Xen\0", 18));
    // The same bytes mean the same in 32-bit and in 64-bit code.
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in FIRST_LINE.bytes().chain(*b"\n") {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let mut patched = kernel.to_vec();
    for address in std::iter::once(entry).chain(by_pvh) {
        let at = segments.iter().find_map(|segment| segment.offset_of(address));
        let room = at.and_then(|at| patched.get_mut(at..at + code.len()));
        room.context("the kernel's entry is not in it")?
            .copy_from_slice(&code);
    }
    Ok(patched)
}

/// Kinds of program headers (ELF-64 Object File Format 1.5, "Program header table").
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    /// Where the file has what will be at a physical address.
    fn offset_of(&self, address: u64) -> Option<usize> {
        let inside = address
            .checked_sub(self.address)
            .filter(|inside| *inside < self.size)?;
        (self.kind == PT_LOAD).then_some(usize::try_from(self.offset + inside).ok()?)
    }
}

/// A little-endian number of `size` bytes.
fn number(file: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(size)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    let first = usize::try_from(number(file, 32, 8)?).ok()?;
    let count = usize::try_from(number(file, 56, 2)?).ok()?;
    let segment = |index: usize| {
        let at = first + index * 56;
        Some(Segment {
            kind: number(file, at, 4)?,
            offset: number(file, at + 8, 8)?,
            address: number(file, at + 24, 8)?,
            size: number(file, at + 32, 8)?,
        })
    };
    (0..count).map(segment).collect()
}

/// What the note of this name and kind says.
fn note(file: &[u8], notes: &Segment, name: &[u8], kind: u64) -> Option<u64> {
    let mut at = usize::try_from(notes.offset).ok()?;
    let end = at + usize::try_from(notes.size).ok()?;
    while at < end {
        let length = |field: usize| usize::try_from(number(file, at + field, 4)?).ok();
        let (name_len, value_len) = (length(0)?, length(4)?);
        let value = at + 12 + name_len.next_multiple_of(4);
        if number(file, at + 8, 4)? == kind && file.get(at + 12..at + 12 + name_len)? == name {
            return number(file, value, value_len.min(8));
        }
        at = value + value_len.next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::process::Process;

    #[test]
    fn init_program_run_here_prints_its_line_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        fs::write(&path, init_program()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();

        let mut child = Process(Command::new(&path).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();

        assert_eq!(line.trim_end(), FIRST_LINE);
        assert!(child.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn first_instruction_kernel_has_its_code_where_it_is_entered() {
        let mut program = init_program();
        program.resize(4096, 0);

        let patched = first_instruction_kernel(&program).unwrap();

        let entry = 64 + 56;
        assert_eq!(&patched[entry..entry + 4], &[0x66, 0xba, 0xf8, 0x03]);
        assert_eq!(
            (patched.len(), &patched[..entry]),
            (program.len(), &program[..entry])
        );
        assert!(first_instruction_kernel(b"no kernel").is_err());
    }
}
