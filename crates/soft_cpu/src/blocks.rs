//! Decoded code, kept by the physical page it lies in.

use std::collections::HashMap;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

use crate::cpu::Mode;
use crate::exception::Exception;
use crate::exec::{Exec, Handler, undefined};
use crate::memory::{PAGE_OFFSET, PAGE_SIZE};
use crate::{integer, system, vector, x87};

/// One instruction, ready to be executed.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) handler: Handler,
    pub(crate) instruction: Instruction,
}

/// A run of instructions that is entered at its first and left at its last. All lie in one page, but for the
/// last, which may reach into the next.
pub(crate) struct Block {
    pub(crate) ops: Vec<Op>,
    pages: [Option<u64>; 2],
}

/// What a block is found by: code decodes to the same instructions only at the same address in the same mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    gpa: u64,
    linear: u64,
    mode: Mode,
}

/// All decoded code of one vCPU.
#[derive(Default)]
pub(crate) struct Blocks {
    by_key: HashMap<Key, usize>,
    slots: Vec<Option<Box<Block>>>,
    by_page: HashMap<u64, Vec<(Key, usize)>>,
    free: Vec<usize>,
    /// The block that is being executed, if any, was dropped: its next instruction may be another one now.
    stale: bool,
}

/// The most instructions of one block.
const MAX_OPS: usize = 64;
/// The most blocks that are kept; more, and all are forgotten.
const MAX_BLOCKS: usize = 64 * 1024;
/// The longest instruction in bytes.
const MAX_LEN: usize = 15;

impl Blocks {
    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            stale: true,
            ..Self::default()
        };
    }

    /// Forgets what was decoded from the page at `gpa`; says whether anything was.
    fn drop_page(&mut self, gpa: u64) -> bool {
        let Some(blocks) = self.by_page.remove(&(gpa & !PAGE_OFFSET)) else {
            return false;
        };
        for (key, slot) in blocks {
            // Blocks over two pages are listed under both.
            if self.by_key.get(&key) == Some(&slot) {
                self.by_key.remove(&key);
                self.slots[slot] = None;
                self.free.push(slot);
            }
        }
        self.stale = true;
        true
    }

    fn insert(&mut self, key: Key, block: Block) -> usize {
        if self.by_key.len() >= MAX_BLOCKS {
            self.clear();
        }
        let pages = block.pages;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(Box::new(block));
                slot
            }
            None => {
                self.slots.push(Some(Box::new(block)));
                self.slots.len() - 1
            }
        };
        self.by_key.insert(key, slot);
        for page in pages.into_iter().flatten() {
            self.by_page.entry(page).or_default().push((key, slot));
        }
        slot
    }
}

impl Exec<'_> {
    /// Executes the block at RIP to its end, or to its first exception (RIP is where its handler must return to).
    pub(crate) fn run_block(&mut self) -> Result<(), Exception> {
        let slot = self.find_block()?;
        self.cpu.blocks.stale = false;
        let Some(block) = self.cpu.blocks.slots[slot].take() else {
            // Slots are emptied only together with their keys.
            return Ok(());
        };
        let result = self.run_ops(&block.ops);
        if !self.cpu.blocks.stale {
            self.cpu.blocks.slots[slot] = Some(block);
        }
        result
    }

    /// Executes the one instruction at RIP.
    pub(crate) fn run_instruction(&mut self) -> Result<(), Exception> {
        let slot = self.find_block()?;
        let first = self.cpu.blocks.slots[slot].as_ref().map(|block| block.ops[0]);
        first.map_or(Ok(()), |op| self.run_ops(&[op]))
    }

    fn run_ops(&mut self, ops: &[Op]) -> Result<(), Exception> {
        for op in ops {
            self.cpu.rip = op.instruction.next_ip();
            if let Err(exception) = (op.handler)(self, &op.instruction) {
                if !exception.trap {
                    self.cpu.rip = op.instruction.ip();
                }
                return Err(exception);
            }
            if self.cpu.blocks.stale {
                break;
            }
        }
        Ok(())
    }

    fn find_block(&mut self) -> Result<usize, Exception> {
        let mode = self.cpu.mode;
        let linear = self.code_address(self.cpu.rip)?;
        let gpa = self.translate_code(linear)?;
        let key = Key {
            gpa,
            linear: self.cpu.rip,
            mode,
        };
        if let Some(&slot) = self.cpu.blocks.by_key.get(&key) {
            return Ok(slot);
        }
        let block = self.decode_block(gpa)?;
        for page in block.pages.into_iter().flatten() {
            if self.memory.code().set(page) {
                self.cpu.tlb.forget_writes(Some(page));
            }
        }
        Ok(self.cpu.blocks.insert(key, block))
    }

    /// The linear address of code at `rip`.
    fn code_address(&self, rip: u64) -> Result<u64, Exception> {
        self.linear(crate::cpu::SegReg::Cs, rip, 1, crate::memory::Access::Fetch)
    }

    fn decode_block(&mut self, gpa: u64) -> Result<Block, Exception> {
        let start = self.cpu.rip;
        let mut bytes = [0; PAGE_SIZE as usize + MAX_LEN];
        let in_page = (PAGE_SIZE - (gpa & PAGE_OFFSET)) as usize;
        if !self.memory.ram().read(gpa, &mut bytes[..in_page]) {
            // Code in a device: all ones, which is no instruction.
            bytes[..in_page].fill(0xff);
        }
        let mut block = Block {
            ops: Vec::new(),
            pages: [Some(gpa & !PAGE_OFFSET), None],
        };
        let mut at = 0;
        while at < in_page && block.ops.len() < MAX_OPS {
            let mut end = in_page;
            let mut instruction = decode(&bytes[at..end], self.cpu.mode.bits, start.wrapping_add(at as u64));
            if instruction.code() == Code::INVALID && in_page - at < MAX_LEN {
                if !block.ops.is_empty() {
                    // What reaches into the next page starts a block of its own, so that its fault comes in time.
                    break;
                }
                let next = self.code_address(start.wrapping_add(in_page as u64))?;
                let next_gpa = self.translate_code(next)?;
                end += MAX_LEN;
                if !self.memory.ram().read(next_gpa, &mut bytes[in_page..end]) {
                    bytes[in_page..end].fill(0xff);
                }
                block.pages[1] = Some(next_gpa & !PAGE_OFFSET);
                instruction = decode(
                    &bytes[at..(at + MAX_LEN).min(end)],
                    self.cpu.mode.bits,
                    start.wrapping_add(at as u64),
                );
            }
            at += instruction.len().max(1);
            block.ops.push(Op {
                handler: self.handler(&instruction),
                instruction,
            });
            if ends_block(&instruction) {
                break;
            }
        }
        Ok(block)
    }

    /// What executes `instruction` on this CPU.
    fn handler(&self, instruction: &Instruction) -> Handler {
        let features = &self.cpu.features;
        if instruction.code() == Code::INVALID
            || !instruction.cpuid_features().iter().all(|&f| features.has(f))
        {
            return undefined;
        }
        integer::handler(instruction)
            .or_else(|| system::handler(instruction))
            .or_else(|| vector::handler(instruction))
            .or_else(|| x87::handler(instruction))
            .unwrap_or(undefined)
    }

    /// Bytes that code was decoded from were stored to: it is forgotten.
    pub(crate) fn code_written(&mut self, gpa: u64, _len: u64) {
        self.cpu.blocks.drop_page(gpa);
        self.memory.code().clear(gpa);
    }
}

/// Near branches obey an operand-size prefix in 64-bit code, as AMD's processors have it; hints that no guest is
/// shown (CET, MPX, cache management) are the no-operations that older processors take them for.
const DECODER: u32 = DecoderOptions::AMD | DecoderOptions::FORCE_RESERVED_NOP;

fn decode(bytes: &[u8], bits: u8, ip: u64) -> Instruction {
    Decoder::with_ip(bits.into(), bytes, ip, DECODER).decode()
}

/// Whether what comes after `instruction` may have to be found anew: control went elsewhere, or it may have
/// changed how code is decoded, what may be accessed, or whether an interrupt is taken.
fn ends_block(instruction: &Instruction) -> bool {
    instruction.flow_control() != FlowControl::Next
        || instruction.is_privileged()
        || integer::ends_block(instruction)
        || system::ends_block(instruction)
}
