//! Decoded code, kept by the physical page it lies in.

mod decode;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use decode::{ends_block, lets_interrupts_in};
use iced_x86::{Code, Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, undefined};
use crate::memory::{Access, PAGE_OFFSET, PAGE_SIZE, within_limit};
use crate::translate::{Kept, KeptBlock, Translation};
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
    /// The address of its first.
    pub(crate) start: u64,
    /// Guest-physical addresses of the pages it lies in.
    pages: [Option<u64>; 2],
    /// How many bytes its instructions have.
    len: u64,
    pub(crate) translation: Translation,
}

impl Block {
    /// A block that was translated in an earlier run; its instructions are decoded when they are wanted.
    pub(crate) fn kept(key: &Key, translation: Translation) -> Self {
        Self {
            ops: Box::default(),
            start: key.linear,
            pages: [Some(key.gpa & !PAGE_OFFSET), None],
            // Code segments have no end in 64-bit mode, which is all that is kept.
            len: 0,
            translation,
        }
    }

    /// Guest-physical addresses of the pages it lies in, in their order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.into_iter().flatten()
    }

    /// The guest-physical address of `linear`, where that is in the page of the block's start.
    pub(crate) fn gpa_in_page(&self, linear: u64) -> Option<u64> {
        let same = (linear ^ self.start) & !PAGE_OFFSET == 0;
        self.pages[0]
            .filter(|_| same)
            .map(|page| page | linear & PAGE_OFFSET)
    }
}

/// What a block is found by: code decodes to the same instructions only at the same address in the same mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) gpa: u64,
    pub(crate) linear: u64,
    pub(crate) mode: Mode,
}

/// A hash for keys that nobody gains from making collide but at their own cost.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

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

pub(crate) type KeyMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

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
    /// Code of an earlier run.
    kept: Option<Box<Kept>>,
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

    /// Takes out what was kept of the page at `gpa`: its blocks.
    fn drop_kept(&mut self, gpa: u64) -> Vec<KeptBlock> {
        let dropped = match &mut self.kept {
            Some(kept) => kept.drop_page(gpa & !PAGE_OFFSET),
            None => Vec::new(),
        };
        self.stale |= !dropped.is_empty();
        dropped
    }

    /// Adds code of an earlier run to these blocks, which are none yet.
    pub(crate) fn take_up(&mut self, kept: Kept) {
        self.slots.resize_with(kept.slots(), || None);
        self.kept = Some(Box::new(kept));
    }

    pub(crate) fn kept_mut(&mut self) -> Option<&mut Kept> {
        self.kept.as_deref_mut()
    }

    /// Puts a block of an earlier run into the slot that it has.
    pub(crate) fn put_kept(&mut self, slot: usize, key: Key, block: Block) {
        for page in block.pages() {
            self.by_page.entry(page).or_default().push((key, slot));
        }
        self.slots[slot] = Some(Box::new(block));
        self.by_key.insert(key, slot);
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// All translated blocks with their slots.
    pub(crate) fn translated(&self) -> impl Iterator<Item = (&Key, usize, &Block)> {
        self.by_key.iter().filter_map(|(key, &slot)| {
            let block = self.slots.get(slot)?.as_deref()?;
            block.translation.is_translated().then_some((key, slot, block))
        })
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
        let first = self.op_at(slot, 0);
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
        } else if let Some(slot) = self.find_kept(&key) {
            return Ok(slot);
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
    pub(crate) fn watch(&mut self, gpa: u64) {
        if !self.memory.ram().watch(gpa) {
            return;
        }
        self.cpu.tlb.forget_writes(Some(gpa));
        let mine = self.cpu.apic.attention().clone();
        for other in self.cpu.apic.other_attentions() {
            let before = other.ask_to_forget();
            while !other.has_forgotten(before) {
                // It may be waiting for this vCPU in the same way.
                self.forget_writes_where_asked(&mine);
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
            let mut instruction = self.cpu.decode(&bytes[at..fetched], self.cpu.mode.bits, ip);
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
                instruction = self.cpu.decode(&bytes[..MAX_LEN], self.cpu.mode.bits, ip);
            }
            let end = at + instruction.len().max(1);
            if !self.segment_has(start, end as u64) {
                if at > 0 {
                    break;
                }
                return Err(Exception::PROTECTION);
            }
            at = end;
            let op = self.op(instruction);
            ops.push(op);
            if ends_block(&instruction) || !op.defined {
                break;
            }
        }
        let block = Block {
            ops: ops.as_slice().into(),
            start,
            pages,
            len: at as u64,
            translation: Translation::default(),
        };
        self.cpu.blocks.gathering = ops;
        Ok(block)
    }

    /// The one instruction at `gpa`, which ends in its page and is executed at `ip`.
    pub(crate) fn decode_op(&self, gpa: u64, ip: u64, mode: Mode) -> Op {
        let mut bytes = [0; MAX_LEN];
        let len = MAX_LEN.min((PAGE_SIZE - (gpa & PAGE_OFFSET)) as usize);
        self.fetch(gpa, &mut bytes[..len]);
        self.op(self.cpu.decode(&bytes[..len], mode.bits, ip))
    }

    fn op(&self, instruction: Instruction) -> Op {
        let (handler, defined) = match self.handler(&instruction) {
            Some(handler) => (handler, true),
            None => (undefined as Handler, false),
        };
        Op {
            handler,
            instruction,
            defined,
            leaves: ends_block(&instruction) || lets_interrupts_in(&instruction),
        }
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
        let kept = self.cpu.blocks.drop_kept(gpa);
        if !kept.is_empty() {
            self.cpu.unlink_kept(&kept);
        }
    }
}
