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
mod kept;
mod layout;
mod lower;
mod pages;
mod registers;
mod runtime;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use kept::{Kept, KeptBlock};
pub(crate) use state::TranslatorState;

use arena::{CodeArena, Part};
use hypervisor::x86_64::Activity;
use kept::Gathering;
use lower::{Context, Entries, Way};
use pages::{CodePage, CodePages, UNVERIFIED};
use runtime::{GO_ON, LEAVE};
use state::{JumpEntry, NO_LINK, NO_PAGE, jump_slot};

use crate::blocks::{Block, Op};
use crate::cpu::{Cpu, Mode, TlbSet};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::{PAGE_OFFSET, PAGE_SIZE};
use crate::observe::Tier;

/// [`Translator::hot`] as users get it.
const HOT: u32 = 4;

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
    /// Where its displacement is in the arena.
    site: u32,
    /// The slot of the block that it goes to now; [`NOWHERE`] where it leads to its own exit.
    to: u32,
    /// The guest's address that it is for, and the mode of the code it comes from.
    target: u64,
    mode: Mode,
    way: Way,
}

/// There may be a hundred thousand of them.
const _: () = assert!(size_of::<Link>() == 24);
/// The slot of no block.
const NOWHERE: u32 = u32::MAX;

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
    pages: CodePages,
    /// The modes that the jump caches' code is for, by TLB set.
    modes: [Mode; 3],
    /// Code is gathered to be kept, or was; `None` where not.
    gathering: Option<Gathering>,
}

impl Default for Translator {
    fn default() -> Self {
        Self {
            hot: HOT,
            limit: arena::LIMIT,
            arena: None,
            refused: false,
            links: Vec::new(),
            pages: CodePages::default(),
            modes: [Mode::RESET; 3],
            gathering: None,
        }
    }
}

impl Translator {
    /// How often code at `linear` that uses this TLB set is interpreted before it is translated.
    fn threshold(&self, set: TlbSet, linear: u64) -> u32 {
        match self.part(set, linear) {
            Some(Part::First) => 0,
            _ => self.hot,
        }
    }

    /// Where that goes while code is gathered.
    fn part(&self, set: TlbSet, linear: u64) -> Option<Part> {
        self.gathering?.part(set, linear)
    }
}

/// Where a block's code is, the numbers of the code pages it lies in, and those of the links that go there.
#[derive(Default)]
pub(crate) struct Translation {
    heat: u32,
    entries: Option<Entries>,
    pages: [Option<u32>; 2],
    incoming: Vec<u32>,
}

impl Translation {
    pub(crate) fn is_translated(&self) -> bool {
        self.entries.is_some()
    }
}

impl Cpu {
    /// A block was dropped: nothing leads to its code any more.
    pub(crate) fn unlink(&mut self, slot: usize, block: &Block) {
        let translator = &mut self.translations;
        let (Some(arena), Some(entries)) = (translator.arena.as_mut(), block.translation.entries) else {
            return;
        };
        for &link in &block.translation.incoming {
            if let Some(link) = translator
                .links
                .get_mut(link as usize)
                .filter(|link| link.to == slot as u32)
            {
                link.to = NOWHERE;
                arena.unpatch(link.site);
            }
        }
        self.translator.forget_jump(block.start, entries.checked);
    }

    /// Forgets the translation of one page of linear addresses.
    pub(crate) fn flush_page(&mut self, linear: u64) {
        self.tlb.flush_page(linear);
        for &number in self.translations.pages.at(linear & !PAGE_OFFSET) {
            self.translator.verified[number as usize] = UNVERIFIED;
        }
    }

    /// Forgets all translated code, whose blocks were forgotten.
    pub(crate) fn forget_translations(&mut self) {
        if let Some(arena) = &mut self.translations.arena {
            arena.clear();
        }
        self.translations.links.clear();
        self.translations.gathering = None;
        self.translations.pages = CodePages::default();
        self.translator.verified.fill(UNVERIFIED);
        self.translator.link = NO_LINK;
        self.translator.forget_jumps();
    }
}

impl Exec<'_> {
    /// Runs the code at RIP: translated where it is hot, until something needs the dispatcher.
    pub(crate) fn run_hot_block(&mut self) -> Result<(), Exception> {
        let link = std::mem::replace(&mut self.cpu.translator.link, NO_LINK);
        let page = std::mem::replace(&mut self.cpu.translator.page, NO_PAGE);
        self.check_modes();
        if page == NO_PAGE
            && link == NO_LINK
            && let Some(entry) = self.known_entry()
        {
            return self.enter(entry);
        }
        let slot = self.find_block()?;
        let Some(entries) = self.entries_of(slot) else {
            return self.run_found_block(slot);
        };
        self.note_pages(slot);
        self.connect(link, slot, entries);
        self.enter(entries.polled)
    }

    /// As [`Exec::run_hot_block`], but for one block alone: nothing leads from its code to another's.
    pub(crate) fn run_one_block(&mut self, before: impl FnOnce(&Self, Tier)) -> Result<(), Exception> {
        (self.cpu.translator.link, self.cpu.translator.page) = (NO_LINK, NO_PAGE);
        self.check_modes();
        let slot = self.find_block()?;
        let Some(entries) = self.entries_of(slot) else {
            before(self, Tier::Interpreted);
            return self.run_found_block(slot);
        };
        self.note_pages(slot);
        before(self, Tier::Translated);
        self.enter(entries.polled)
    }

    /// The pages of this block were just looked up, and are where they were.
    fn note_pages(&mut self, slot: usize) {
        let Some(block) = self.cpu.blocks.block_mut(slot) else {
            return;
        };
        let generations = self.cpu.tlb.generations;
        let generation = match self.cpu.mode.set {
            TlbSet::User => generations.user,
            TlbSet::Supervisor | TlbSet::SupervisorOpen => generations.all,
        };
        for page in block.translation.pages.into_iter().flatten() {
            self.cpu.translator.verified[page as usize] = generation;
        }
    }

    /// Forgets what a jump cache has no more right to say: its set has another mode now.
    fn check_modes(&mut self) {
        let translator = &mut self.cpu.translations;
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
    fn entries_of(&mut self, slot: usize) -> Option<Entries> {
        let hot = self.cpu.translations.threshold(self.cpu.mode.set, self.cpu.rip);
        let block = self.cpu.blocks.block_mut(slot)?;
        if block.translation.entries.is_some() {
            return block.translation.entries;
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

    fn translate_block(&mut self, slot: usize) -> Option<Entries> {
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
        let Some(pages) = self.number_pages(slot) else {
            self.cpu.forget_code();
            return None;
        };
        let part = self
            .cpu
            .translations
            .part(self.cpu.mode.set, self.cpu.rip)
            .unwrap_or(Part::First);
        let mut block = self.cpu.blocks.take(slot)?;
        let lowered = {
            let translator = &self.cpu.translations;
            let arena = translator.arena.as_ref()?;
            let context = Context {
                runtime: arena.runtime(),
                mode: self.cpu.mode,
                place: slot as u32,
                pages,
                first_link: translator.links.len() as u32,
                base: arena.next(part),
                flags_dead_at: &|target| self.flags_dead_at(&block, target),
            };
            lower::lower(&block.ops, &context)
        };
        let arena = self.cpu.translations.arena.as_mut()?;
        let base = arena.base();
        let placed = arena.place(&lowered.bytes, part);
        if placed.is_none() {
            // Full: what is still wanted is decoded and translated again.
            self.cpu.forget_code();
            return None;
        };
        let mode = self.cpu.mode;
        self.cpu
            .translations
            .links
            .extend(lowered.links.iter().map(|site| Link {
                site: (site.site - base) as u32,
                to: NOWHERE,
                target: site.target,
                mode,
                way: site.way,
            }));
        let entries = Some(lowered.entries);
        (block.translation.entries, block.translation.pages) = (entries, pages);
        block.ops = lowered
            .handled
            .iter()
            .filter_map(|&op| block.ops.get(op as usize).copied())
            .collect();
        self.cpu.blocks.note_translated();
        self.cpu.blocks.put_back(slot, block);
        self.cpu.gathered_some(mode.set, lowered.bytes.len());
        entries
    }

    /// The numbers of the code pages of a block; `None` where there are too many of them.
    fn number_pages(&mut self, slot: usize) -> Option<[Option<u32>; 2]> {
        let block = self.cpu.blocks.block_mut(slot)?;
        let set = self.cpu.mode.set;
        let mut linear = block.start & !PAGE_OFFSET;
        let mut numbers = [None; 2];
        for (number, gpa) in numbers.iter_mut().zip(block.pages()) {
            let page = CodePage::new(set, linear, gpa);
            *number = Some(self.cpu.translations.pages.number(page)?);
            linear = linear.wrapping_add(PAGE_SIZE);
        }
        Some(numbers)
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
        let decoder = iced_x86::Decoder::with_ip(64, &bytes[..len], target, self.cpu.decoder());
        for instruction in decoder.into_iter().take(LOOK_AHEAD) {
            if !eligible::only_computes(&instruction, self.cpu.mode) {
                return false;
            }
            let flags = flags::Use::of(&instruction);
            if flags.reads || flags.overwrites() {
                return flags.overwrites();
            }
        }
        false
    }

    /// Has the exit that was just taken go straight to `entry` next time, and remembers where RIP's code is.
    fn connect(&mut self, link: u32, slot: usize, entries: Entries) {
        let translator = &mut self.cpu.translations;
        let rip = self.cpu.rip;
        let set = self.cpu.mode.set;
        self.cpu.translator.jumps(set)[jump_slot(set, rip)] = JumpEntry {
            rip,
            code: entries.checked,
        };
        let Some(arena) = &mut translator.arena else {
            return;
        };
        // Between an exit and here an interrupt may have taken control elsewhere.
        let mode = self.cpu.mode;
        let fits = |link: &&mut Link| link.to == NOWHERE && link.target == rip && link.mode == mode;
        if let Some(found) = translator.links.get_mut(link as usize).filter(fits) {
            found.to = slot as u32;
            arena.patch(found.site, entries.by(found.way));
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
        if let Some(link) = self.cpu.translations.links.get(self.cpu.translator.link as usize) {
            self.cpu.rip = link.target;
        }
        match self.cpu.translator.exception.take() {
            Some(exception) => Err(exception),
            None => Ok(()),
        }
    }
}

/// Executes one instruction for translated code: the one that [`TranslatorState::place`] and
/// [`TranslatorState::op`] name, and says where translated code goes on.
extern "sysv64" fn slow_path(cpu: *mut Cpu) -> u64 {
    // SAFETY: translated code passes the `Cpu` it was entered with, whose `Exec` set this field in `enter` and does
    // nothing until that returns; so this is the only use of either until then.
    let exec = unsafe { &mut *((*cpu).translator.exec as *mut Exec<'_>) };
    exec.take_slow_path()
}

impl Exec<'_> {
    /// One instruction of a block.
    pub(crate) fn op_at(&mut self, slot: usize, index: usize) -> Option<Op> {
        let known = self.cpu.blocks.op(slot, index);
        known.or_else(|| {
            self.decode_kept(slot)?;
            self.cpu.blocks.op(slot, index)
        })
    }

    /// Says where translated code goes on, as [`Runtime`](runtime::Runtime) wants it said.
    fn take_slow_path(&mut self) -> u64 {
        let state = &self.cpu.translator;
        let (place, op, status) = (state.place as usize, state.op as usize, state.status);
        self.cpu.set_status(flags::to_rflags(status));
        let Some(op) = self.op_at(place, op) else {
            return LEAVE;
        };
        let interrupts = self.takes_interrupts();
        let (mode, next) = (self.cpu.mode, op.instruction.next_ip());
        let generations = self.cpu.tlb.generations;
        self.cpu.blocks.execute_begins();
        self.cpu.rip = next;
        let result = (op.handler)(self, &op.instruction);
        self.cpu.translator.status = flags::from_rflags(self.cpu.rflags);
        match result {
            Ok(()) => {
                let stays = self.cpu.rip == next
                    && self.cpu.mode == mode
                    && self.cpu.tlb.generations == generations
                    && !self.cpu.blocks.is_stale()
                    && !op.leaves;
                if stays {
                    GO_ON
                } else {
                    self.goes_on_at(interrupts).unwrap_or(LEAVE)
                }
            }
            Err(exception) => {
                if !exception.trap {
                    self.cpu.rip = op.instruction.ip();
                }
                self.cpu.translator.exception = Some(exception);
                LEAVE
            }
        }
    }

    /// The code at RIP, where nothing wants to be looked at before it: a system call's way into the kernel and back
    /// need not see the dispatcher. `interrupts` says whether they were let in before.
    fn goes_on_at(&mut self, interrupts: bool) -> Option<u64> {
        let events = &self.cpu.events;
        let waits = self.cpu.translator.waiting != 0 && !interrupts && self.takes_interrupts();
        let stops = waits
            || events.shadow_sti
            || events.shadow_mov_ss
            || self.cpu.activity != Activity::Running
            || self.is_debugged();
        if stops {
            return None;
        }
        self.check_modes();
        self.known_entry()
    }
}
