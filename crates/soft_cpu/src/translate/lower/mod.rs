//! One block of guest instructions becomes host code.
//!
//! Every guest register is in its place at the borders of every instruction, and the flags are where
//! [`Flags`] says. So at any border control can go to the slow path, which has the interpreter's handler execute
//! one instruction, and come back after it; that is how misses of the TLB, devices, faults, watched pages and all
//! instructions that are not translated are dealt with.

mod address;
mod control;
mod itself;
mod system_flags;

use iced_x86::{Encoder, Instruction, InstructionInfoFactory, Mnemonic, OpKind};

use super::assembler::{Alu, Assembler, Condition, Forward, RAX, RDX, RSP, Reg};
use super::eligible;
use super::flags::{self, Flags, Use};
use super::layout;
use super::registers::{STACK, T0, T1, host};
use super::runtime::Runtime;
use super::state::NO_PAGE;
use crate::blocks::Op;
use crate::cpu::Mode;
use crate::exec::GprOperand;
use crate::memory::PAGE_OFFSET;

/// A jump to another block, which can be made to go there directly.
pub(super) struct LinkSite {
    /// The guest's address that it goes to.
    pub(super) target: u64,
    /// Address of the jump's 32-bit displacement.
    pub(super) site: u64,
    /// Which way it goes in.
    pub(super) way: Way,
}

/// The ways into a block's code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// For everybody: it looks whether the block's pages are where they were.
    Checked,
    /// For those who know, from inside its page: it looks whether attention is wanted.
    Polled,
    /// For jumps forward from inside its page.
    Known,
}

/// Where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries {
    pub(super) checked: u64,
    pub(super) polled: u64,
    pub(super) known: u64,
}

impl Entries {
    pub(super) fn by(self, way: Way) -> u64 {
        match way {
            Way::Checked => self.checked,
            Way::Polled => self.polled,
            Way::Known => self.known,
        }
    }
}

/// The host code of one block.
pub(super) struct Lowered {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Entries,
    pub(super) links: Vec<LinkSite>,
}

/// What a block is translated for.
pub(super) struct Context<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) mode: Mode,
    /// The block's slot, by which the slow path finds its instructions.
    pub(super) place: u32,
    /// Numbers of the code pages it lies in.
    pub(super) pages: [Option<u32>; 2],
    /// Number of the first exit.
    pub(super) first_link: u32,
    /// Where the code will be executed.
    pub(super) base: u64,
    /// Whether the flags are overwritten before anybody can see them, by address in the block's page.
    pub(super) flags_dead_at: &'a dyn Fn(u64) -> bool,
}

struct SlowPath {
    from: Vec<Forward>,
    op: u32,
    /// Where to go on, and whether the flags are to be in the host's there; nowhere after a control transfer.
    resume: Option<(u64, bool)>,
    /// Vector registers are to be in the host's where it goes on.
    vectors: bool,
}

struct Lowering<'a> {
    context: &'a Context<'a>,
    ops: &'a [Op],
    asm: Assembler,
    encoder: Encoder,
    info: InstructionInfoFactory,
    flags: Flags,
    /// The block has seen to it that vector registers are in the host's.
    vectors: bool,
    slow: Vec<SlowPath>,
    links: Vec<LinkSite>,
    start: u64,
    page: u64,
}

/// Where the memory operand is after a look-up that hit.
#[derive(Clone, Copy)]
enum Address {
    /// [`T0`] + [`T1`].
    Sum,
    /// [`T0`].
    Whole,
}

/// Translates a block.
pub(super) fn lower<'a>(ops: &'a [Op], context: &'a Context<'a>) -> Lowered {
    let start = ops[0].instruction.ip();
    let mut lowering = Lowering {
        context,
        ops,
        asm: Assembler::new(context.base),
        encoder: Encoder::new(64),
        info: InstructionInfoFactory::new(),
        flags: Flags::Memory,
        vectors: false,
        slow: Vec::new(),
        links: Vec::new(),
        start,
        page: start & !PAGE_OFFSET,
    };
    let moved = lowering.verify_pages();
    let checked = context.base;
    let polled = lowering.asm.here();
    let called = lowering.poll();
    let known = lowering.asm.here();
    let entries = match context.pages[1] {
        None => Entries {
            checked,
            polled,
            known,
        },
        // Nobody knows about a second page.
        Some(_) => Entries {
            checked,
            polled: checked,
            known: checked,
        },
    };
    let mut next = Some(start);
    for (index, op) in (0..).zip(ops) {
        let last = index as usize + 1 == ops.len();
        let goes_on = lowering.instruction(index, op, last);
        next = goes_on.then(|| op.instruction.next_ip());
        if !goes_on {
            break;
        }
    }
    if let Some(next) = next {
        lowering.settle_flags(&[next]);
        lowering.exit_to(next);
    }
    lowering.finish(called, moved, entries)
}

impl Lowering<'_> {
    /// Leaves before the first instruction where the vCPU's attention is wanted.
    fn poll(&mut self) -> Forward {
        self.asm.load(T0, RSP, layout::ATTENTION);
        self.asm.cmp32_memory(T0, 0, 0);
        self.asm.jcc_forward(Condition::NotEqual)
    }

    /// Leaves where a page of this block may have become another one.
    fn verify_pages(&mut self) -> Vec<Forward> {
        let mut moved = Vec::new();
        self.asm.load(T1, RSP, layout::generation(self.context.mode.set));
        for page in self.context.pages.into_iter().flatten() {
            self.asm
                .alu_memory(Alu::Cmp, T1, RSP, None, layout::verified(page));
            moved.push(self.asm.jcc_forward(Condition::NotEqual));
        }
        moved
    }

    fn finish(mut self, called: Forward, moved: Vec<Forward>, entries: Entries) -> Lowered {
        for path in std::mem::take(&mut self.slow) {
            for jump in path.from {
                self.asm.land(jump);
            }
            self.call_handler(path.op);
            match path.resume {
                Some((address, in_host)) => {
                    if path.vectors {
                        self.asm.call(self.context.runtime.load_vectors);
                    }
                    if in_host {
                        flags::load(&mut self.asm);
                    }
                    self.asm.jmp(address);
                }
                // The slow path leaves by itself after such an instruction.
                None => self.asm.raw(&[0x0f, 0x0b]),
            }
        }
        for jump in moved {
            self.asm.land(jump);
        }
        self.asm
            .store_imm32(RSP, layout::PAGE, self.context.pages[0].unwrap_or(NO_PAGE));
        self.asm.land(called);
        self.asm.mov_imm(T0, self.start);
        self.asm.jmp(self.context.runtime.exit);
        Lowered {
            entries,
            bytes: self.asm.bytes().to_vec(),
            links: self.links,
        }
    }

    /// Translates one instruction; says whether control can come to the next.
    fn instruction(&mut self, index: u32, op: &Op, last: bool) -> bool {
        let instruction = &op.instruction;
        let mode = self.context.mode;
        if op.defined {
            if self.control_transfer(index, instruction) {
                return false;
            }
            let done = self.stack(index, instruction)
                || self.without_access(instruction)
                || self.system_flags(index, instruction, last)
                || self.division(index, instruction)
                || (eligible::runs_as_itself(instruction, mode) && self.as_itself(index, instruction));
            if done {
                return true;
            }
        }
        self.by_handler(index, op)
    }

    /// Has the interpreter's handler execute the instruction.
    fn by_handler(&mut self, index: u32, op: &Op) -> bool {
        self.clobber_flags();
        self.call_handler(index);
        self.vectors = false;
        !op.leaves
    }

    fn call_handler(&mut self, op: u32) {
        self.asm.call(self.context.runtime.slow);
        self.asm.data(self.context.place);
        self.asm.data(op);
    }

    // Flags.

    /// The host's flags are about to be overwritten by code that is not the guest's.
    fn clobber_flags(&mut self) {
        if self.flags == Flags::Host {
            flags::save(&mut self.asm);
        }
        self.flags = Flags::Memory;
    }

    /// Whether the instructions from number `first` on overwrite all flags before anything can see them.
    fn flags_die_unseen(&self, first: usize) -> bool {
        for op in self.ops.get(first..).unwrap_or_default() {
            let instruction = &op.instruction;
            if !op.defined || !eligible::only_computes(instruction, self.context.mode) {
                return false;
            }
            let flags = Use::of(instruction);
            if flags.reads || flags.overwrites() {
                return flags.overwrites();
            }
        }
        false
    }

    /// The next instruction wants the guest's flags in the host's.
    fn want_flags(&mut self) {
        if self.flags == Flags::Memory {
            flags::load(&mut self.asm);
            self.flags = Flags::Both;
        }
    }

    /// Before the block is left for one of `targets`: memory is to have the flags, unless they are dead there.
    fn settle_flags(&mut self, targets: &[u64]) {
        let dead = |target: &u64| target & !PAGE_OFFSET == self.page && (self.context.flags_dead_at)(*target);
        if self.flags == Flags::Host && !targets.iter().all(dead) {
            flags::save(&mut self.asm);
            self.flags = Flags::Both;
        }
    }

    // Registers.

    /// The next instruction wants vector registers in the host's.
    fn want_vectors(&mut self) {
        if !self.vectors {
            self.clobber_flags();
            self.asm.cmp32_memory(RSP, layout::VECTORS_HELD, 0);
            let held = self.asm.jcc_forward(Condition::NotEqual);
            self.asm.call(self.context.runtime.load_vectors);
            self.asm.land(held);
            self.vectors = true;
        }
    }

    /// The host register with guest register `number`, loaded into `spare` where it lives in memory.
    fn held(&mut self, number: usize, spare: Reg) -> Reg {
        host(number).unwrap_or_else(|| {
            self.asm.load(spare, RSP, layout::gpr(number));
            spare
        })
    }

    /// Guest register `number` := host register `from`.
    fn set(&mut self, number: usize, from: Reg) {
        match host(number) {
            Some(to) if to == from => {}
            Some(to) => self.asm.mov(to, from),
            None => self.asm.store(RSP, layout::gpr(number), from),
        }
    }

    /// What only computes, or does nothing: `LEA`, no-operations, prefetches.
    fn without_access(&mut self, instruction: &Instruction) -> bool {
        use Mnemonic as M;
        match instruction.mnemonic() {
            M::Lea => {}
            M::Nop
            | M::Reservednop
            | M::Endbr64
            | M::Endbr32
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchnta
            | M::Prefetchw => return true,
            _ => return false,
        }
        let Some(target) = GprOperand::of(instruction.op0_register()).filter(|target| target.size >= 4)
        else {
            return false;
        };
        if let Some(offset) = self.offset(instruction, T0) {
            self.asm.mov_imm(T0, offset);
        }
        match host(target.number) {
            Some(to) if target.size == 8 => self.asm.mov(to, T0),
            Some(to) => self.asm.mov32(to, T0),
            None => {
                if target.size == 4 {
                    self.asm.mov32(T0, T0);
                }
                self.set(target.number, T0);
            }
        }
        true
    }

    /// Divisions that cannot fail run as themselves; the others go to their handler, which raises #DE.
    fn division(&mut self, index: u32, instruction: &Instruction) -> bool {
        let signed = match instruction.mnemonic() {
            Mnemonic::Div => false,
            Mnemonic::Idiv => true,
            _ => return false,
        };
        let Some(divisor) = GprOperand::of(instruction.op0_register()).filter(|divisor| divisor.size >= 4)
        else {
            return false;
        };
        if instruction.op0_kind() != OpKind::Register {
            return false;
        }
        let wide = divisor.size == 8;
        self.clobber_flags();
        let reg = self.held(divisor.number, T0);
        if reg != T0 {
            self.asm.mov(T0, reg);
        }
        let mut from = Vec::new();
        if signed {
            // Neither 0 nor -1, and a dividend that is a sign extension: then the quotient fits.
            self.asm.lea(wide, T1, Some(T0), None, 1);
            self.asm.alu_imm(wide, Alu::Cmp, T1, 2);
            // T1 is 0 for -1 and 1 for 0.
            let in_range = self.asm.jcc_forward(Condition::AboveOrEqual);
            from.push(self.asm.jmp_forward());
            self.asm.land(in_range);
            if wide {
                self.asm.mov(T1, RAX);
            } else {
                self.asm.mov32(T1, RAX);
            }
            self.asm.sign(wide, T1);
            self.asm.alu(wide, Alu::Cmp, T1, RDX);
            from.push(self.asm.jcc_forward(Condition::NotEqual));
        } else {
            // The quotient fits where the upper half is below the divisor; none is below 0.
            self.asm.alu(wide, Alu::Cmp, RDX, T0);
            from.push(self.asm.jcc_forward(Condition::AboveOrEqual));
        }
        // div r14 or idiv r14
        let rex = if wide { 0x49 } else { 0x41 };
        self.asm.raw(&[rex, 0xf7, if signed { 0xfe } else { 0xf6 }]);
        // What the flags become is undefined; they stay what they were.
        self.slow_path(from, index);
        true
    }

    /// `PUSH` and `POP` of registers and immediates, `LEAVE`.
    fn stack(&mut self, index: u32, instruction: &Instruction) -> bool {
        use iced_x86::Code as C;
        match instruction.code() {
            C::Push_r64 => {
                let number = instruction.op0_register().number();
                self.push(index, |lowering| lowering.held(number, T1));
            }
            C::Push_rm64 if instruction.op0_kind() == OpKind::Memory => self.push_memory(index, instruction),
            C::Pushq_imm8 | C::Pushq_imm32 => {
                let value = instruction.immediate(0);
                self.push(index, |lowering| {
                    lowering.asm.mov_imm(T1, value);
                    T1
                });
            }
            C::Pop_r64 => {
                let number = instruction.op0_register().number();
                self.pop(index, STACK, |lowering| {
                    lowering.asm.lea(true, STACK, Some(STACK), None, 8);
                    lowering.set(number, T0);
                });
            }
            C::Leaveq => {
                const RBP: Reg = 5;
                self.pop(index, RBP, |lowering| {
                    lowering.asm.lea(true, STACK, Some(RBP), None, 8);
                    lowering.asm.mov(RBP, T0);
                });
            }
            _ => return false,
        }
        true
    }

    /// Stores the register that `value` names below the stack pointer, then moves that.
    fn push(&mut self, index: u32, value: impl FnOnce(&mut Self) -> Reg) {
        self.clobber_flags();
        self.asm.lea(true, T0, Some(STACK), None, -8);
        let (address, misses) = self.look_up(None, 8, true, 1);
        self.fold(address);
        let value = value(self);
        self.asm.store(T0, 0, value);
        self.asm.lea(true, STACK, Some(STACK), None, -8);
        self.slow_path(misses, index);
    }

    /// `PUSH` of a memory operand, which need not be where the host could push it from.
    fn push_memory(&mut self, index: u32, instruction: &Instruction) {
        self.clobber_flags();
        let constant = self.linear(instruction);
        let (address, mut misses) = self.look_up(constant, 8, false, 1);
        self.fold(address);
        self.asm.load(T0, T0, 0);
        self.asm.store(RSP, layout::TARGET, T0);
        self.asm.lea(true, T0, Some(STACK), None, -8);
        let (address, more) = self.look_up(None, 8, true, 1);
        misses.extend(more);
        self.fold(address);
        self.asm.load(T1, RSP, layout::TARGET);
        self.asm.store(T0, 0, T1);
        self.asm.lea(true, STACK, Some(STACK), None, -8);
        self.slow_path(misses, index);
    }

    /// Loads [`T0`] from where `pointer` points, then does the rest.
    fn pop(&mut self, index: u32, pointer: Reg, then: impl FnOnce(&mut Self)) {
        self.clobber_flags();
        self.asm.mov(T0, pointer);
        let (_, misses) = self.look_up(None, 8, false, 1);
        self.asm.load_indexed(T0, T0, T1, 0);
        then(self);
        self.slow_path(misses, index);
    }
}
