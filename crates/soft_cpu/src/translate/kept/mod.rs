//! Translated code that outlives its process.
//!
//! A guest that goes on from a snapshot runs much the same kernel code as the one before it. So the first that does
//! gathers the code ([`Cpu::gather_code`]), what it made is written down at its end ([`Cpu::code_to_keep`]), and later
//! ones take it up ([`Cpu::take_up_code`]) instead of decoding and translating.
//!
//! **Only where it fits.** Code is for one build of this program, one host processor's features, and bytes of guest
//! memory. The first two are in the record ([`fingerprint`]). The last is proven page by page, when the dispatcher first
//! comes to a page: its sum must be that of the page that the code was made from. Until then no way leads in: blocks
//! are entered from outside their page only where the page was looked up since the translations were last forgotten
//! ([`super::pages`]), and all begin as never looked up. Stores are noticed from the start on, as all these pages are
//! watched before the guest runs. A page that is not what it was loses all its blocks, and every jump that leads there.
//!
//! **Of programs only a little.** Most lie elsewhere each time. Those that are linked for fixed addresses, as the guest
//! program is, are kept up to a limit ([`gather`]); and as their pages may be any of the memory's, such a page is known by
//! its address and its sum alone. Other code of programs goes into another part of the arena while code is gathered.
//!
//! **Whose word counts.** A record is machine code that will be executed, and nothing in it but its tables can be
//! checked. Whoever offers one must have it from where only this user writes; see `Vcpu::take_up_code`. The sum of the whole
//! tells of accidents only. Guests, which are not trusted either, have no part in a record but through the translator: it
//! has code of one guest's pages, and another executes it only where its pages have the same sums, which no guest can
//! foresee ([`digest`]).
#![forbid(unsafe_code)]

mod digest;
mod fingerprint;
mod gather;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::Read;
use std::thread;

use digest::{Digest, PageKey};
use fingerprint::fingerprint;
pub(super) use gather::Gathering;
pub(crate) use record::KeptBlock;
use record::Record;

use super::arena::CodeArena;
use super::lower::Entries;
use super::pages::{CodePage, CodePages};
use super::state::{JumpEntry, jump_slot};
use super::{Link, NOWHERE, Translation, slow_path};
use crate::blocks::{Block, Key, KeyMap};
use crate::cpu::{Cpu, Mode, TlbSet};
use crate::exec::Exec;
use crate::memory::{Memory, PAGE_OFFSET, PAGE_SIZE};

/// Code that was taken up.
pub(crate) struct Kept {
    pages: Vec<KeptPage>,
    /// The numbers of those whose place in memory is known, by that.
    placed: KeyMap<u64, Vec<usize>>,
    /// The others, by their linear addresses.
    unplaced: KeyMap<u64, Vec<usize>>,
    modes: Vec<Mode>,
    blocks: Vec<KeptBlock>,
    /// Where each of them begins in its page: what a search looks through.
    starts: Vec<u16>,
    ops: Vec<u16>,
    /// The number of each slot's block, [`NO_BLOCK`] for none.
    by_slot: Vec<u32>,
    /// What the pages' sums depend on.
    key: Box<PageKey>,
}

struct KeptPage {
    linear: u64,
    user: bool,
    code_page: u32,
    digest: Digest,
    /// The first of its blocks, and how many there are.
    blocks: (usize, usize),
    proven: bool,
}

const NO_BLOCK: u32 = u32::MAX;

impl Kept {
    /// Forgets what is of the page at `gpa`: its blocks.
    pub(crate) fn drop_page(&mut self, gpa: u64) -> Vec<KeptBlock> {
        let mut dropped = Vec::new();
        for number in self.placed.remove(&gpa).unwrap_or_default() {
            let (first, count) = self.pages[number].blocks;
            for block in &self.blocks[first..][..count] {
                self.by_slot[block.slot as usize] = NO_BLOCK;
                dropped.push(*block);
            }
        }
        dropped
    }

    /// The page that has `key`, where the place in memory of such a page is known.
    fn placed(&self, key: &Key) -> Option<usize> {
        let (linear, user) = (key.linear & !PAGE_OFFSET, key.mode.set == TlbSet::User);
        let numbers = self.placed.get(&(key.gpa & !PAGE_OFFSET))?;
        let fits = |number: &usize| {
            let page = &self.pages[*number];
            page.linear == linear && page.user == user
        };
        numbers.iter().copied().find(fits)
    }

    /// How many slots its blocks are numbered with.
    pub(crate) fn slots(&self) -> usize {
        self.by_slot.len()
    }

    /// The number of the block with this key in a page.
    fn find(&self, page: usize, key: &Key) -> Option<usize> {
        let (first, count) = self.pages[page].blocks;
        let starts = &self.starts[first..][..count];
        let at = (key.gpa & PAGE_OFFSET) as u16;
        let before = starts.partition_point(|&start| start < at);
        let candidates = starts[before..].iter().take_while(|&&start| start == at).count();
        (first + before..first + before + candidates).find(|&number| {
            let block = &self.blocks[number];
            block.linear == key.linear && self.modes[usize::from(block.mode)] == key.mode
        })
    }
}

impl Record {
    /// What the vCPU keeps of it. `None` where two blocks have one slot.
    fn into_kept(self) -> Option<Kept> {
        let mut kept = Kept {
            by_slot: vec![NO_BLOCK; self.slots as usize],
            starts: self.blocks.iter().map(|block| block.at).collect(),
            modes: self.modes,
            blocks: self.blocks,
            ops: self.ops,
            pages: Vec::with_capacity(self.pages.len()),
            placed: KeyMap::default(),
            unplaced: KeyMap::default(),
            key: self.key,
        };
        for (number, block) in (0..).zip(&kept.blocks) {
            let place = &mut kept.by_slot[block.slot as usize];
            if *place != NO_BLOCK {
                return None;
            }
            *place = number;
        }
        let mut first = 0;
        for page in self.pages {
            let CodePage { linear, gpa, user } = self.code_pages[page.code_page as usize];
            let blocks = (first, page.blocks as usize);
            first += blocks.1;
            let known = if user {
                kept.unplaced.entry(linear)
            } else {
                kept.placed.entry(gpa)
            };
            known.or_default().push(kept.pages.len());
            kept.pages.push(KeptPage {
                linear,
                user,
                code_page: page.code_page,
                digest: page.digest,
                blocks,
                proven: false,
            });
        }
        Some(kept)
    }
}

impl Cpu {
    /// Takes up code that was kept, before anything is executed. `false` where it is of no use, which changes nothing.
    pub(crate) fn take_up_code(&mut self, kept: &mut (dyn Read + Send), memory: &Memory) -> bool {
        self.try_take_up(kept, memory).is_some()
    }

    fn try_take_up(&mut self, kept: &mut (dyn Read + Send), memory: &Memory) -> Option<()> {
        // One block at a time is executed for who traces, but this code's jumps lead on.
        if !self.translates() || self.tracer.is_some() {
            return None;
        }
        let (tables, code) = record::read(kept, fingerprint()?)?;
        let mut arena = CodeArena::new(slow_path as *const () as u64, self.translations.limit).ok()?;
        let offset = arena.kept() as u32;
        // Most of the time is the code's, which another thread can have.
        let (filled, parsed) = thread::scope(|scope| {
            let fill = || code.read(kept, |next| arena.fill(code.len as usize, next));
            let filling = thread::Builder::new().spawn_scoped(scope, fill).ok();
            let parsed = parse(&tables, code.len as usize);
            (filling.and_then(|filling| filling.join().ok()?), parsed)
        });
        let (parsed, ()) = parsed.zip(filled)?;
        let Parsed {
            kept,
            links,
            pages,
            jumps,
        } = parsed;
        self.forget_code();
        self.translations.arena = Some(arena);
        self.translations.pages = pages;
        self.translations.links = links
            .into_iter()
            .map(|link| Link {
                site: link.site + offset,
                ..link
            })
            .collect();
        // No vCPU runs, so none has to be told.
        for &gpa in kept.placed.keys() {
            memory.ram().watch(gpa);
        }
        self.tlb.forget_writes(None);
        self.fill_jump_caches(&kept, &jumps);
        self.blocks.take_up(kept);
        Some(())
    }

    /// Has jump caches lead to these blocks, by the way in that asks whether their page was looked up.
    fn fill_jump_caches(&mut self, kept: &Kept, jumps: &[u32]) {
        let Some(arena) = &self.translations.arena else {
            return;
        };
        for &number in jumps {
            let block = &kept.blocks[number as usize];
            let mode = kept.modes[usize::from(block.mode)];
            self.translations.modes[mode.set as usize] = mode;
        }
        for &number in jumps {
            let block = &kept.blocks[number as usize];
            let mode = kept.modes[usize::from(block.mode)];
            if self.translations.modes[mode.set as usize] == mode {
                self.translator.jumps(mode.set)[jump_slot(mode.set, block.linear)] = JumpEntry {
                    rip: block.linear,
                    code: arena.first() + u64::from(block.entries[0]),
                };
            }
        }
    }

    /// These blocks were dropped before they were taken out of what was kept, or after: no jump goes there any more.
    pub(crate) fn unlink_kept(&mut self, dropped: &[KeptBlock]) {
        let Some(arena) = &mut self.translations.arena else {
            return;
        };
        let slots: HashSet<_> = dropped.iter().map(|block| block.slot).collect();
        for block in dropped {
            let code = arena.first() + u64::from(block.entries[0]);
            self.translator.forget_jump(block.linear, code);
        }
        for link in &mut self.translations.links {
            if slots.contains(&link.to) {
                link.to = NOWHERE;
                arena.unpatch(link.site);
            }
        }
    }

    fn translates(&self) -> bool {
        self.translations.hot != u32::MAX && !self.translations.refused
    }
}

/// A record for a vCPU, all but the code.
struct Parsed {
    kept: Kept,
    links: Vec<Link>,
    pages: CodePages,
    jumps: Vec<u32>,
}

fn parse(tables: &[u8], code: usize) -> Option<Parsed> {
    let mut record = Record::of(tables, code)?;
    Some(Parsed {
        links: std::mem::take(&mut record.links),
        jumps: std::mem::take(&mut record.jumps),
        pages: CodePages::of(&record.code_pages)?,
        kept: record.into_kept()?,
    })
}

fn page_digest(key: &PageKey, memory: &Memory, gpa: u64) -> Digest {
    let mut bytes = [0; PAGE_SIZE as usize];
    // Where there is no RAM there is no code.
    memory.ram().read(gpa, &mut bytes);
    key.digest(&bytes)
}

impl Exec<'_> {
    /// The slot of the block with this key, where one was kept and its page is what it was.
    pub(crate) fn find_kept(&mut self, key: &Key) -> Option<usize> {
        let kept = self.cpu.blocks.kept_mut()?;
        let page = match kept.placed(key) {
            Some(page) => page,
            None => self.place_kept(key)?,
        };
        let gpa = key.gpa & !PAGE_OFFSET;
        let kept = self.cpu.blocks.kept_mut()?;
        if !kept.pages[page].proven {
            if page_digest(&kept.key, self.memory, gpa) != kept.pages[page].digest {
                self.forget_page(gpa);
                return None;
            }
            kept.pages[page].proven = true;
        }
        let number = kept.find(page, key)?;
        self.take_out(number, gpa)
    }

    /// Finds out whether the page of `key` is one of those whose place in memory is not known.
    fn place_kept(&mut self, key: &Key) -> Option<usize> {
        let (gpa, linear) = (key.gpa & !PAGE_OFFSET, key.linear & !PAGE_OFFSET);
        if key.mode.set != TlbSet::User || !self.cpu.blocks.kept_mut()?.unplaced.contains_key(&linear) {
            return None;
        }
        // Before it is read, so that no store in between is missed.
        self.watch(gpa);
        let kept = self.cpu.blocks.kept_mut()?;
        let digest = page_digest(&kept.key, self.memory, gpa);
        let unplaced = kept.unplaced.get_mut(&linear)?;
        let found = unplaced
            .iter()
            .position(|&number| kept.pages[number].digest == digest)?;
        let page = unplaced[found];
        let code_page = CodePage {
            linear,
            gpa,
            user: true,
        };
        if !self
            .cpu
            .translations
            .pages
            .place(kept.pages[page].code_page, code_page)
        {
            return None;
        }
        unplaced.swap_remove(found);
        kept.placed.entry(gpa).or_default().push(page);
        kept.pages[page].proven = true;
        Some(page)
    }

    /// Makes a kept block one as any other, but for its instructions.
    fn take_out(&mut self, number: usize, gpa: u64) -> Option<usize> {
        let base = self.cpu.translations.arena.as_ref()?.first();
        let kept = self.cpu.blocks.kept_mut()?;
        let block = kept.blocks[number];
        let key = Key {
            gpa: gpa | u64::from(block.at),
            linear: block.linear,
            mode: kept.modes[usize::from(block.mode)],
        };
        let [checked, polled, known] = block.entries.map(|entry| base + u64::from(entry));
        let entries = Entries {
            checked,
            polled,
            known,
        };
        let translation = Translation {
            entries: Some(entries),
            pages: [Some(block.code_page), None],
            ..Translation::default()
        };
        let slot = block.slot as usize;
        self.cpu
            .blocks
            .put_kept(slot, key, Block::kept(&key, translation));
        Some(slot)
    }

    /// Decodes the instructions of a kept block that handlers execute: they are wanted now.
    pub(super) fn decode_kept(&mut self, slot: usize) -> Option<()> {
        let kept = self.cpu.blocks.kept_mut()?;
        let number = *kept.by_slot.get(slot)?;
        let block = *kept.blocks.get(number as usize)?;
        let ops = kept.ops[block.first_op as usize..][..usize::from(block.ops)].to_vec();
        let (mode, start) = (kept.modes[usize::from(block.mode)], block.linear);
        let code_page = self.cpu.translations.pages.page(block.code_page)?;
        if self.cpu.blocks.block_mut(slot).is_none() {
            self.take_out(number as usize, code_page.gpa)?;
        }
        let gpa = code_page.gpa | u64::from(block.at);
        let ops = ops
            .into_iter()
            .map(|op| self.decode_op(gpa + u64::from(op), start.wrapping_add(op.into()), mode))
            .collect();
        self.cpu.blocks.block_mut(slot)?.ops = ops;
        Some(())
    }
}
