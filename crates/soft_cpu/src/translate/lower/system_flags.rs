//! What a kernel does at every turn: `PUSHF`, `POPF`, `CLI`, `STI`, `SWAPGS` at privilege level 0.

use iced_x86::{Code, Instruction};

use super::Lowering;
use crate::cpu::SegReg;
use crate::cpu::flags::{IF, RF, STATUS, VM};
use crate::translate::assembler::{Alu, Condition, RSP};
use crate::translate::layout;
use crate::translate::registers::{STACK, T0, T1};

/// Position of OF.
const OF_BIT: u8 = 11;

impl Lowering<'_> {
    /// Translates one of them. `last` says that the block ends with it.
    pub(super) fn system_flags(&mut self, index: u32, instruction: &Instruction, last: bool) -> bool {
        match instruction.code() {
            Code::Pushfq => self.push_flags(index),
            Code::Popfq if self.context.mode.cpl == 0 => self.pop_flags(index),
            Code::Cli if self.context.mode.cpl == 0 => {
                self.clobber_flags();
                self.asm.load(T0, RSP, layout::RFLAGS);
                self.asm.alu_imm(true, Alu::And, T0, !(IF as i32));
                self.asm.store(RSP, layout::RFLAGS, T0);
            }
            // The instruction after it must come before any interrupt: here it does, for none is taken inside a block.
            Code::Sti if self.context.mode.cpl == 0 && !last => {
                self.clobber_flags();
                self.asm.cmp32_memory(RSP, layout::WAITING, 0);
                let waiting = self.asm.jcc_forward(Condition::NotEqual);
                self.asm.load(T0, RSP, layout::RFLAGS);
                self.asm.alu_imm(true, Alu::Or, T0, IF as i32);
                self.asm.store(RSP, layout::RFLAGS, T0);
                self.slow_path(vec![waiting], index);
            }
            Code::Swapgs if self.context.mode.cpl == 0 => {
                let base = layout::segment_base(SegReg::Gs);
                self.asm.load(T0, RSP, base);
                self.asm.load(T1, RSP, layout::KERNEL_GS_BASE);
                self.asm.store(RSP, base, T1);
                self.asm.store(RSP, layout::KERNEL_GS_BASE, T0);
            }
            _ => return false,
        }
        true
    }

    fn push_flags(&mut self, index: u32) {
        self.clobber_flags();
        self.asm.lea(true, T0, Some(STACK), None, -8);
        let (address, misses) = self.look_up(None, 8, true, 1);
        self.fold(address);
        // The status flags are kept apart: as LAHF has them in the upper byte, OF in the lower.
        self.asm.load(T1, RSP, layout::RFLAGS);
        self.asm.alu_imm(true, Alu::And, T1, !((STATUS | RF | VM) as i32));
        self.asm.store(T0, 0, T1);
        self.asm.load16(T1, RSP, layout::STATUS);
        self.asm.shr32(T1, 8);
        self.asm.alu_to_memory(Alu::Or, T0, 0, T1);
        self.asm.load16(T1, RSP, layout::STATUS);
        self.asm.alu_imm(false, Alu::And, T1, 1);
        self.asm.shl32(T1, OF_BIT);
        self.asm.alu_to_memory(Alu::Or, T0, 0, T1);
        self.asm.lea(true, STACK, Some(STACK), None, -8);
        self.slow_path(misses, index);
    }

    /// Only where nothing changes but the status flags and IF, and no interrupt waits for that.
    fn pop_flags(&mut self, index: u32) {
        self.clobber_flags();
        self.asm.mov(T0, STACK);
        let (_, mut misses) = self.look_up(None, 8, false, 1);
        self.asm.load_indexed(T0, T0, T1, 0);
        self.asm.mov(T1, T0);
        self.asm.alu_memory(Alu::Xor, T1, RSP, None, layout::RFLAGS);
        self.asm.test_imm(T1, !((STATUS | IF) as i32));
        misses.push(self.asm.jcc_forward(Condition::NotEqual));
        self.asm.cmp32_memory(RSP, layout::WAITING, 0);
        misses.push(self.asm.jcc_forward(Condition::NotEqual));
        // What differs is in T1; the status flags in RFLAGS mean nothing here.
        self.asm.alu_imm(true, Alu::And, T1, IF as i32);
        self.asm.alu_to_memory(Alu::Xor, RSP, layout::RFLAGS, T1);
        self.asm.mov(T1, T0);
        self.asm.shr32(T1, OF_BIT);
        self.asm.alu_imm(false, Alu::And, T1, 1);
        self.asm.alu_imm(false, Alu::And, T0, 0xff);
        self.asm.shl32(T0, 8);
        self.asm.alu(false, Alu::Or, T1, T0);
        self.asm.store16(RSP, layout::STATUS, T1);
        self.asm.lea(true, STACK, Some(STACK), None, 8);
        self.slow_path(misses, index);
    }
}
