//! One block of guest instructions becomes host code.
//!
//! Every guest register is in its place at the borders of every instruction, and the flags are where
//! [`Flags`] says. So at any border control can go to the slow path, which has the interpreter's handler execute
//! one instruction, and come back after it; that is how misses of the TLB, devices, faults, watched pages and all
//! instructions that are not translated are dealt with.

use iced_x86::{
    Encoder, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind,
    Register,
};

use super::assembler::{Alu, Assembler, Condition, Forward, RAX, RDX, RSP, Reg};
use super::eligible;
use super::flags::{self, Flags, Use};
use super::layout;
use super::registers::{STACK, T0, T1, host, name};
use super::runtime::Runtime;
use super::state::{JUMP_ENTRIES, NO_LINK};
use crate::blocks::{Op, ends_block};
use crate::cpu::{Mode, SegReg};
use crate::exec::{GprOperand, segment_register};
use crate::memory::{PAGE_OFFSET, PAGE_SIZE, TLB_ENTRIES};

/// A jump to another block of the same page, which can be made to go there directly.
pub(super) struct LinkSite {
    /// Number of the exit, as [`super::state::TranslatorState::link`] will have it.
    pub(super) link: u32,
    /// Address of the jump's 32-bit displacement.
    pub(super) site: u64,
}

/// The host code of one block.
pub(super) struct Lowered {
    pub(super) bytes: Vec<u8>,
    pub(super) links: Vec<LinkSite>,
}

/// What a block is translated for.
pub(super) struct Context<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) mode: Mode,
    /// The block's slot, by which the slow path finds its instructions.
    pub(super) place: u32,
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
}

struct Lowering<'a> {
    context: &'a Context<'a>,
    asm: Assembler,
    encoder: Encoder,
    info: InstructionInfoFactory,
    flags: Flags,
    slow: Vec<SlowPath>,
    links: Vec<LinkSite>,
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
pub(super) fn lower(ops: &[Op], context: &Context<'_>) -> Lowered {
    let start = ops[0].instruction.ip();
    let mut lowering = Lowering {
        context,
        asm: Assembler::new(context.base),
        encoder: Encoder::new(64),
        info: InstructionInfoFactory::new(),
        flags: Flags::Memory,
        slow: Vec::new(),
        links: Vec::new(),
        page: start & !PAGE_OFFSET,
    };
    let called = lowering.poll();
    let mut open = true;
    for (index, op) in (0..).zip(ops) {
        open = lowering.instruction(index, op);
    }
    if open {
        let next = ops[ops.len() - 1].instruction.next_ip();
        lowering.settle_flags(&[next]);
        lowering.exit_to(next);
    }
    lowering.finish(called, start)
}

impl Lowering<'_> {
    /// Leaves before the first instruction where the vCPU's attention is wanted.
    fn poll(&mut self) -> Forward {
        self.asm.load(T0, RSP, layout::ATTENTION);
        self.asm.cmp32_memory(T0, 0, 0);
        self.asm.jcc_forward(Condition::NotEqual)
    }

    fn finish(mut self, called: Forward, start: u64) -> Lowered {
        for path in std::mem::take(&mut self.slow) {
            for jump in path.from {
                self.asm.land(jump);
            }
            self.call_handler(path.op);
            match path.resume {
                Some((address, in_host)) => {
                    if in_host {
                        flags::load(&mut self.asm);
                    }
                    self.asm.jmp(address);
                }
                // The slow path leaves by itself after such an instruction.
                None => self.asm.raw(&[0x0f, 0x0b]),
            }
        }
        self.asm.land(called);
        self.asm.mov_imm(T0, start);
        self.leave(NO_LINK);
        Lowered {
            bytes: self.asm.bytes().to_vec(),
            links: self.links,
        }
    }

    /// Translates one instruction; says whether control can come to the next.
    fn instruction(&mut self, index: u32, op: &Op) -> bool {
        let instruction = &op.instruction;
        let mode = self.context.mode;
        if op.defined {
            if self.control_transfer(index, instruction) {
                return false;
            }
            let done = self.stack(index, instruction)
                || self.without_access(instruction)
                || self.division(index, instruction)
                || (eligible::runs_as_itself(instruction, mode) && self.as_itself(index, instruction));
            if done {
                return true;
            }
        }
        self.by_handler(index, instruction)
    }

    /// Has the interpreter's handler execute the instruction.
    fn by_handler(&mut self, index: u32, instruction: &Instruction) -> bool {
        self.clobber_flags();
        self.call_handler(index);
        !ends_block(instruction)
    }

    fn call_handler(&mut self, op: u32) {
        self.asm.store_imm32(RSP, layout::PLACE, self.context.place);
        self.asm.store_imm32(RSP, layout::OP, op);
        self.asm.call(self.context.runtime.slow);
    }

    // Flags.

    /// The host's flags are about to be overwritten by code that is not the guest's.
    fn clobber_flags(&mut self) {
        if self.flags == Flags::Host {
            flags::save(&mut self.asm);
        }
        self.flags = Flags::Memory;
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

    // Addresses.

    /// [`T0`] := linear address of the memory operand. Gives it where it is the same each time.
    fn linear(&mut self, instruction: &Instruction) -> Option<u64> {
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
    fn offset(&mut self, instruction: &Instruction, to: Reg) -> Option<u64> {
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
    fn look_up(
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
    fn fold(&mut self, address: Address) {
        if matches!(address, Address::Sum) {
            self.asm.lea(true, T0, Some(T0), Some((T1, 1)), 0);
        }
    }

    fn slow_path(&mut self, from: Vec<Forward>, op: u32) {
        let resume = Some((self.asm.here(), self.flags != Flags::Memory));
        self.slow.push(SlowPath { from, op, resume });
    }

    // Instructions.

    /// What only computes, or does nothing: `LEA`, no-operations, prefetches.
    fn without_access(&mut self, instruction: &Instruction) -> bool {
        use Mnemonic as M;
        match instruction.mnemonic() {
            M::Lea => {}
            M::Nop
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

    /// The instruction itself, with its operands where they are here.
    fn as_itself(&mut self, index: u32, instruction: &Instruction) -> bool {
        let info = self.info.info_options(instruction, InstructionInfoOptions::NONE);
        let memory = info.used_memory().first().map(|memory| memory.access());
        if info.used_memory().len() > 1 {
            return false;
        }
        let access = |operand| info.op_access(operand);
        let Some(spilled) = Spilled::of(instruction, access) else {
            return false;
        };
        let has_memory =
            (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
        let limit = if has_memory { 1 } else { 2 };
        if spilled.registers.len() > limit || has_memory && memory.is_none() {
            return false;
        }
        // With a register in T1 the address is in T0 alone.
        let folded = !spilled.registers.is_empty();
        let flags = Use::of(instruction);
        let constant_address = instruction.is_ip_rel_memory_operand()
            || instruction.memory_base() == Register::None && instruction.memory_index() == Register::None;
        let based = !matches!(
            segment_register(instruction.memory_segment()),
            SegReg::Fs | SegReg::Gs
        );
        let whole = folded || flags.needs || constant_address && based;
        let Some(code) = self.encode(instruction, &spilled, has_memory, whole) else {
            return false;
        };
        if has_memory {
            let size = instruction.memory_size().size();
            let write = memory.is_some_and(writes);
            if size == 0 || size > 32 {
                return false;
            }
            self.clobber_flags();
            let constant = self.linear(instruction);
            let align = eligible::alignment(instruction, size);
            let (address, misses) = self.look_up(constant, size, write, align);
            if whole {
                self.fold(address);
            }
            self.execute(&code, flags, &spilled, &[T1]);
            self.slow_path(misses, index);
        } else {
            self.execute(&code, flags, &spilled, &[T0, T1]);
        }
        true
    }

    /// The encoded instruction, with what it wants before and after.
    fn execute(&mut self, code: &[u8], flags: Use, spilled: &Spilled, spares: &[Reg]) {
        if flags.needs {
            self.want_flags();
        }
        for (register, &spare) in spilled.registers.iter().zip(spares) {
            if register.read {
                self.asm.load(spare, RSP, layout::gpr(register.number));
            }
        }
        self.asm.raw(code);
        for (register, &spare) in spilled.registers.iter().zip(spares) {
            if register.written {
                self.asm.store(RSP, layout::gpr(register.number), spare);
            }
        }
        if flags.changes {
            self.flags = Flags::Host;
        }
    }

    /// Encodes `instruction` with host registers. `None` where that cannot be done.
    fn encode(
        &mut self,
        instruction: &Instruction,
        spilled: &Spilled,
        has_memory: bool,
        whole: bool,
    ) -> Option<Vec<u8>> {
        let spares: &[Reg] = if has_memory { &[T1] } else { &[T0, T1] };
        let mut moved = *instruction;
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Register => {
                    let register = instruction.op_register(operand);
                    if let Some(gpr) = GprOperand::of(register).filter(|gpr| !gpr.high) {
                        let reg = host(gpr.number).or_else(|| spilled.spare(gpr.number, spares))?;
                        moved.set_op_register(operand, name(reg, gpr.size));
                    }
                }
                OpKind::Memory => {
                    moved.set_memory_base(Register::R14);
                    moved.set_memory_index(if whole { Register::None } else { Register::R15 });
                    moved.set_memory_index_scale(1);
                    moved.set_memory_displacement64(0);
                    moved.set_memory_displ_size(0);
                    moved.set_segment_prefix(Register::None);
                }
                _ => {}
            }
        }
        self.encoder.encode(&moved, 0).ok()?;
        Some(self.encoder.take_buffer())
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

    /// Loads [`T0`] from where `pointer` points, then does the rest.
    fn pop(&mut self, index: u32, pointer: Reg, then: impl FnOnce(&mut Self)) {
        self.clobber_flags();
        self.asm.mov(T0, pointer);
        let (_, misses) = self.look_up(None, 8, false, 1);
        self.asm.load_indexed(T0, T0, T1, 0);
        then(self);
        self.slow_path(misses, index);
    }

    /// Jumps, calls and returns.
    fn control_transfer(&mut self, index: u32, instruction: &Instruction) -> bool {
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
                });
                self.exit_indirect();
            }
            C::Jmp_rm64 | C::Call_rm64 => return self.indirect(index, instruction),
            _ if instruction.is_jcc_short_or_near() && instruction.op0_kind() == OpKind::NearBranch64 => {
                self.conditional(instruction);
            }
            _ => return false,
        }
        true
    }

    fn conditional(&mut self, instruction: &Instruction) {
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
    fn indirect(&mut self, index: u32, instruction: &Instruction) -> bool {
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
            self.asm.store(RSP, layout::TARGET, T0);
            from.extend(self.push_return(instruction.next_ip()));
            self.asm.load(T0, RSP, layout::TARGET);
        }
        self.slow.push(SlowPath {
            from,
            op: index,
            resume: None,
        });
        self.exit_indirect();
        true
    }

    fn push_return(&mut self, next: u64) -> Vec<Forward> {
        self.clobber_flags();
        self.asm.lea(true, T0, Some(STACK), None, -8);
        let (address, misses) = self.look_up(None, 8, true, 1);
        self.fold(address);
        self.asm.mov_imm(T1, next);
        self.asm.store(T0, 0, T1);
        self.asm.lea(true, STACK, Some(STACK), None, -8);
        misses
    }

    // Ways out.

    /// Goes on at `target`. Inside the page the jump can be linked to its code; beyond, the page may be another
    /// one next time, so it is looked up.
    fn exit_to(&mut self, target: u64) {
        if target & !PAGE_OFFSET != self.page {
            self.asm.mov_imm(T0, target);
            let entry = (target as usize % JUMP_ENTRIES * 16) as i32;
            let jumps = layout::jumps(self.context.mode.set) + entry;
            self.asm.alu_memory(Alu::Cmp, T0, RSP, None, jumps);
            let miss = self.asm.jcc_forward(Condition::NotEqual);
            self.asm.jmp_memory(RSP, None, jumps + 8);
            self.asm.land(miss);
            self.leave(NO_LINK);
            return;
        }
        let link = self.context.first_link + self.links.len() as u32;
        self.asm.raw(&[0xe9, 0, 0, 0, 0]);
        self.links.push(LinkSite {
            link,
            site: self.asm.here() - 4,
        });
        self.asm.mov_imm(T0, target);
        self.leave(link);
    }

    /// Goes on where [`T0`] says.
    fn exit_indirect(&mut self) {
        let jumps = layout::jumps(self.context.mode.set);
        self.asm.mov32(T1, T0);
        self.asm.alu_imm(false, Alu::And, T1, JUMP_ENTRIES as i32 - 1);
        self.asm.shl32(T1, 4);
        self.asm.alu_memory(Alu::Cmp, T0, RSP, Some(T1), jumps);
        let miss = self.asm.jcc_forward(Condition::NotEqual);
        self.asm.jmp_memory(RSP, Some(T1), jumps + 8);
        self.asm.land(miss);
        self.leave(NO_LINK);
    }

    /// Back to the dispatcher, with RIP in [`T0`].
    fn leave(&mut self, link: u32) {
        self.asm.store(RSP, layout::RIP, T0);
        self.asm.store_imm32(RSP, layout::LINK, link);
        self.asm.jmp(self.context.runtime.exit);
    }
}

/// A guest register that lives in memory and is an operand.
struct SpilledRegister {
    number: usize,
    read: bool,
    written: bool,
}

/// All of them, of one instruction.
struct Spilled {
    registers: Vec<SpilledRegister>,
}

impl Spilled {
    /// `None` where an operand cannot be given another register.
    fn of(instruction: &Instruction, access: impl Fn(u32) -> OpAccess) -> Option<Self> {
        let mut registers: Vec<SpilledRegister> = Vec::new();
        for operand in 0..instruction.op_count() {
            if instruction.op_kind(operand) != OpKind::Register {
                continue;
            }
            let Some(gpr) = GprOperand::of(instruction.op_register(operand)) else {
                continue;
            };
            if gpr.high || host(gpr.number).is_some() {
                continue;
            }
            let access = access(operand);
            let written = writes(access);
            // A narrow or conditional store keeps the rest.
            let read = access != OpAccess::Write || gpr.size < 4;
            match registers.iter_mut().find(|other| other.number == gpr.number) {
                Some(other) => (other.read, other.written) = (other.read || read, other.written || written),
                None => registers.push(SpilledRegister {
                    number: gpr.number,
                    read,
                    written,
                }),
            }
        }
        Some(Self { registers })
    }

    fn spare(&self, number: usize, spares: &[Reg]) -> Option<Reg> {
        let place = self
            .registers
            .iter()
            .position(|register| register.number == number)?;
        spares.get(place).copied()
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}
