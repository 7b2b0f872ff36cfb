//! Memory operands: the linear address, and the look-up of its page.

use iced_x86::{Instruction, Register};

use super::{Address, Lowering, SlowPath};
use crate::cpu::SegReg;
use crate::exec::{GprOperand, segment_register};
use crate::memory::{PAGE_SIZE, TLB_ENTRIES};
use crate::translate::assembler::{Alu, Condition, Forward, RSP, Reg};
use crate::translate::flags::Flags;
use crate::translate::layout;
use crate::translate::registers::{T0, T1};

impl Lowering<'_> {
    /// [`T0`] := linear address of the memory operand. Gives it where it is the same each time.
    pub(super) fn linear(&mut self, instruction: &Instruction) -> Option<u64> {
        let constant = self.offset(instruction, T0);
        match segment_register(instruction.memory_segment()) {
            segment @ (SegReg::Fs | SegReg::Gs) => {
                if let Some(offset) = constant {
                    self.asm.mov_imm(T0, offset);
                }
                self.asm
                    .alu_memory(Alu::Add, T0, RSP, None, layout::segment_base(segment));
                None
            }
            _ => {
                if let Some(linear) = constant {
                    self.asm.mov_imm(T0, linear);
                }
                constant
            }
        }
    }

    /// `to` := offset of the memory operand; where that is a constant it is given back instead.
    /// Keeps the flags. Uses [`T1`] where two registers live in memory.
    pub(super) fn offset(&mut self, instruction: &Instruction, to: Reg) -> Option<u64> {
        let displacement = instruction.memory_displacement64();
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let none = base == Register::None && index == Register::None;
        let narrow = base == Register::EIP
            || none && instruction.memory_displ_size() == 4
            || [base, index].iter().any(|register| register.is_gpr32());
        if none || instruction.is_ip_rel_memory_operand() {
            return Some(if narrow {
                displacement & 0xffff_ffff
            } else {
                displacement
            });
        }
        let base = GprOperand::of(base).map(|operand| self.held(operand.number, T0));
        let spare = if base == Some(T0) { T1 } else { T0 };
        let index = GprOperand::of(index)
            .map(|operand| (self.held(operand.number, spare), instruction.memory_index_scale()));
        self.asm.lea(!narrow, to, base, index, displacement as i32);
        None
    }

    /// Looks the page of [`T0`] up in the TLB; the jumps are taken where it is not there, or the access is not
    /// wholly in it.
    pub(super) fn look_up(
        &mut self,
        constant: Option<u64>,
        size: usize,
        write: bool,
        align: u8,
    ) -> (Address, Vec<Forward>) {
        let tlb = layout::tlb(self.context.mode.set);
        let tag = if write { tlb.write } else { tlb.read };
        let last = PAGE_SIZE as i32 - size as i32;
        let mut misses = Vec::with_capacity(2);
        let entry = constant.map(|linear| ((linear / PAGE_SIZE) as usize % TLB_ENTRIES * 32) as i32);
        match entry {
            Some(entry) => self.asm.alu_memory(Alu::Xor, T0, RSP, None, tag + entry),
            None => {
                self.asm.mov32(T1, T0);
                self.asm.shr32(T1, 7);
                self.asm
                    .alu_imm(false, Alu::And, T1, (TLB_ENTRIES as i32 - 1) * 32);
                self.asm.alu_memory(Alu::Xor, T0, RSP, Some(T1), tag);
            }
        }
        self.asm.alu_imm(true, Alu::Cmp, T0, last);
        misses.push(self.asm.jcc_forward(Condition::Above));
        if align > 1 {
            self.asm.test8(T0, align - 1);
            misses.push(self.asm.jcc_forward(Condition::NotEqual));
        }
        match entry {
            Some(entry) => {
                self.asm.alu_memory(Alu::Add, T0, RSP, None, tlb.host + entry);
                (Address::Whole, misses)
            }
            None => {
                self.asm.load_indexed(T1, RSP, T1, tlb.host);
                (Address::Sum, misses)
            }
        }
    }

    /// Makes the address one register, [`T0`].
    pub(super) fn fold(&mut self, address: Address) {
        if matches!(address, Address::Sum) {
            self.asm.lea(true, T0, Some(T0), Some((T1, 1)), 0);
        }
    }

    pub(super) fn slow_path(&mut self, from: Vec<Forward>, op: u32) {
        let resume = Some((self.asm.here(), self.flags != Flags::Memory));
        let vectors = self.vectors;
        self.slow.push(SlowPath {
            from,
            op,
            resume,
            vectors,
        });
    }
}
