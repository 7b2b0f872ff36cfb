//! Code is gathered, and written down at the end.

use std::collections::HashSet;
use std::ops::Range;

use super::digest::PageKey;
use super::fingerprint::fingerprint;
use super::page_digest;
use super::record::{KeptBlock, Page, Record, mode_bytes};
use crate::blocks::{Block, Key};
use crate::cpu::{Cpu, Mode, TlbSet};
use crate::memory::{Memory, PAGE_OFFSET, PAGE_SIZE};
use crate::translate::arena::{CodeArena, Part};
use crate::translate::lower::{Entries, Way};
use crate::translate::state::jump_slot;
use crate::translate::{Link, NOWHERE};

/// The most code that is kept, in bytes: the code of a start has half of it.
const MOST_CODE: usize = 12 << 20;
/// The most of it that is of programs.
pub(super) const MOST_USER_CODE: usize = 1 << 20;
/// Programs that are not linked for fixed addresses lie above (the lower half begins with the others).
const FIXED_PROGRAMS: u64 = 1 << 32;
/// The most bytes of a record, tables and all.
const MOST_BYTES: usize = 32 << 20;
/// The most links that are kept.
const MOST_LINKS: usize = 128 * 1024;

/// Code is gathered, or was.
#[derive(Clone, Copy)]
pub(in crate::translate) enum Gathering {
    /// Code is translated before it runs first. So much of it is of programs.
    Going { user: usize },
    /// There is enough: what came later is not kept.
    Until(Extent),
}

/// How much of everything there was.
#[derive(Clone, Copy)]
pub(in crate::translate) struct Extent {
    /// Where in the arena the code ends.
    code: usize,
    links: usize,
    slots: usize,
    code_pages: usize,
}

impl Gathering {
    /// Where code at `linear` for this TLB set goes: the first part is kept.
    pub(in crate::translate) fn part(self, set: TlbSet, linear: u64) -> Option<Part> {
        let Self::Going { user } = self else {
            return None;
        };
        let kept = set != TlbSet::User || linear < FIXED_PROGRAMS && user < MOST_USER_CODE;
        Some(if kept { Part::First } else { Part::Second })
    }
}

impl Cpu {
    /// From now on translates code before it runs first, to keep it.
    pub(crate) fn gather_code(&mut self) {
        if self.translates() && fingerprint().is_some() {
            self.forget_code();
            self.translations.gathering = Some(Gathering::Going { user: 0 });
        }
    }

    /// Code of `len` bytes for this TLB set was gathered: perhaps it is enough.
    pub(in crate::translate) fn gathered_some(&mut self, set: TlbSet, len: usize) {
        let extent = self.translations.arena.as_ref().map(|arena| self.gathered(arena));
        let (Some(extent), Some(Gathering::Going { user })) = (extent, &mut self.translations.gathering)
        else {
            return;
        };
        if set == TlbSet::User {
            *user += len;
        }
        if extent.code > MOST_CODE || extent.links > MOST_LINKS {
            self.translations.gathering = Some(Gathering::Until(extent));
        }
    }

    fn gathered(&self, arena: &CodeArena) -> Extent {
        Extent {
            code: arena.used(),
            links: self.translations.links.len(),
            slots: self.blocks.slots(),
            code_pages: self.translations.pages.len(),
        }
    }

    /// What was gathered; `None` where nothing was. No vCPU runs.
    pub(crate) fn code_to_keep(&self, memory: &Memory) -> Option<Vec<u8>> {
        let arena = self.translations.arena.as_ref()?;
        let extent = match self.translations.gathering? {
            Gathering::Going { .. } => self.gathered(arena),
            Gathering::Until(extent) => extent,
        };
        let mut code = arena.code_up_to(extent.code);
        let within = arena.first()..arena.first() + code.len() as u64;
        let mut record = Record::empty(PageKey::random()?);
        let slots = self.keep_blocks(&mut record, memory, extent, within);
        record.code_pages = self.translations.pages.first(extent.code_pages);
        for (number, page) in (0..).zip(&mut record.code_pages).filter(|(_, page)| page.user) {
            page.gpa = nowhere(number);
        }
        record.slots = extent.slots as u32;
        let links = self.translations.links.iter().take(extent.links);
        record.links = links
            .map(|link| {
                let site = (link.site as usize).wrapping_sub(arena.kept());
                let Some(displacement) = code.get_mut(site..).and_then(|code| code.get_mut(..4)) else {
                    return NO_LINK;
                };
                let to = if slots.contains(&link.to) {
                    link.to
                } else {
                    displacement.fill(0);
                    NOWHERE
                };
                Link {
                    site: site as u32,
                    to,
                    ..*link
                }
            })
            .collect();
        let bytes = record.write(&code, fingerprint()?);
        (bytes.len() <= MOST_BYTES).then_some(bytes)
    }

    /// Adds pages, modes, blocks and their instructions to a record; the slots of those blocks. Their code lies
    /// `within` these addresses.
    ///
    /// The sums are of what is in memory now. That is what the blocks were made from: every store since was noticed, and
    /// nobody stores now.
    fn keep_blocks(
        &self,
        record: &mut Record,
        memory: &Memory,
        extent: Extent,
        within: Range<u64>,
    ) -> HashSet<u32> {
        let changed = self.apic.attention().changed_code();
        let mut found: Vec<_> = self
            .blocks
            .translated()
            .filter(|(key, slot, block)| {
                let [first, second] = block.translation.pages;
                let inside = |entries: Entries| {
                    let Entries {
                        checked,
                        polled,
                        known,
                    } = entries;
                    [checked, polled, known]
                        .iter()
                        .all(|entry| within.contains(entry))
                };
                // Nothing else is translated, and only there code lies at linear addresses that are RIPs.
                key.mode.bits == 64
                    && second.is_none()
                    && first.is_some_and(|page| (page as usize) < extent.code_pages)
                    && *slot < extent.slots
                    && block.translation.entries.is_some_and(inside)
                    && !changed.contains(&(key.gpa & !PAGE_OFFSET))
            })
            .collect();
        found.sort_by_key(|(key, _, block)| {
            let page = block.translation.pages[0];
            (page, key.gpa, key.linear, mode_bytes(key.mode))
        });
        let mut slots = HashSet::new();
        for (key, slot, block) in found {
            let Some(code_page) = block.translation.pages[0] else {
                continue;
            };
            if record.pages.last().is_none_or(|page| page.code_page != code_page) {
                record.pages.push(Page {
                    code_page,
                    digest: page_digest(&record.key, memory, key.gpa & !PAGE_OFFSET),
                    blocks: 0,
                });
            }
            let Some(kept) = keep_block(record, key, slot, block, within.start) else {
                continue;
            };
            slots.insert(kept.slot);
            if self.jump_cache_has(key, block) {
                record.jumps.push(record.blocks.len() as u32);
            }
            record.blocks.push(kept);
            if let Some(page) = record.pages.last_mut() {
                page.blocks += 1;
            }
        }
        slots
    }

    fn jump_cache_has(&self, key: &Key, block: &Block) -> bool {
        let set = key.mode.set;
        let entry = self.translator.jumps_of(set)[jump_slot(set, key.linear)];
        let checked = block.translation.entries.map(|entries| entries.checked);
        entry.rip == key.linear
            && checked == Some(entry.code)
            && self.translations.modes[set as usize] == key.mode
    }
}

/// What stands for a link of code that is not kept: no address that code can have leads there.
const NO_LINK: Link = Link {
    site: 0,
    to: NOWHERE,
    target: 1 << 63,
    mode: Mode::RESET,
    way: Way::Checked,
};

/// A block as the record has it; its instructions and its mode are added to the record's.
fn keep_block(record: &mut Record, key: &Key, slot: usize, block: &Block, base: u64) -> Option<KeptBlock> {
    let Entries {
        checked,
        polled,
        known,
    } = block.translation.entries?;
    let known_mode = record.modes.iter().position(|mode| *mode == key.mode);
    let mode = known_mode.unwrap_or_else(|| {
        record.modes.push(key.mode);
        record.modes.len() - 1
    });
    let first_op = record.ops.len() as u32;
    let ops = block
        .ops
        .iter()
        .map(|op| op.instruction.ip().wrapping_sub(block.start) as u16);
    record.ops.extend(ops);
    Some(KeptBlock {
        linear: key.linear,
        at: (key.gpa & PAGE_OFFSET) as u16,
        mode: mode.try_into().ok()?,
        slot: slot as u32,
        code_page: block.translation.pages[0]?,
        entries: [checked, polled, known].map(|entry| (entry - base) as u32),
        first_op,
        ops: block.ops.len().try_into().ok()?,
    })
}

/// Where a page of a program is said to be of which that is not known: no memory has such an address.
fn nowhere(number: u64) -> u64 {
    (1 << 63) | (number * PAGE_SIZE)
}
