//! Control transfers, and the ways out of a block.

use iced_x86::{Instruction, OpKind};

use super::{LinkSite, Lowering, SlowPath, Way};
use crate::memory::PAGE_OFFSET;
use crate::translate::assembler::{Alu, Condition, Forward, RSP};
use crate::translate::layout;
use crate::translate::registers::{STACK, T0, T1};
use crate::translate::state::{JUMP_SHIFT, jump_entries};

impl Lowering<'_> {
    /// Jumps, calls and returns.
    pub(super) fn control_transfer(&mut self, index: u32, instruction: &Instruction) -> bool {
        use iced_x86::Code as C;
        match instruction.code() {
            C::Jmp_rel8_64 | C::Jmp_rel32_64 => {
                let target = instruction.near_branch64();
                self.settle_flags(&[target]);
                self.exit_to(target);
            }
            C::Call_rel32_64 => {
                let (next, target) = (instruction.next_ip(), instruction.near_branch64());
                let from = self.push_return(next);
                self.slow.push(SlowPath {
                    from,
                    op: index,
                    resume: None,
                    vectors: false,
                });
                self.exit_to(target);
            }
            C::Retnq | C::Retnq_imm16 => {
                let extra = if instruction.code() == C::Retnq_imm16 {
                    instruction.immediate16()
                } else {
                    0
                };
                self.clobber_flags();
                self.asm.mov(T0, STACK);
                let (_, from) = self.look_up(None, 8, false, 1);
                self.asm.load_indexed(T0, T0, T1, 0);
                self.asm.lea(true, STACK, Some(STACK), None, 8 + i32::from(extra));
                self.slow.push(SlowPath {
                    from,
                    op: index,
                    resume: None,
                    vectors: false,
                });
                self.exit_indirect(index, 8 + i32::from(extra));
            }
            C::Jmp_rm64 | C::Call_rm64 => return self.indirect(index, instruction),
            _ if instruction.is_jcc_short_or_near() && instruction.op0_kind() == OpKind::NearBranch64 => {
                self.conditional(instruction);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn conditional(&mut self, instruction: &Instruction) {
        let (next, target) = (instruction.next_ip(), instruction.near_branch64());
        self.want_flags();
        self.settle_flags(&[next, target]);
        let condition = instruction.condition_code() as u8 - 1;
        let taken = self.asm.jcc_number(condition);
        self.exit_to(next);
        self.asm.land(taken);
        self.exit_to(target);
    }

    /// `JMP` and `CALL` through a register or memory.
    pub(super) fn indirect(&mut self, index: u32, instruction: &Instruction) -> bool {
        let call = instruction.code() == iced_x86::Code::Call_rm64;
        self.clobber_flags();
        let mut from = Vec::new();
        if instruction.op0_kind() == OpKind::Register {
            let target = self.held(instruction.op0_register().number(), T0);
            if target != T0 {
                self.asm.mov(T0, target);
            }
        } else {
            let constant = self.linear(instruction);
            let (address, misses) = self.look_up(constant, 8, false, 1);
            self.fold(address);
            self.asm.load(T0, T0, 0);
            from.extend(misses);
        }
        if call {
            // What was pushed could not be taken back.
            from.push(self.no_code_at_target());
            self.asm.store(RSP, layout::TARGET, T0);
            from.extend(self.push_return(instruction.next_ip()));
            self.asm.load(T0, RSP, layout::TARGET);
        }
        self.slow.push(SlowPath {
            from,
            op: index,
            resume: None,
            vectors: false,
        });
        self.exit_indirect(index, 0);
        true
    }

    pub(super) fn push_return(&mut self, next: u64) -> Vec<Forward> {
        self.clobber_flags();
        self.asm.lea(true, T0, Some(STACK), None, -8);
        let (address, misses) = self.look_up(None, 8, true, 1);
        self.fold(address);
        self.asm.mov_imm(T1, next);
        self.asm.store(T0, 0, T1);
        self.asm.lea(true, STACK, Some(STACK), None, -8);
        misses
    }

    /// Goes on at `target`, by a jump that can be linked to its code.
    pub(super) fn exit_to(&mut self, target: u64) {
        let link = self.context.first_link + self.links.len() as u32;
        self.asm.raw(&[0xe9, 0, 0, 0, 0]);
        self.links.push(LinkSite {
            target,
            site: self.asm.here() - 4,
            way: self.way_to(target),
        });
        self.asm.call(self.context.runtime.exit_by);
        self.asm.data(link);
    }

    /// The way into a block at `target` for a jump of this block. Every circle has a jump that leads back, or leaves
    /// the page: there attention is looked for.
    fn way_to(&self, target: u64) -> Way {
        if target & !PAGE_OFFSET != self.page {
            Way::Checked
        } else if target <= self.start {
            Way::Polled
        } else {
            Way::Known
        }
    }

    /// Jumps where the address in [`T0`] is not canonical: the transfer itself faults then.
    fn no_code_at_target(&mut self) -> Forward {
        self.asm.mov(T1, T0);
        self.asm.sar(T1, 47);
        self.asm.alu_imm(false, Alu::Add, T1, 1);
        self.asm.alu_imm(false, Alu::Cmp, T1, 1);
        self.asm.jcc_forward(Condition::Above)
    }

    /// Goes on where [`T0`] says. Where no code can be, the stack pointer goes back by `popped` bytes, and the
    /// interpreter does it again.
    fn exit_indirect(&mut self, index: u32, popped: i32) {
        let jumps = layout::jumps(self.context.mode.set);
        self.asm.mov32(T1, T0);
        self.asm.shr32(T1, JUMP_SHIFT);
        self.asm.alu(false, Alu::Xor, T1, T0);
        self.asm.alu_imm(
            false,
            Alu::And,
            T1,
            jump_entries(self.context.mode.set) as i32 - 1,
        );
        self.asm.shl32(T1, 4);
        self.asm.alu_memory(Alu::Cmp, T0, RSP, Some(T1), jumps);
        let miss = self.asm.jcc_forward(Condition::NotEqual);
        self.asm.jmp_memory(RSP, Some(T1), jumps + 8);
        self.asm.land(miss);
        let nowhere = self.no_code_at_target();
        self.asm.jmp(self.context.runtime.exit);
        self.asm.land(nowhere);
        if popped != 0 {
            self.asm.lea(true, STACK, Some(STACK), None, -popped);
        }
        let from = vec![self.asm.jmp_forward()];
        self.slow.push(SlowPath {
            from,
            op: index,
            resume: None,
            vectors: false,
        });
    }
}
