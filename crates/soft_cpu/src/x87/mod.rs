//! x87, MMX, and the instructions that save and restore extended state.

mod area;
mod arithmetic;
mod compare;
mod control;
mod environment;
mod float;
mod fxsave;
mod mmx;
mod operand;
mod pairs;
mod stack;
mod state;
mod transfer;
mod xsave;

#[cfg(test)]
mod tests;

use iced_x86::Instruction;

use crate::cpu::{Cpu, control as cr};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(crate) use state::{extended_state, set_extended_state};

/// The x87 registers, which begin as `FXSAVE` lays them out (Intel SDM vol. 1, 10.5.1), so that a host can load
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct X87 {
    pub(crate) control: u16,
    pub(crate) status: u16,
    /// Abridged: a set bit says that the physical register holds something.
    pub(crate) tags: u8,
    reserved: u8,
    pub(crate) opcode: u16,
    pub(crate) instruction_pointer: u64,
    pub(crate) data_pointer: u64,
    mxcsr: [u32; 2],
    /// ST(0) to ST(7), 80 bits each in 16 bytes; MMX registers are their low 64 bits.
    pub(crate) registers: [u128; 8],
    /// Selectors that belong to the two pointers. `FXSAVE64` has no place for them.
    pub(crate) code_selector: u16,
    pub(crate) data_selector: u16,
}

/// Bits of the control word that keep what is written to them, and the one that always reads as set.
const CONTROL_BITS: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

/// Bits of the status word (Intel SDM vol. 1, 8.1.3). Masks of the control word lie where its six flags do.
mod status {
    pub(super) const FLAGS: u16 = 0x3f;
    /// An exception is pending, and its copy where the 8087 had a busy bit.
    pub(super) const SUMMARY: u16 = 0x80;
    pub(super) const BUSY: u16 = 0x8000;
    pub(super) const TOP: u16 = 0x3800;
}

/// The 80 bits that one register has.
const REGISTER: u128 = (1 << 80) - 1;

impl Default for X87 {
    /// Initial configuration (Intel SDM vol. 1, 13.6): as `FNINIT` leaves it, with empty registers.
    fn default() -> Self {
        Self {
            control: 0x37f,
            status: 0,
            tags: 0,
            reserved: 0,
            opcode: 0,
            instruction_pointer: 0,
            data_pointer: 0,
            mxcsr: [0; 2],
            registers: [0; 8],
            code_selector: 0,
            data_selector: 0,
        }
    }
}

impl X87 {
    /// Number of the physical register that is ST(0).
    #[inline]
    fn top(&self) -> usize {
        usize::from((self.status & status::TOP) >> 11)
    }

    /// Makes another physical register ST(0); all keep what they hold.
    #[inline]
    fn turn_to(&mut self, top: usize) {
        let turn = top.wrapping_sub(self.top()) & 7;
        self.registers.rotate_left(turn);
        self.status = self.status & !status::TOP | (top as u16 & 7) << 11;
    }

    /// Writes the control word; the summary follows.
    fn set_control(&mut self, value: u16) {
        self.control = value & CONTROL_BITS | CONTROL_FIXED;
        self.summarize();
    }

    /// Works out the summary: whether a flag is set whose mask is not.
    #[inline]
    fn summarize(&mut self) {
        let pending = self.status & !self.control & status::FLAGS != 0;
        self.status &= !(status::SUMMARY | status::BUSY);
        if pending {
            self.status |= status::SUMMARY | status::BUSY;
        }
    }

    /// Whether an exception waits for the next instruction that reports it.
    #[inline]
    fn pending(&self) -> bool {
        self.status & status::SUMMARY != 0
    }

    /// `FNINIT` (Intel SDM vol. 1, 8.1): registers are empty, but keep their bits.
    fn initialize(&mut self) {
        self.turn_to(0);
        *self = Self {
            registers: self.registers,
            ..Self::default()
        };
    }
}

impl Exec<'_> {
    /// #NM where the operating system wants to know (Intel SDM vol. 3, 2.5: EM, TS).
    #[inline]
    fn check_x87(&self) -> Result<(), Exception> {
        if self.cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 {
            return Err(Exception::NO_MATH);
        }
        Ok(())
    }

    /// What instructions that wait check first: the above, then exceptions of earlier instructions.
    #[inline]
    fn wait_x87(&self) -> Result<(), Exception> {
        self.check_x87()?;
        self.report_x87()
    }

    /// What MMX instructions check: they do not exist where the x87 is emulated (Intel SDM vol. 3, table 13-1).
    #[inline]
    fn check_mmx(&self) -> Result<(), Exception> {
        if self.cpu.cr0 & cr::CR0_EM != 0 {
            return Err(Exception::UNDEFINED);
        }
        self.wait_x87()
    }

    /// #MF where an exception is pending. Without CR0.NE it is an external interrupt's business, which no
    /// machine of ours wires up: it goes unreported.
    fn report_x87(&self) -> Result<(), Exception> {
        if self.cpu.x87.pending() && self.cpu.cr0 & cr::CR0_NE != 0 {
            return Err(Exception::X87);
        }
        Ok(())
    }
}

impl Cpu {
    /// How many XMM and YMM registers code of this mode has.
    fn vector_count(&self) -> usize {
        if self.mode.bits == 64 { 16 } else { 8 }
    }
}

/// The handler of an instruction of this group.
pub(crate) fn handler(instruction: &Instruction) -> Option<Handler> {
    transfer::handler(instruction)
        .or_else(|| arithmetic::handler(instruction))
        .or_else(|| compare::handler(instruction))
        .or_else(|| pairs::handler(instruction))
        .or_else(|| mmx::handler(instruction))
        .or_else(|| control::handler(instruction))
        .or_else(|| environment::handler(instruction))
        .or_else(|| fxsave::handler(instruction))
        .or_else(|| xsave::handler(instruction))
}
