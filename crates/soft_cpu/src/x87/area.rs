//! The legacy region, which `FXSAVE` and `XSAVE` share (Intel SDM vol. 1, 10.5 and 13.4.1).

use super::{REGISTER, X87};
use crate::cpu::Cpu;
use crate::vector::{MXCSR_MASK, VectorState};

/// Size of the legacy region.
pub(super) const LEGACY: usize = 512;
/// Where MXCSR and its mask lie.
pub(super) const MXCSR: usize = 24;
/// Where the x87's registers lie, 16 bytes each.
pub(super) const ST: usize = 32;
/// Where the XMM registers lie, and what follows component 0.
pub(super) const XMM: usize = 160;

/// MXCSR in its initial configuration.
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;

/// How wide the pointers are: `REX.W` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointers {
    /// 32 bits and a selector.
    Narrow,
    /// 64 bits.
    Wide,
}

/// Bytes of the legacy region that hold x87 state.
pub(super) const X87_RANGES: [(usize, usize); 2] = [(0, MXCSR), (ST, XMM)];
/// Bytes that hold MXCSR.
pub(super) const MXCSR_RANGE: (usize, usize) = (MXCSR, ST);

/// Bytes that hold XMM registers, where there are `count`.
pub(super) fn xmm_range(count: usize) -> (usize, usize) {
    (XMM, XMM + count * 16)
}

/// Writes component 0. `pointers` is `None` where they are not to be shown.
pub(super) fn put_x87(x87: &X87, pointers: Option<Pointers>, area: &mut [u8; LEGACY]) {
    area[..2].copy_from_slice(&x87.control.to_le_bytes());
    area[2..4].copy_from_slice(&x87.status.to_le_bytes());
    area[4] = x87.tags;
    area[5..MXCSR].fill(0);
    let (code, data) = match pointers {
        None => (0, 0),
        Some(Pointers::Wide) => (x87.instruction_pointer, x87.data_pointer),
        Some(Pointers::Narrow) => (
            narrow(x87.instruction_pointer, x87.code_selector),
            narrow(x87.data_pointer, x87.data_selector),
        ),
    };
    if pointers.is_some() {
        area[6..8].copy_from_slice(&x87.opcode.to_le_bytes());
    }
    area[8..16].copy_from_slice(&code.to_le_bytes());
    area[16..24].copy_from_slice(&data.to_le_bytes());
    for (slot, register) in area[ST..XMM].chunks_exact_mut(16).zip(x87.registers) {
        slot.copy_from_slice(&(register & REGISTER).to_le_bytes());
    }
}

fn narrow(offset: u64, selector: u16) -> u64 {
    offset & 0xffff_ffff | u64::from(selector) << 32
}

/// Reads component 0. Bits that do not exist are dropped, and the summary follows from the flags.
pub(super) fn get_x87(area: &[u8; LEGACY], pointers: Pointers) -> X87 {
    let mut x87 = X87 {
        status: word(area, 2),
        tags: area[4],
        opcode: word(area, 6) & 0x7ff,
        ..X87::default()
    };
    let (code, data) = (quad(area, 8), quad(area, 16));
    match pointers {
        Pointers::Wide => (x87.instruction_pointer, x87.data_pointer) = (extend(code), extend(data)),
        Pointers::Narrow => {
            (x87.instruction_pointer, x87.code_selector) = (code & 0xffff_ffff, (code >> 32) as u16);
            (x87.data_pointer, x87.data_selector) = (data & 0xffff_ffff, (data >> 32) as u16);
        }
    }
    for (register, slot) in x87.registers.iter_mut().zip(area[ST..XMM].chunks_exact(16)) {
        *register = u128::from(quad(slot, 0)) | u128::from(word(slot, 8)) << 64;
    }
    x87.set_control(word(area, 0));
    x87
}

/// Pointers have as many bits as the widest linear address.
fn extend(pointer: u64) -> u64 {
    ((pointer << 7) as i64 >> 7) as u64
}

/// Writes MXCSR and its mask.
pub(super) fn put_mxcsr(mxcsr: u32, area: &mut [u8; LEGACY]) {
    area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    area[MXCSR + 4..ST].copy_from_slice(&MXCSR_MASK.to_le_bytes());
}

/// Reads MXCSR; `None` where a bit is set that does not exist.
pub(super) fn get_mxcsr(area: &[u8; LEGACY]) -> Option<u32> {
    let mxcsr = quad(area, MXCSR) as u32;
    (mxcsr & !MXCSR_MASK == 0).then_some(mxcsr)
}

/// Writes the XMM registers.
pub(super) fn put_xmm(vector: &VectorState, area: &mut [u8; LEGACY]) {
    put_halves(vector, 0, &mut area[XMM..]);
}

/// Reads the first `count` XMM registers.
pub(super) fn get_xmm(cpu: &mut Cpu, count: usize, area: &[u8; LEGACY]) {
    get_halves(&mut cpu.vector, 0, count, &area[XMM..]);
}

/// Writes the low (0) or high (2) halves of all vector registers.
pub(super) fn put_halves(vector: &VectorState, half: usize, bytes: &mut [u8]) {
    for (slot, register) in bytes.chunks_exact_mut(16).zip(&vector.registers) {
        slot[..8].copy_from_slice(&register.0[half].to_le_bytes());
        slot[8..].copy_from_slice(&register.0[half + 1].to_le_bytes());
    }
}

/// Reads the low (0) or high (2) halves of the first `count` vector registers.
pub(super) fn get_halves(vector: &mut VectorState, half: usize, count: usize, bytes: &[u8]) {
    for (register, slot) in vector
        .registers
        .iter_mut()
        .take(count)
        .zip(bytes.chunks_exact(16))
    {
        (register.0[half], register.0[half + 1]) = (quad(slot, 0), quad(slot, 8));
    }
}

/// The 16-bit number at `at`; 0 where there is none.
pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    (0..2).fold(0, |value, i| value | u16::from(byte(bytes, at + i)) << (8 * i))
}

/// The 64-bit number at `at`, with zeros for what is missing.
pub(super) fn quad(bytes: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |value, i| value | u64::from(byte(bytes, at + i)) << (8 * i))
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}
