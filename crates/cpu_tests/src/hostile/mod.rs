//! Hostile page tables: that nothing a guest does makes the monitor read or write outside its RAM, and that every tier
//! does the same.
//!
//! A program of a few parts accesses memory in every way where something is wrong: pages that are absent, read-only,
//! another ring's or not executable, entries with reserved bits, tables and pages where no RAM is or beyond any,
//! large pages of which little is RAM, accesses and instructions over the borders of all these, and code up to the last
//! byte of RAM. RAM lies between addresses that end the process when they are accessed (`guest_memory` maps it so): a
//! stray access cannot stay unseen.
//!
//! *Long* programs are 64-bit code throughout. In *mixed* ones each part has a mode of its own, and parts of ring 0 go to
//! others by themselves. Only 64-bit code is ever translated, so what those compare is what the tiers make of the way
//! between modes; that nothing but RAM is reached holds for all.
//!
//! *Tame* cases have tables that programs do not reach, so the tiers are compared where code remained what it was:
//! registers, RAM with the marks in page tables, and what devices saw, in its order. *Wild* ones map everything, their
//! own tables, code and handler among it. What remains remembered of tables that changed is open then, and only the
//! monitor's health is looked at.

mod handler;
mod part;
mod place;
mod program;
mod report;
mod setting;
mod start;
mod tables;
mod world;

use std::time::Duration;

use anyhow::{Context, Result};
use soft_cpu::Tiers;

use handler::Handlers;
use place::{CODE, DATA, HANDLER, NEXT_RECORD, RAM};
use start::Start;
use world::{Outcome, World};

/// A program needs a fraction of this, but one that runs what is no code may go on forever, or halt.
const PATIENCE: Duration = Duration::from_millis(20);
const PATIENCE_WILD: Duration = Duration::from_millis(2);
/// Where only one tier came to an end before: it may have been the host that was slow.
const PATIENCE_AGAIN: Duration = Duration::from_secs(20);

/// The modes that a program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// 64-bit code under four-level tables, and a kernel in the upper half of the address space.
    Long,
    /// All of protected mode and IA-32e mode, one part in each as it comes; parts of ring 0 go from mode to mode
    /// themselves as well.
    Mixed,
}

/// Runs hostile programs in two tiers.
pub struct Hostile {
    modes: Modes,
    worlds: [(Tiers, World); 2],
    handlers: Handlers,
}

/// Runs the programs of seeds `first` to `first + count - 1` on all processors; tells what the tiers disagree about.
///
/// # Errors
/// As [`Hostile::new`] and [`Hostile::run`].
pub fn run_on_all_processors(modes: Modes, first: u64, count: usize) -> Result<Vec<String>> {
    let found = crate::parallel::shares(first, count, |first, count| {
        Hostile::new(modes)?.run(first, count)
    })?;
    Ok(found.into_iter().flatten().collect())
}

impl Hostile {
    /// # Errors
    /// What keeps VMs from being made.
    pub fn new(modes: Modes) -> Result<Self> {
        let world = |tiers| Ok::<_, anyhow::Error>((tiers, World::new(tiers)?));
        Ok(Self {
            modes,
            worlds: [world(Tiers::Interpreter)?, world(Tiers::TranslateAtOnce)?],
            handlers: Handlers::assemble(modes == Modes::Mixed).context("a handler cannot be assembled")?,
        })
    }

    /// Runs the programs of seeds `first` to `first + count - 1`; tells of the first about which the tiers disagree.
    ///
    /// # Errors
    /// A VM that fails.
    pub fn run(&mut self, first: u64, count: usize) -> Result<Option<String>> {
        for seed in (0..count as u64).map(|number| first.wrapping_add(number)) {
            let start = Start::make_up(seed, self.modes == Modes::Mixed, &self.handlers)?;
            let patience = if start.wild { PATIENCE_WILD } else { PATIENCE };
            let mut outcomes = self.outcomes(&start, patience)?;
            if start.wild || code_changed(&start.ram, &outcomes[0].ram) {
                continue;
            }
            if outcomes[0].ended != outcomes[1].ended {
                outcomes = self.outcomes(&start, PATIENCE_AGAIN)?;
            }
            let differences = differences(&outcomes[0], &outcomes[1]);
            let differ =
                outcomes[0].ended && !differences.is_empty() || outcomes[0].ended != outcomes[1].ended;
            if differ && self.follows_from_its_start(&start, &outcomes[0])? {
                let [one, other] = [&self.worlds[0].0, &self.worlds[1].0];
                let mut text = format!("hostile {:?} seed {seed}, {one:?} and {other:?}:\n", self.modes);
                text.push_str(&differences.join("\n"));
                text.push_str(&report::describe(&start.parts, &outcomes[0]));
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Whether a program comes to the same again: data that is executed may ask for the time.
    fn follows_from_its_start(&mut self, start: &Start, outcome: &Outcome) -> Result<bool> {
        let again = self.worlds[0].1.run(&start.state, &start.ram, PATIENCE_AGAIN)?;
        let same = !outcome.ended || differences(outcome, &again).is_empty();
        Ok(again.ended == outcome.ended && same)
    }

    fn outcomes(&mut self, start: &Start, patience: Duration) -> Result<[Outcome; 2]> {
        let [(_, one), (_, other)] = &mut self.worlds;
        Ok([
            one.run(&start.state, &start.ram, patience)?,
            other.run(&start.state, &start.ram, patience)?,
        ])
    }
}

/// Whether other code was executed than was made up, so that flags may matter that are undefined. The breakpoints that
/// code stores to by itself do not count.
fn code_changed(before: &[Vec<u8>], after: &[Vec<u8>]) -> bool {
    const BREAKPOINT: u8 = 0xcc;
    // The handler's as well: where data can be code, it may be written by anything.
    let code = |ram: &[Vec<u8>]| {
        let handlers = &ram[0][HANDLER as usize..NEXT_RECORD as usize];
        [&ram[1][(CODE - DATA) as usize..], handlers].concat()
    };
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
