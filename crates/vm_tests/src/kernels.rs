//! Kernels of a few instructions, for boots that must fail.

/// Where they are loaded.
const ENTRY: u64 = 0x20_0000;
/// ELF header and one program header (ELF-64, "ELF header", "Program header").
const HEADERS: usize = 64 + 56;

/// An ELF kernel that says `line` on the serial port and then executes `last`.
///
/// # Panics
/// Where the line is longer than 200 bytes.
pub fn kernel(line: &str, last: &[u8]) -> Vec<u8> {
    let length = u8::try_from(line.len() + 1).expect("a short line");
    let mut code = vec![0xba, 0xf8, 0x03, 0, 0]; // mov edx, 0x3f8
    code.extend([0xb9, length, 0, 0, 0]); // mov ecx, length
    let ahead = u8::try_from(4 + last.len()).expect("few instructions");
    code.extend([0x48, 0x8d, 0x35, ahead, 0, 0, 0]); // lea rsi, [rip + ahead]
    code.extend([0xac, 0xee, 0xe2, 0xfc]); // lodsb; out dx, al; loop
    code.extend(last);
    code.extend(line.bytes());
    code.push(b'\n');

    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes()); // executable, x86-64
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [ENTRY, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, sections
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // PT_LOAD
    elf.extend(5_u32.to_le_bytes()); // readable, executable
    let size = code.len() as u64;
    for word in [HEADERS as u64, ENTRY, ENTRY, size, size, 8] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// `cli; hlt` for ever.
pub const HANG: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
/// `lidt [rsp]` of an empty table would do as well: an undefined instruction without a handler.
pub const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];
/// A jump to itself.
pub const SPIN: &[u8] = &[0xeb, 0xfe];
/// `vaddps zmm0, zmm0, zmm0`: AVX-512, which the CPU in software does not have. Nobody handles the exception.
pub const OUTSIDE_PROFILE: &[u8] = &[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0];
