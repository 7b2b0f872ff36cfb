//! Which host register holds which guest register while translated code runs.
//!
//! RSP is the address of the [`Cpu`](crate::cpu::Cpu); R14 and R15 are for addresses. So three guest registers
//! have no host register of their own and live in the `Cpu`: R13, R14, R15. RSP of the guest is in R12, R12 in R13,
//! every other in its namesake, so that implicit operands are where instructions expect them.

use iced_x86::Register;

use super::assembler::Reg;

/// For addresses and all that is used up within one guest instruction.
pub(super) const T0: Reg = 14;
pub(super) const T1: Reg = 15;
/// Where the guest's stack pointer is.
pub(super) const STACK: Reg = 12;

/// The host register of guest register `number`; `None` where it lives in memory.
pub(super) fn host(number: usize) -> Option<Reg> {
    match number {
        4 => Some(STACK),
        12 => Some(13),
        0..=11 => Some(number as Reg),
        _ => None,
    }
}

/// All guest registers with a host register.
pub(super) fn held() -> impl Iterator<Item = (usize, Reg)> {
    (0..16).filter_map(|number| host(number).map(|reg| (number, reg)))
}

const R64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
const R32: [Register; 16] = [
    Register::EAX,
    Register::ECX,
    Register::EDX,
    Register::EBX,
    Register::ESP,
    Register::EBP,
    Register::ESI,
    Register::EDI,
    Register::R8D,
    Register::R9D,
    Register::R10D,
    Register::R11D,
    Register::R12D,
    Register::R13D,
    Register::R14D,
    Register::R15D,
];
const R16: [Register; 16] = [
    Register::AX,
    Register::CX,
    Register::DX,
    Register::BX,
    Register::SP,
    Register::BP,
    Register::SI,
    Register::DI,
    Register::R8W,
    Register::R9W,
    Register::R10W,
    Register::R11W,
    Register::R12W,
    Register::R13W,
    Register::R14W,
    Register::R15W,
];
const R8: [Register; 16] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::SPL,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R12L,
    Register::R13L,
    Register::R14L,
    Register::R15L,
];

/// The name of host register `reg` with `size` bytes.
pub(super) fn name(reg: Reg, size: usize) -> Register {
    let table = match size {
        8 => &R64,
        4 => &R32,
        2 => &R16,
        _ => &R8,
    };
    table[usize::from(reg & 15)]
}
