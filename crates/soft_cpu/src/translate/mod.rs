//! The translator for x86-64 hosts: guest and host speak the same instruction set, so guest instructions run as
//! themselves, in their own registers where they have them, with the host's own flags. Only memory accesses, control
//! transfers and privileged instructions become something else.
//!
//! `unsafe` is allowed here. What makes it sound:
//! - Code memory is written only by [`CodeArena`], through its writable mapping, on the vCPU's own thread, and
//!   never where code is that may still be executed, but for the 32-bit displacement of a jump of the same thread.
//! - Translated code touches memory in two ways: fields of its `Cpu`, at offsets that the compiler gives; and guest
//!   RAM, at `Entry::host` plus an offset that was compared with the page's size, where `Entry::host` is an address
//!   that `guest_memory` gave for a whole page of RAM that the VM keeps mapped.
//! - Every exception that the host could raise for a translated instruction is excluded before it: division
//!   (`lower::division`), alignment (`eligible::alignment`), floating point (blocks are translated only while the
//!   guest masks all exceptions), absent instructions (`eligible::runs_as_itself`).
#![allow(unsafe_code)]

mod arena;
mod assembler;
mod eligible;
mod flags;
mod layout;
mod lower;
mod registers;
mod runtime;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::TranslatorState;

use arena::CodeArena;
use lower::Context;
use state::{JumpEntry, NO_LINK, jump_slot};

use crate::blocks::Block;
use crate::cpu::{Cpu, Mode, TlbSet};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::{Generations, PAGE_OFFSET};

/// [`Translator::hot`] as users get it.
const HOT: u32 = 12;

/// How guest code is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tiers {
    /// Every instruction by its handler.
    Interpreter,
    /// What can be translated is, before it runs first.
    TranslateAtOnce,
    /// What runs often is translated.
    #[default]
    Adaptive,
}

impl Tiers {
    /// How often a block is interpreted before it is translated.
    pub(crate) fn hot(self) -> u32 {
        match self {
            Self::Interpreter => u32::MAX,
            Self::TranslateAtOnce => 0,
            Self::Adaptive => HOT,
        }
    }
}

/// A jump from one block to another, linked or not.
struct Link {
    /// Where its displacement is.
    site: u64,
    /// The guest's address that it is for, and the mode of the code it comes from.
    target: u64,
    mode: Mode,
    /// The block it goes to now.
    to: Option<usize>,
    /// It leads to a block over two pages, whose second may be another one next time.
    never: bool,
}

/// The translator of one vCPU: its code memory and what links it.
pub(crate) struct Translator {
    /// How often a block is interpreted before it is translated.
    pub(crate) hot: u32,
    /// The most code that is kept, in bytes.
    limit: usize,
    /// Made when the first block is translated; absent for good where the host allows no such memory.
    arena: Option<CodeArena>,
    refused: bool,
    links: Vec<Link>,
    /// [`crate::memory::Tlb::generations`] when the jump caches were last known to be right.
    generations: Generations,
    /// The modes that their code is for, by TLB set.
    modes: [Mode; 3],
}

impl Default for Translator {
    fn default() -> Self {
        Self {
            hot: HOT,
            limit: arena::LIMIT,
            arena: None,
            refused: false,
            links: Vec::new(),
            generations: Generations::default(),
            modes: [Mode::RESET; 3],
        }
    }
}

/// Where a block's code is, and the numbers of the links that go there.
#[derive(Default)]
pub(crate) struct Translation {
    heat: u32,
    entry: Option<u64>,
    incoming: Vec<u32>,
}

impl Cpu {
    /// A block was dropped: nothing leads to its code any more.
    pub(crate) fn unlink(&mut self, slot: usize, block: &Block) {
        let translator = &mut self.translations;
        let Some(arena) = translator
            .arena
            .as_mut()
            .filter(|_| block.translation.entry.is_some())
        else {
            return;
        };
        for &link in &block.translation.incoming {
            if let Some(link) = translator
                .links
                .get_mut(link as usize)
                .filter(|link| link.to == Some(slot))
            {
                link.to = None;
                arena.patch(link.site, link.site + 4);
            }
        }
        self.translator.forget_jumps();
    }

    /// Forgets all translated code; it is made again where it is still wanted.
    pub(crate) fn forget_translations(&mut self) {
        if let Some(arena) = &mut self.translations.arena {
            arena.clear();
        }
        self.translations.links.clear();
        self.translator.link = NO_LINK;
        self.translator.forget_jumps();
        self.blocks.forget_translations();
    }
}

impl Exec<'_> {
    /// Runs the code at RIP: translated where it is hot, until something needs the dispatcher.
    pub(crate) fn run_hot_block(&mut self) -> Result<(), Exception> {
        let link = std::mem::replace(&mut self.cpu.translator.link, NO_LINK);
        self.check_jumps();
        let links = &self.cpu.translations.links;
        if links.get(link as usize).is_none_or(|link| link.never)
            && let Some(entry) = self.known_entry()
        {
            return self.enter(entry);
        }
        let slot = self.find_block()?;
        let Some(entry) = self.entry_of(slot) else {
            return self.run_found_block(slot);
        };
        self.connect(link, slot, entry);
        self.enter(entry)
    }

    /// Forgets what the jump caches have no more right to say: translations changed, or the mode that goes with a set.
    fn check_jumps(&mut self) {
        let (translator, now) = (&mut self.cpu.translations, self.cpu.tlb.generations);
        if translator.generations.all != now.all {
            self.cpu.translator.forget_jumps();
        } else if translator.generations.user != now.user {
            self.cpu.translator.forget_jumps_of(TlbSet::User);
        }
        translator.generations = now;
        let mode = self.cpu.mode;
        let known = &mut translator.modes[mode.set as usize];
        if *known != mode {
            *known = mode;
            self.cpu.translator.forget_jumps_of(mode.set);
        }
    }

    /// The code at RIP, where the jump cache has it.
    fn known_entry(&mut self) -> Option<u64> {
        let (rip, set) = (self.cpu.rip, self.cpu.mode.set);
        let entry = self.cpu.translator.jumps(set)[jump_slot(set, rip)];
        (entry.rip == rip).then_some(entry.code)
    }

    /// The code of a block, made now if it is due.
    fn entry_of(&mut self, slot: usize) -> Option<u64> {
        let hot = self.cpu.translations.hot;
        let block = self.cpu.blocks.block_mut(slot)?;
        if block.translation.entry.is_some() {
            return block.translation.entry;
        }
        block.translation.heat = block.translation.heat.saturating_add(1);
        if block.translation.heat < hot || !self.may_translate() {
            return None;
        }
        self.translate_block(slot)
    }

    fn may_translate(&self) -> bool {
        let mode = self.cpu.mode;
        mode.bits == 64 && !mode.alignment_checks && !self.cpu.translations.refused
    }

    fn translate_block(&mut self, slot: usize) -> Option<u64> {
        if self.cpu.translations.arena.is_none() {
            match CodeArena::new(slow_path as *const () as u64, self.cpu.translations.limit) {
                Ok(arena) => self.cpu.translations.arena = Some(arena),
                Err(error) => {
                    tracing::warn!(%error, "no memory for translated code: everything is interpreted");
                    self.cpu.translations.refused = true;
                    return None;
                }
            }
        }
        let mut block = self.cpu.blocks.take(slot)?;
        let lowered = {
            let translator = &self.cpu.translations;
            let arena = translator.arena.as_ref()?;
            let context = Context {
                runtime: arena.runtime(),
                mode: self.cpu.mode,
                place: slot as u32,
                first_link: translator.links.len() as u32,
                base: arena.next(),
                flags_dead_at: &|target| self.flags_dead_at(&block, target),
            };
            lower::lower(&block.ops, &context)
        };
        let placed = self.cpu.translations.arena.as_mut()?.place(&lowered.bytes);
        let Some(entry) = placed else {
            self.cpu.blocks.put_back(slot, block);
            // Full: what is still wanted is translated again.
            self.cpu.forget_translations();
            return None;
        };
        let mode = self.cpu.mode;
        self.cpu
            .translations
            .links
            .extend(lowered.links.iter().map(|site| Link {
                site: site.site,
                target: site.target,
                mode,
                to: None,
                never: false,
            }));
        block.translation.entry = Some(entry);
        self.cpu.blocks.put_back(slot, block);
        Some(entry)
    }

    /// Whether code at `target`, in the page of `block`, overwrites all status flags before anything can see
    /// them.
    fn flags_dead_at(&self, block: &Block, target: u64) -> bool {
        const LOOK_AHEAD: usize = 4;
        let Some(gpa) = block.gpa_in_page(target) else {
            return false;
        };
        let mut bytes = [0; 64];
        let len = bytes.len().min((PAGE_OFFSET + 1 - (gpa & PAGE_OFFSET)) as usize);
        if !self.memory.ram().read(gpa, &mut bytes[..len]) {
            return false;
        }
        let decoder = iced_x86::Decoder::with_ip(64, &bytes[..len], target, iced_x86::DecoderOptions::NONE);
        for instruction in decoder.into_iter().take(LOOK_AHEAD) {
            let plain = eligible::runs_as_itself(&instruction, self.cpu.mode);
            let memory = (0..instruction.op_count())
                .any(|operand| instruction.op_kind(operand) == iced_x86::OpKind::Memory);
            if !plain || memory && instruction.mnemonic() != iced_x86::Mnemonic::Lea {
                return false;
            }
            let flags = flags::Use::of(&instruction);
            if flags.overwrites() {
                return true;
            }
            if flags.needs {
                return false;
            }
        }
        false
    }

    /// Has the exit that was just taken go straight to `entry` next time, and remembers where RIP's code is.
    fn connect(&mut self, link: u32, slot: usize, entry: u64) {
        let translator = &mut self.cpu.translations;
        let rip = self.cpu.rip;
        let set = self.cpu.mode.set;
        self.cpu.translator.jumps(set)[jump_slot(set, rip)] = JumpEntry { rip, code: entry };
        let Some(arena) = &mut translator.arena else {
            return;
        };
        // Between an exit and here an interrupt may have taken control elsewhere.
        let mode = self.cpu.mode;
        let fits = |link: &&mut Link| link.to.is_none() && link.target == rip && link.mode == mode;
        let block = self.cpu.blocks.block_mut(slot);
        let movable = block.is_some_and(|block| !block.lies_in_one_page());
        if let Some(found) = translator.links.get_mut(link as usize).filter(fits) {
            if movable {
                found.never = true;
                return;
            }
            found.to = Some(slot);
            arena.patch(found.site, entry);
            if let Some(block) = self.cpu.blocks.block_mut(slot) {
                block.translation.incoming.push(link);
            }
        }
    }

    fn enter(&mut self, entry: u64) -> Result<(), Exception> {
        let Some(arena) = &self.cpu.translations.arena else {
            return Ok(());
        };
        let enter = arena.runtime().enter;
        let exec: *mut Exec<'_> = self;
        let cpu: *mut Cpu = &mut *self.cpu;
        self.cpu.translator.exec = exec as usize;
        self.cpu.translator.attention = self.cpu.apic.attention().word().as_ptr() as u64;
        self.cpu.translator.status = flags::from_rflags(self.cpu.rflags);
        // SAFETY: `enter` is the address of code assembled for exactly this signature, in memory that the arena keeps
        // executable.
        let enter: extern "sysv64" fn(*mut Cpu, u64) = unsafe { std::mem::transmute(enter as usize) };
        enter(cpu, entry);
        let status = flags::to_rflags(self.cpu.translator.status);
        self.cpu.set_status(status);
        match self.cpu.translator.exception.take() {
            Some(exception) => Err(exception),
            None => Ok(()),
        }
    }
}

/// Executes one instruction for translated code: the one that [`TranslatorState::place`] and
/// [`TranslatorState::op`] name. 0 where translated code goes on behind it.
extern "sysv64" fn slow_path(cpu: *mut Cpu) -> u64 {
    // SAFETY: translated code passes the `Cpu` it was entered with, whose `Exec` set this field in `enter` and does
    // nothing until that returns; so this is the only use of either until then.
    let exec = unsafe { &mut *((*cpu).translator.exec as *mut Exec<'_>) };
    u64::from(!exec.take_slow_path())
}

impl Exec<'_> {
    /// Says whether translated code can go on.
    fn take_slow_path(&mut self) -> bool {
        let state = &self.cpu.translator;
        let (place, op, status) = (state.place as usize, state.op as usize, state.status);
        self.cpu.set_status(flags::to_rflags(status));
        let Some(op) = self.cpu.blocks.op(place, op) else {
            return false;
        };
        let (mode, next) = (self.cpu.mode, op.instruction.next_ip());
        let generations = self.cpu.tlb.generations;
        self.cpu.blocks.execute_begins();
        self.cpu.rip = next;
        let result = (op.handler)(self, &op.instruction);
        self.cpu.translator.status = flags::from_rflags(self.cpu.rflags);
        match result {
            Ok(()) => {
                self.cpu.rip == next
                    && self.cpu.mode == mode
                    && self.cpu.tlb.generations == generations
                    && !self.cpu.blocks.is_stale()
                    && !op.leaves
            }
            Err(exception) => {
                if !exception.trap {
                    self.cpu.rip = op.instruction.ip();
                }
                self.cpu.translator.exception = Some(exception);
                false
            }
        }
    }
}
