//! Hostile page tables: that nothing a guest does makes the monitor read or write outside its RAM, and that every tier
//! does the same.
//!
//! A program of a few parts accesses memory in every way where something is wrong: pages that are absent, read-only,
//! another ring's or not executable, entries with reserved bits, tables and pages where no RAM is or beyond any,
//! large pages of which little is RAM, segments with odd bases and limits, accesses and instructions over the borders
//! of all these, and code up to the last byte of RAM. There are worlds with four levels of tables and 64-bit, 32-bit
//! and 16-bit code, which goes over into each other, and worlds of protected mode with PAE, with two levels, and
//! without tables. RAM lies between addresses that end the process when they are accessed (`guest_memory` maps it so):
//! a stray access cannot stay unseen.
//!
//! *Tame* cases have tables that programs do not reach, so the tiers are compared where code remained what it was:
//! registers, RAM with the marks in page tables, and what devices saw, in its order. *Wild* ones map everything, their
//! own tables, code and handler among it. What remains remembered of tables that changed is open then, and only the
//! monitor's health is looked at.

mod handler;
mod handler32;
mod kernel;
mod paging;
mod parts;
mod place;
mod program;
mod program32;
mod ram;
mod report;
mod tables;
mod world;

use std::time::Duration;

use anyhow::Result;
use hypervisor::x86_64::CpuState;
use soft_cpu::Tiers;

use crate::random::Random;
use kernel::Kernel;
use paging::Paging;
use parts::Part;
use place::{CODE, DATA, NEXT_PART, NEXT_RECORD, PARTS, PARTS_LEFT, RAM, RECORDS};
use ram::Ram;
use tables::Tables;
use world::{Outcome, World};

/// A program needs a fraction of this, but one that runs what is no code may go on forever, or halt.
const PATIENCE: Duration = Duration::from_millis(20);
const PATIENCE_WILD: Duration = Duration::from_millis(2);
/// Where only one tier came to an end before: it may have been the host that was slow.
const PATIENCE_AGAIN: Duration = Duration::from_secs(20);
/// One case in so many is wild.
const WILD: usize = 16;

/// Runs hostile programs in two tiers.
pub struct Hostile {
    worlds: [(Tiers, World); 2],
    kernel: Kernel,
}

/// Runs the programs of seeds `first` to `first + count - 1` on all processors; tells what the tiers disagree about.
///
/// # Errors
/// As [`Hostile::new`] and [`Hostile::run`].
pub fn run_on_all_processors(first: u64, count: usize) -> Result<Vec<String>> {
    let found = crate::parallel::shares(first, count, |first, count| Hostile::new()?.run(first, count))?;
    Ok(found.into_iter().flatten().collect())
}

/// What a program starts from.
struct Start {
    state: CpuState,
    ram: Vec<Vec<u8>>,
    paging: Paging,
    wild: bool,
    parts: Vec<Part>,
}

impl Hostile {
    /// # Errors
    /// What keeps VMs from being made.
    pub fn new() -> Result<Self> {
        let world = |tiers| Ok::<_, anyhow::Error>((tiers, World::new(tiers)?));
        Ok(Self {
            worlds: [world(Tiers::Interpreter)?, world(Tiers::TranslateAtOnce)?],
            kernel: Kernel::new()?,
        })
    }

    /// Runs the programs of seeds `first` to `first + count - 1`; tells of the first about which the tiers disagree.
    ///
    /// # Errors
    /// A VM that fails.
    pub fn run(&mut self, first: u64, count: usize) -> Result<Option<String>> {
        for seed in (0..count as u64).map(|number| first.wrapping_add(number)) {
            let start = self.start(seed)?;
            let patience = if start.wild { PATIENCE_WILD } else { PATIENCE };
            let mut outcomes = self.outcomes(&start, patience)?;
            if start.wild || code_changed(&start.ram, &outcomes[0].ram) {
                continue;
            }
            if outcomes[0].ended != outcomes[1].ended {
                outcomes = self.outcomes(&start, PATIENCE_AGAIN)?;
            }
            let differences = differences(&outcomes[0], &outcomes[1]);
            if outcomes[0].ended && !differences.is_empty() || outcomes[0].ended != outcomes[1].ended {
                let [one, other] = [&self.worlds[0].0, &self.worlds[1].0];
                let mut text = format!(
                    "hostile seed {seed}, {:?}, {one:?} and {other:?}:\n",
                    start.paging
                );
                text.push_str(&differences.join("\n"));
                text.push_str(&report::describe(start.paging, &start.parts, &outcomes[0]));
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn outcomes(&mut self, start: &Start, patience: Duration) -> Result<[Outcome; 2]> {
        let [(_, one), (_, other)] = &mut self.worlds;
        Ok([
            one.run(&start.state, &start.ram, patience)?,
            other.run(&start.state, &start.ram, patience)?,
        ])
    }

    fn start(&self, seed: u64) -> Result<Start> {
        let mut random = Random::new(seed);
        let paging = Paging::pick(&mut random);
        let wild = random.once_in(WILD);
        let mut ram = Ram::new();
        for stretch in &mut ram.0[1..] {
            for word in stretch.chunks_exact_mut(8) {
                word.copy_from_slice(&content(paging, &mut random).to_le_bytes());
            }
        }
        let tables = Tables::make_up(paging, &mut random, wild);
        let odd = kernel::odd_segments(paging, &mut random);
        self.kernel.write(&mut ram, paging, &odd);
        for (&at, &entry) in &tables.entries {
            ram.write(at, &entry.to_le_bytes()[..paging.entry_len()]);
        }
        let parts = parts::write(&mut ram, &tables, &mut random, wild)?;
        let state = kernel::state(paging, &parts[0].start, &mut random);
        let kernel = paging.kernel();
        ram.write_words(NEXT_RECORD, &[kernel + RECORDS]);
        ram.write_words(NEXT_PART, &[kernel + PARTS]);
        ram.write_words(PARTS_LEFT, &[parts.len() as u64 - 1]);
        let others: Vec<u64> = parts[1..].iter().flat_map(|part| part.start).collect();
        ram.write_words(PARTS, &others);
        Ok(Start {
            state,
            ram: ram.0,
            paging,
            wild,
            parts,
        })
    }
}

/// Numbers and addresses.
fn content(paging: Paging, random: &mut Random) -> u64 {
    match random.below(4) {
        0 => program::address(paging, random),
        1 => random.below(64) as u64,
        _ => random.next(),
    }
}

/// Whether other code was executed than was made up, so that flags may matter that are undefined. The breakpoints that
/// code stores to by itself do not count.
fn code_changed(before: &[Vec<u8>], after: &[Vec<u8>]) -> bool {
    const BREAKPOINT: u8 = 0xcc;
    let code = |ram: &[Vec<u8>]| ram[1][(CODE - DATA) as usize..].to_vec();
    let (before, after) = (code(before), code(after));
    let mut bytes = before.iter().zip(&after);
    bytes.any(|(before, after)| before != after && *before != BREAKPOINT)
}

/// What is not the same in both, named.
fn differences(one: &Outcome, other: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    if (one.ended, &one.stopped) != (other.ended, &other.stopped) {
        found.push(format!(
            "stopped {:?} {:?}, ended {} {}",
            one.stopped, other.stopped, one.ended, other.ended
        ));
    }
    let registers = one.state.differences(&other.state);
    found.extend(registers.into_iter().filter(|name| !name.contains("tsc")));
    for ((&(gpa, _), a), b) in RAM.iter().zip(&one.ram).zip(&other.ram) {
        let words = a.chunks_exact(8).zip(b.chunks_exact(8)).enumerate();
        let different = words.filter(|(_, (a, b))| a != b);
        found.extend(different.take(8).map(|(index, (a, b))| {
            let [a, b] = [a, b].map(crate::compare::hexadecimal);
            format!("[{:#x}] {a} {b}", gpa + index as u64 * 8)
        }));
    }
    let mut accesses = one.accesses.iter().zip(&other.accesses);
    if let Some((a, b)) = accesses.find(|(a, b)| a != b) {
        found.push(format!("{a:x?} {b:x?}"));
    }
    if one.accesses.len() != other.accesses.len() {
        found.push(format!(
            "{} accesses of devices, {}",
            one.accesses.len(),
            other.accesses.len()
        ));
    }
    found
}
