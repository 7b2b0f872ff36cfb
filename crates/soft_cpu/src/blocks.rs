//! Decoded code, kept by the physical page it lies in.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
    RflagsBits,
};

use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, undefined};
use crate::memory::{Access, PAGE_OFFSET, PAGE_SIZE, within_limit};
use crate::translate::Translation;
use crate::{integer, system, vector, x87};

/// One instruction, ready to be executed.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) handler: Handler,
    pub(crate) instruction: Instruction,
    /// This CPU has the instruction.
    pub(crate) defined: bool,
    /// After its handler, whoever executes must look around: its block ends, or an interrupt is let in.
    pub(crate) leaves: bool,
}

/// A run of instructions that is entered at its first and left at its last. All lie in one page, but for a block of
/// one instruction, which may reach into the next.
pub(crate) struct Block {
    /// All its instructions; once it is translated the first, and those that translated code may have executed by
    /// their handlers.
    pub(crate) ops: Box<[Op]>,
    /// Guest-physical addresses of the pages it lies in.
    pages: [Option<u64>; 2],
    /// How many bytes its instructions have.
    len: u64,
    pub(crate) translation: Translation,
}

impl Block {
    /// Guest-physical addresses of the pages it lies in, in their order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.into_iter().flatten()
    }

    /// The guest-physical address of `linear`, where that is in the page of the block's start.
    pub(crate) fn gpa_in_page(&self, linear: u64) -> Option<u64> {
        let same = (linear ^ self.ops[0].instruction.ip()) & !PAGE_OFFSET == 0;
        self.pages[0]
            .filter(|_| same)
            .map(|page| page | linear & PAGE_OFFSET)
    }
}

/// What a block is found by: code decodes to the same instructions only at the same address in the same mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    gpa: u64,
    linear: u64,
    mode: Mode,
}

/// A hash for keys that nobody gains from making collide but at their own cost.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type KeyMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

/// All decoded code of one vCPU.
#[derive(Default)]
pub(crate) struct Blocks {
    by_key: KeyMap<Key, usize>,
    slots: Vec<Option<Box<Block>>>,
    by_page: KeyMap<u64, Vec<(Key, usize)>>,
    free: Vec<usize>,
    /// Where a block's instructions gather while it is decoded.
    gathering: Vec<Op>,
    /// Blocks that came since the last [`Blocks::sweep`], without those that were translated.
    cold: usize,
    /// The block that is being executed, if any, was dropped: its next instruction may be another one now.
    stale: bool,
    /// How often code of some page was to be forgotten.
    forgotten: u64,
}

/// The most instructions of one block.
const MAX_OPS: usize = 64;
/// The most bytes of one block.
const MAX_BYTES: usize = 256;
/// The most blocks that are kept; more, and all are forgotten.
const MAX_BLOCKS: usize = 512 * 1024;
/// The most blocks that are kept without being translated: code that runs once, such as a kernel's start, is soon
/// forgotten.
const MAX_COLD: usize = 4 * 1024;
/// Bytes that are read at a time: most blocks are shorter.
const FETCHED: usize = 64;
/// The longest instruction in bytes.
const MAX_LEN: usize = 15;

impl Blocks {
    /// Takes out what was decoded from the page at `gpa`.
    fn drop_page(&mut self, gpa: u64) -> Vec<(usize, Box<Block>)> {
        let mut dropped = Vec::new();
        for (key, slot) in self.by_page.remove(&(gpa & !PAGE_OFFSET)).unwrap_or_default() {
            // Blocks over two pages are listed under both.
            if self.by_key.get(&key) == Some(&slot) {
                self.by_key.remove(&key);
                self.free.push(slot);
                self.stale = true;
                // Empty while the interpreter executes it.
                dropped.extend(self.slots[slot].take().map(|block| (slot, block)));
            }
        }
        dropped
    }

    /// Takes out what is not translated.
    fn sweep(&mut self) {
        let mut is_kept = vec![false; self.slots.len()];
        for (slot, block) in self.slots.iter_mut().enumerate() {
            if block
                .as_ref()
                .is_some_and(|block| block.translation.is_translated())
            {
                is_kept[slot] = true;
            } else if block.take().is_some() {
                self.free.push(slot);
            }
        }
        self.by_key.retain(|_, slot| is_kept[*slot]);
        self.by_page.retain(|_, blocks| {
            blocks.retain(|(_, slot)| is_kept[*slot]);
            !blocks.is_empty()
        });
        self.cold = 0;
    }

    /// A block is no longer cold.
    pub(crate) fn note_translated(&mut self) {
        self.cold = self.cold.saturating_sub(1);
    }

    fn insert(&mut self, key: Key, block: Block) -> usize {
        self.cold += 1;
        let pages = block.pages;
        let block = Some(Box::new(block));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = block;
                slot
            }
            None => {
                self.slots.push(block);
                self.slots.len() - 1
            }
        };
        self.by_key.insert(key, slot);
        for page in pages.into_iter().flatten() {
            self.by_page.entry(page).or_default().push((key, slot));
        }
        slot
    }

    pub(crate) fn block_mut(&mut self, slot: usize) -> Option<&mut Block> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// Takes a block out for a while.
    pub(crate) fn take(&mut self, slot: usize) -> Option<Box<Block>> {
        self.slots.get_mut(slot)?.take()
    }

    /// Puts it back.
    pub(crate) fn put_back(&mut self, slot: usize, block: Box<Block>) {
        self.slots[slot] = Some(block);
    }

    /// One instruction of a block.
    pub(crate) fn op(&self, slot: usize, index: usize) -> Option<Op> {
        self.slots.get(slot)?.as_ref()?.ops.get(index).copied()
    }

    /// From here on [`Blocks::is_stale`] tells of blocks that are dropped.
    pub(crate) fn execute_begins(&mut self) {
        self.stale = false;
    }

    /// Whether any block was dropped since [`Blocks::execute_begins`].
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }
}

impl Cpu {
    /// Forgets all decoded and translated code.
    pub(crate) fn forget_code(&mut self) {
        self.blocks = Blocks {
            stale: true,
            ..Blocks::default()
        };
        self.forget_translations();
    }
}

impl Exec<'_> {
    /// Executes the code at RIP to its end, or to its first exception (RIP is where its handler must return to).
    pub(crate) fn run_found_block(&mut self, slot: usize) -> Result<(), Exception> {
        self.cpu.blocks.execute_begins();
        let Some(block) = self.cpu.blocks.take(slot) else {
            // Slots are emptied only together with their keys.
            return Ok(());
        };
        let result = self.run_ops(&block.ops);
        if !self.cpu.blocks.stale {
            self.cpu.blocks.put_back(slot, block);
        } else {
            self.put_back_or_drop(slot, block);
        }
        result
    }

    /// Some blocks were dropped while `block` was executed: perhaps this one.
    fn put_back_or_drop(&mut self, slot: usize, block: Box<Block>) {
        let listed = |page: &u64| {
            let blocks = self.cpu.blocks.by_page.get(page);
            blocks.is_some_and(|blocks| blocks.iter().any(|(_, other)| *other == slot))
        };
        if block.pages.iter().flatten().all(listed) {
            self.cpu.blocks.put_back(slot, block);
        } else {
            self.cpu.unlink(slot, &block);
        }
    }

    /// Executes the one instruction at RIP.
    pub(crate) fn run_instruction(&mut self) -> Result<(), Exception> {
        let slot = self.find_block()?;
        let first = self.cpu.blocks.op(slot, 0);
        self.cpu.blocks.execute_begins();
        first.map_or(Ok(()), |op| self.run_ops(&[op]))
    }

    fn run_ops(&mut self, ops: &[Op]) -> Result<(), Exception> {
        if self.cpu.tracer.is_none() {
            return self.run_each(ops, |_, _| {});
        }
        let result = self.run_each(ops, Self::trace_instruction);
        self.trace_at(None);
        result
    }

    #[inline(always)]
    fn run_each(
        &mut self,
        ops: &[Op],
        mut before: impl FnMut(&mut Self, &Instruction),
    ) -> Result<(), Exception> {
        for op in ops {
            before(self, &op.instruction);
            self.cpu.rip = op.instruction.next_ip();
            if let Err(exception) = (op.handler)(self, &op.instruction) {
                if !exception.trap {
                    self.cpu.rip = op.instruction.ip();
                }
                return Err(exception);
            }
            if op.leaves || self.cpu.blocks.stale {
                break;
            }
        }
        Ok(())
    }

    /// The slot of the block at RIP, decoded now if need be.
    pub(crate) fn find_block(&mut self) -> Result<usize, Exception> {
        let mode = self.cpu.mode;
        let linear = self.code_address(self.cpu.rip)?;
        let gpa = self.translate_code(linear)?;
        let key = Key {
            gpa,
            linear: self.cpu.rip,
            mode,
        };
        if let Some(&slot) = self.cpu.blocks.by_key.get(&key) {
            if self.is_inside_segment(slot) && self.second_page_is(slot, linear)? {
                return Ok(slot);
            }
            self.forget_page(gpa);
        }
        if self.cpu.blocks.by_key.len() >= MAX_BLOCKS {
            self.cpu.forget_code();
        } else if self.cpu.blocks.cold >= MAX_COLD {
            self.cpu.blocks.sweep();
        }
        let block = loop {
            // The page is watched before it is read, so that no store in between is missed.
            self.watch(gpa);
            let before = self.cpu.blocks.forgotten;
            let block = self.decode_block(gpa)?;
            // Looking up its second page may have marked an entry of a table that lies in the first. It is known now.
            if self.cpu.blocks.forgotten == before {
                break block;
            }
        };
        Ok(self.cpu.blocks.insert(key, block))
    }

    /// Whether the code segment reaches to the end of a block, which may have been decoded in another one.
    fn is_inside_segment(&mut self, slot: usize) -> bool {
        let len = self.cpu.blocks.block_mut(slot).map_or(0, |block| block.len);
        self.segment_has(self.cpu.rip, len)
    }

    /// Whether code of `len` bytes at `rip` lies in the code segment.
    fn segment_has(&self, rip: u64, len: u64) -> bool {
        self.cpu.mode.bits == 64 || within_limit(self.cpu.segment(SegReg::Cs), rip, len)
    }

    /// Whether the second page of a block at `linear` that has one is still where it was decoded from.
    fn second_page_is(&mut self, slot: usize, linear: u64) -> Result<bool, Exception> {
        let Some(page) = self.cpu.blocks.block_mut(slot).and_then(|block| block.pages[1]) else {
            return Ok(true);
        };
        let next = self.cpu.rip.wrapping_add(PAGE_SIZE - (linear & PAGE_OFFSET));
        let next = self.code_address(next)?;
        Ok(self.translate_code(next)? == page)
    }

    /// Has stores to the page of code at `gpa` noticed from now on, whoever makes them.
    fn watch(&mut self, gpa: u64) {
        if !self.memory.ram().watch(gpa) {
            return;
        }
        self.cpu.tlb.forget_writes(Some(gpa));
        let mine = self.cpu.apic.attention().clone();
        for other in self.cpu.apic.other_attentions() {
            let before = other.ask_to_forget();
            while !other.has_forgotten(before) {
                // It may be waiting for this vCPU in the same way.
                if mine.take_forget_writes() {
                    self.cpu.tlb.forget_writes(None);
                    mine.note_forgotten();
                }
                std::thread::yield_now();
            }
        }
    }

    /// What is added to RIP.
    pub(crate) fn code_base(&self) -> u64 {
        if self.cpu.mode.bits == 64 {
            0
        } else {
            self.cpu.segment(SegReg::Cs).base
        }
    }

    /// The linear address of code at `rip`.
    fn code_address(&self, rip: u64) -> Result<u64, Exception> {
        self.linear(SegReg::Cs, rip, 1, Access::Fetch)
    }

    fn decode_block(&mut self, gpa: u64) -> Result<Block, Exception> {
        let start = self.cpu.rip;
        let mut bytes = [0; MAX_BYTES + MAX_LEN];
        let in_page = MAX_BYTES.min((PAGE_SIZE - (gpa & PAGE_OFFSET)) as usize);
        let is_cut = in_page == MAX_BYTES;
        let mut fetched = 0;
        let mut ops = std::mem::take(&mut self.cpu.blocks.gathering);
        ops.clear();
        let mut pages = [Some(gpa & !PAGE_OFFSET), None];
        let mut at = 0;
        while at < in_page && ops.len() < MAX_OPS {
            let ip = start.wrapping_add(at as u64);
            if fetched < in_page.min(at + MAX_LEN) {
                let next = in_page.min(fetched + FETCHED);
                self.fetch(gpa + fetched as u64, &mut bytes[fetched..next]);
                fetched = next;
            }
            let mut instruction = self.cpu.decode(&bytes[at..fetched], ip);
            if instruction.code() == Code::INVALID && in_page - at < MAX_LEN {
                if at > 0 || is_cut {
                    // What reaches into the next page is a block of its own, so that its fault comes in time.
                    break;
                }
                let next = self.code_address(start.wrapping_add(in_page as u64))?;
                let next_gpa = self.translate_code(next)?;
                self.watch(next_gpa);
                self.fetch(next_gpa, &mut bytes[in_page..in_page + MAX_LEN]);
                pages[1] = Some(next_gpa & !PAGE_OFFSET);
                instruction = self.cpu.decode(&bytes[..MAX_LEN], ip);
            }
            let end = at + instruction.len().max(1);
            if !self.segment_has(start, end as u64) {
                if at > 0 {
                    break;
                }
                return Err(Exception::PROTECTION);
            }
            at = end;
            let (handler, defined) = match self.handler(&instruction) {
                Some(handler) => (handler, true),
                None => (undefined as Handler, false),
            };
            let ends = ends_block(&instruction);
            ops.push(Op {
                handler,
                instruction,
                defined,
                leaves: ends || lets_interrupts_in(&instruction),
            });
            if ends || !defined {
                break;
            }
        }
        let block = Block {
            ops: ops.as_slice().into(),
            pages,
            len: at as u64,
            translation: Translation::default(),
        };
        self.cpu.blocks.gathering = ops;
        Ok(block)
    }

    /// Reads code. In a device there is none: all ones, which is no instruction.
    fn fetch(&self, gpa: u64, bytes: &mut [u8]) {
        if !self.memory.ram().read(gpa, bytes) {
            bytes.fill(0xff);
        }
    }

    /// What executes `instruction` on this CPU.
    fn handler(&self, instruction: &Instruction) -> Option<Handler> {
        let features = &self.cpu.features;
        let there = |&feature: &_| features.has(feature);
        // A guest of KVM's calls it by these, whatever CPUID says.
        let call = matches!(instruction.mnemonic(), Mnemonic::Vmcall | Mnemonic::Vmmcall);
        let exists = call || instruction.cpuid_features().iter().all(there);
        if instruction.code() == Code::INVALID || !exists {
            return None;
        }
        integer::handler(instruction)
            .or_else(|| system::handler(instruction))
            .or_else(|| vector::handler(instruction))
            .or_else(|| x87::handler(instruction))
    }

    /// This vCPU stored to a page that code was decoded from: all forget what they have of it.
    pub(crate) fn code_written(&mut self, gpa: u64) {
        self.memory.ram().unwatch(gpa);
        self.forget_page(gpa);
        for other in self.cpu.apic.other_attentions() {
            other.code_changed(gpa);
        }
    }

    /// Forgets the code that this vCPU decoded from the page at `gpa`.
    pub(crate) fn forget_page(&mut self, gpa: u64) {
        self.cpu.blocks.forgotten += 1;
        for (slot, block) in self.cpu.blocks.drop_page(gpa) {
            self.cpu.unlink(slot, &block);
        }
    }
}

/// Near branches obey an operand-size prefix in 64-bit code, as AMD's processors have it; hints that no guest is
/// shown (CET, MPX, cache management) are the no-operations that older processors take them for.
const DECODER: u32 = DecoderOptions::AMD | DecoderOptions::FORCE_RESERVED_NOP;

impl Cpu {
    /// How this CPU takes code: `TZCNT` and `LZCNT` are `BSF` and `BSR` where they do not exist, whose prefix says nothing
    /// (Intel SDM vol. 2, TZCNT, LZCNT).
    pub(crate) fn decoder(&self) -> u32 {
        let without = |feature, option| if self.features.has(feature) { 0 } else { option };
        DECODER
            | without(CpuidFeature::BMI1, DecoderOptions::NO_MPFX_0FBC)
            | without(CpuidFeature::LZCNT, DecoderOptions::NO_MPFX_0FBD)
    }

    fn decode(&self, bytes: &[u8], ip: u64) -> Instruction {
        let bits = self.mode.bits;
        let mut instruction = Decoder::with_ip(bits.into(), bytes, ip, self.decoder()).decode();
        if instruction.code() == Code::Pause && bits == 64 {
            return exchange_in_pause(bytes, instruction);
        }
        if matches!(instruction.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr) {
            // The host, on which it may run as itself, would take it for the other one.
            instruction.set_has_rep_prefix(false);
        }
        instruction
    }
}

/// REX.B makes an exchange with R8 out of `PAUSE`, as out of any other `NOP` of one byte (Intel SDM vol. 2, XCHG);
/// the decoder does not know.
fn exchange_in_pause(bytes: &[u8], pause: Instruction) -> Instruction {
    let prefixes = &bytes[..pause.len() - 1];
    let Some(&rex) = prefixes.last().filter(|rex| *rex & 0xf1 == 0x41) else {
        return pause;
    };
    let (code, extended, accumulator) = match (rex & 8 != 0, prefixes.contains(&0x66)) {
        (true, _) => (Code::Xchg_r64_RAX, Register::R8, Register::RAX),
        (false, true) => (Code::Xchg_r16_AX, Register::R8W, Register::AX),
        (false, false) => (Code::Xchg_r32_EAX, Register::R8D, Register::EAX),
    };
    // These operands suit this code: it cannot fail.
    let Ok(mut exchange) = Instruction::with2(code, extended, accumulator) else {
        return pause;
    };
    exchange.set_len(pause.len());
    exchange.set_next_ip(pause.next_ip());
    exchange
}

/// Whether what comes after `instruction` may have to be found anew: control went elsewhere, or it may have
/// changed how code is decoded or what may be accessed.
fn ends_block(instruction: &Instruction) -> bool {
    !lets_interrupts_in(instruction)
        && (instruction.flow_control() != FlowControl::Next
            || instruction.is_privileged() && !goes_on(instruction)
            || instruction.rflags_modified() & RflagsBits::AC != 0
            || changes_vector_mode(instruction)
            || integer::ends_block(instruction)
            || system::ends_block(instruction))
}

/// Privileged instructions that leave code and memory as they are, or are noticed where they do not.
fn goes_on(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    let reads_control = instruction.mnemonic() == M::Mov
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register().is_cr();
    reads_control || matches!(instruction.mnemonic(), M::Cli | M::Swapgs | M::Rdmsr | M::Wrmsr)
}

/// Whether an interrupt may be let in behind `instruction`. Translated code does these without leaving, in most cases.
fn lets_interrupts_in(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    matches!(instruction.mnemonic(), M::Sti | M::Popf | M::Popfd | M::Popfq)
}

/// Instructions that set MXCSR or XCR0.
fn changes_vector_mode(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Ldmxcsr
            | M::Vldmxcsr
            | M::Fxrstor
            | M::Fxrstor64
            | M::Xrstor
            | M::Xrstor64
            | M::Xrstors
            | M::Xrstors64
            | M::Xsetbv
    )
}
