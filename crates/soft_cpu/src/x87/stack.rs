//! The register stack (Intel SDM vol. 1, 8.1.2 and 8.5.1), and how results and exceptions reach it.

use super::X87;
use super::float::{Context, Float, Outcome, flag};

impl X87 {
    /// How the control word wants things computed.
    pub(super) fn context(&self) -> Context {
        Context::of(self.control)
    }

    /// The bit of ST(`index`) in the tags.
    fn tag(&self, index: usize) -> u8 {
        1 << ((self.top() + index) & 7)
    }

    pub(super) fn is_empty(&self, index: usize) -> bool {
        self.tags & self.tag(index) == 0
    }

    /// ST(`index`), whatever it holds.
    pub(super) fn raw(&self, index: usize) -> Float {
        Float::from_bits(self.registers[index & 7])
    }

    /// ST(`index`), unless it is empty.
    pub(super) fn st(&self, index: usize) -> Option<Float> {
        (!self.is_empty(index)).then(|| self.raw(index))
    }

    pub(super) fn set_st(&mut self, index: usize, value: Float) {
        self.tags |= self.tag(index);
        self.registers[index & 7] = value.to_bits();
    }

    pub(super) fn free(&mut self, index: usize) {
        self.tags &= !self.tag(index);
    }

    /// Makes the register below the top the top.
    fn descend(&mut self) {
        self.turn_to(self.top().wrapping_sub(1) & 7);
    }

    pub(super) fn pop(&mut self) {
        self.free(0);
        self.turn_to(self.top() + 1);
    }

    /// What every instruction ends with: its flags are added, and C1 is what it says.
    pub(super) fn finish(&mut self, flags: u16) {
        self.status = self.status & !flag::C1 | flags;
        self.summarize();
    }

    /// The same for instructions that leave C1 alone.
    pub(super) fn finish_keeping_c1(&mut self, flags: u16) {
        self.status |= flags;
        self.summarize();
    }

    /// The same for an instruction that defines all condition codes.
    pub(super) fn finish_with_codes(&mut self, flags: u16) {
        self.status &= !(flag::C0 | flag::C2 | flag::C3);
        self.finish(flags);
    }

    /// Notes a stack fault. Says whether it is masked: then the instruction goes on with the indefinite number.
    pub(super) fn stack_fault(&mut self, overflow: bool) -> bool {
        let flags = flag::INVALID | flag::STACK;
        self.finish(flags | if overflow { flag::C1 } else { 0 });
        self.control & flag::INVALID != 0
    }

    /// A register was empty that is an operand. Says whether the result, in ST(`index`), is stored.
    pub(super) fn underflow(&mut self, index: usize) -> bool {
        let masked = self.stack_fault(false);
        if masked {
            self.set_st(index, Float::INDEFINITE);
        }
        masked
    }

    /// Puts a result into ST(`index`), if no exception keeps it from being stored; says whether it did.
    pub(super) fn store(&mut self, index: usize, outcome: Outcome, context: &Context) -> bool {
        if context.stops(outcome.flags) {
            self.finish(outcome.flags & flag::BEFORE);
            return false;
        }
        self.set_st(index, outcome.value);
        self.finish(outcome.flags);
        true
    }

    /// Pushes a result.
    pub(super) fn push(&mut self, outcome: Outcome, context: &Context) {
        if !self.is_empty(7) {
            if self.stack_fault(true) {
                self.descend();
                self.set_st(0, Float::INDEFINITE);
            }
            return;
        }
        if context.stops(outcome.flags) {
            self.finish(outcome.flags & flag::BEFORE);
            return;
        }
        self.descend();
        self.set_st(0, outcome.value);
        self.finish(outcome.flags);
    }

    /// `FDECSTP` and `FINCSTP`: the stack turns, and nothing is pushed or popped.
    pub(super) fn turn(&mut self, by: usize) {
        self.turn_to((self.top() + by) & 7);
        self.finish(0);
    }
}
