//! Hostile page tables: that nothing a guest does makes the monitor read or write outside its RAM, and that every tier
//! does the same.
//!
//! A program of a few parts accesses memory in every way where something is wrong: pages that are absent, read-only,
//! another ring's or not executable, entries with reserved bits, tables and pages where no RAM is or beyond any,
//! large pages of which little is RAM, accesses and instructions over the borders of all these, and code up to the last
//! byte of RAM. RAM lies between addresses that end the process when they are accessed (`guest_memory` maps it so): a
//! stray access cannot stay unseen.
//!
//! *Tame* cases have tables that programs do not reach, so the tiers are compared where code remained what it was:
//! registers, RAM with the marks in page tables, and what devices saw, in its order. *Wild* ones map everything, their
//! own tables, code and handler among it. What remains remembered of tables that changed is open then, and only the
//! monitor's health is looked at.

mod handler;
mod place;
mod program;
mod report;
mod tables;
mod world;

use std::time::Duration;

use anyhow::{Context, Result};
use hypervisor::x86_64::{CpuState, Segment, SegmentAttributes, TableRegister};
use soft_cpu::Tiers;

use crate::random::Random;
use place::{
    CODE, CODE_LINEAR, CODE_STRIDE, DATA, GDT, HANDLER, HANDLER_STACK_TOP, IDT, KERNEL, KERNEL_CS,
    KERNEL_DIRECTORY, KERNEL_PDPT, KERNEL_SS, MOST_PARTS, NEXT_PART, NEXT_RECORD, PAGE, PARTS, PARTS_LEFT,
    PML4, RAM, RECORDS, TSS, TSS_SELECTOR, USER_CS, USER_SS,
};
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
    handler: (Vec<u8>, Vec<u64>),
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
    wild: bool,
    /// What each part starts with, and its code.
    parts: Vec<([u64; 5], Vec<u8>)>,
}

impl Hostile {
    /// # Errors
    /// What keeps VMs from being made.
    pub fn new() -> Result<Self> {
        let world = |tiers| Ok::<_, anyhow::Error>((tiers, World::new(tiers)?));
        Ok(Self {
            worlds: [world(Tiers::Interpreter)?, world(Tiers::TranslateAtOnce)?],
            handler: handler::assemble().context("the handler cannot be assembled")?,
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
                let mut text = format!("hostile seed {seed}, {one:?} and {other:?}:\n");
                text.push_str(&differences.join("\n"));
                text.push_str(&report::describe(&start.parts, &outcomes[0]));
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
        let wild = random.once_in(WILD);
        let mut ram = Ram(RAM.map(|(_, len)| vec![0; len as usize]).into());
        for stretch in &mut ram.0[1..] {
            for word in stretch.chunks_exact_mut(8) {
                word.copy_from_slice(&content(&mut random).to_le_bytes());
            }
        }
        let tables = Tables::make_up(&mut random, wild);
        self.write_kernel(&mut ram)?;
        for (&at, &entry) in &tables.words {
            ram.write_words(at, &[entry]);
        }
        let parts = write_parts(&mut ram, &tables, &mut random)?;
        let state = state(&parts[0].0, &mut random);
        ram.write_words(NEXT_RECORD, &[KERNEL + RECORDS]);
        ram.write_words(NEXT_PART, &[KERNEL + PARTS]);
        ram.write_words(PARTS_LEFT, &[parts.len() as u64 - 1]);
        let others: Vec<u64> = parts[1..].iter().flat_map(|(words, _)| *words).collect();
        ram.write_words(PARTS, &others);
        Ok(Start {
            state,
            ram: ram.0,
            wild,
            parts,
        })
    }

    /// What the handler stands on.
    fn write_kernel(&self, ram: &mut Ram) -> Result<()> {
        /// Present, writable; then large, global (Intel SDM vol. 3, 4.5).
        const TABLE: u64 = 3;
        const LARGE: u64 = TABLE | 0x80 | 0x100;
        ram.write_words(PML4 + (KERNEL >> 39 & 0x1ff) * 8, &[KERNEL_PDPT | TABLE]);
        ram.write_words(KERNEL_PDPT, &[KERNEL_DIRECTORY | TABLE]);
        ram.write_words(KERNEL_DIRECTORY, &[LARGE]);
        let user = |segment: Segment| Segment {
            attributes: segment.attributes | SegmentAttributes::DPL,
            ..segment
        };
        let task = Segment {
            attributes: SegmentAttributes::PRESENT | SegmentAttributes::from_bits_retain(11),
            ..Segment::busy_tss(TSS_SELECTOR, KERNEL + TSS, 0x67)
        };
        for (selector, segment) in [
            (KERNEL_CS, Segment::flat_code64(0)),
            (KERNEL_SS, Segment::flat_data(0)),
            (USER_SS, user(Segment::flat_data(0))),
            (USER_CS, user(Segment::flat_code64(0))),
            (TSS_SELECTOR, task),
        ] {
            ram.write_words(GDT + u64::from(selector & !7), &[segment.descriptor()]);
        }
        // The first stack of the interrupt stack table (Intel SDM vol. 3, 7.7).
        ram.write(TSS + 36, &(KERNEL + HANDLER_STACK_TOP).to_le_bytes());
        let (code, entries) = &self.handler;
        ram.write(HANDLER, code);
        for (vector, &address) in entries.iter().enumerate() {
            ram.write_words(IDT + vector as u64 * 16, &gate(address));
        }
        Ok(())
    }
}

/// An interrupt gate for every ring, on the first stack of the table (Intel SDM vol. 3, 6.14.1).
fn gate(address: u64) -> [u64; 2] {
    const KIND: u64 = 0xee01 << 32;
    let low = address & 0xffff | u64::from(KERNEL_CS) << 16 | KIND | (address >> 16 & 0xffff) << 48;
    [low, address >> 32]
}

/// Numbers and addresses.
fn content(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => program::address(random),
        1 => random.below(64) as u64,
        _ => random.next(),
    }
}

/// Writes the code of all parts to where its pages are, if they are; gives what each part starts with.
fn write_parts(ram: &mut Ram, tables: &Tables, random: &mut Random) -> Result<Vec<([u64; 5], Vec<u8>)>> {
    let mut parts = Vec::new();
    for number in 0..MOST_PARTS {
        // Near the end of its page, so that instructions lie over it.
        let offset = match random.below(3) {
            0 => 0x400 + random.below(0x800) as u64,
            _ => PAGE - 1 - random.below(100) as u64,
        };
        let at = CODE_LINEAR + number as u64 * CODE_STRIDE + offset;
        let supervisor = random.once_in(2);
        let code = program::part(random, at, supervisor).context("a part cannot be assembled")?;
        for (address, byte) in (at..).zip(code.iter().copied()) {
            if let Some(page) = tables.pages.get(&(address & !(PAGE - 1))) {
                ram.write(page | address & (PAGE - 1), &[byte]);
            }
        }
        let (cs, ss) = if supervisor {
            (KERNEL_CS, KERNEL_SS)
        } else {
            (USER_CS, USER_SS)
        };
        let flags = flags(random);
        let words = [at, cs.into(), flags, program::address(random), ss.into()];
        parts.push((words, code));
    }
    Ok(parts)
}

/// Now and then with single steps, alignment checks, or strings downwards.
fn flags(random: &mut Random) -> u64 {
    let rare = |random: &mut Random, bit: u64, times: usize| u64::from(random.once_in(times)) << bit;
    2 | rare(random, 8, 32) | rare(random, 9, 2) | rare(random, 10, 6) | rare(random, 18, 16)
}

fn state(first: &[u64; 5], random: &mut Random) -> CpuState {
    /// WP, AM; PGE, FSGSBASE, UMIP, SMAP; SMEP; SCE, NXE.
    const CR0: [u64; 2] = [1 << 16, 1 << 18];
    const CR4: [u64; 4] = [1 << 7, 1 << 16, 1 << 11, 1 << 21];
    // Nearly all code is on pages of users: with SMEP the kernel's would not run.
    const SMEP: u64 = 1 << 20;
    const OSXSAVE: u64 = 1 << 18;
    const EFER: u64 = 1 << 0 | 1 << 11;
    let mut some = |bits: &[u64]| bits.iter().filter(|_| !random.once_in(3)).sum::<u64>();
    let (cr0, cr4) = (some(&CR0), some(&CR4));
    let smep = if random.once_in(8) { SMEP } else { 0 };
    let mut state = CpuState::reset(0);
    let [rip, cs, flags, rsp, ss] = *first;
    state.enter_long_mode(rip, PML4, KERNEL_CS, KERNEL_SS);
    let user = |segment: Segment| Segment {
        attributes: segment.attributes | SegmentAttributes::DPL,
        ..segment
    };
    let system = &mut state.system;
    if cs == u64::from(USER_CS) {
        system.cs = user(Segment::flat_code64(USER_CS));
        system.ss = user(Segment::flat_data(ss as u16));
    }
    system.tr = Segment::busy_tss(TSS_SELECTOR, KERNEL + TSS, 0x67);
    system.gdtr = TableRegister {
        base: KERNEL + GDT,
        limit: 0x4f,
    };
    system.idtr = TableRegister {
        base: KERNEL + IDT,
        limit: 0xfff,
    };
    system.cr0 |= cr0;
    system.cr4 |= cr4 | smep | OSXSAVE;
    system.efer |= EFER;
    system.fs.base = program::address(random) as i32 as u64;
    state.xcr0 = 7;
    let general = &mut state.general;
    for register in &mut general.gpr {
        *register = program::address(random);
    }
    general.gpr[4] = rsp;
    general.rflags = flags;
    state
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

/// Bytes of all RAM.
struct Ram(Vec<Vec<u8>>);

impl Ram {
    /// What is no RAM is left out.
    fn write(&mut self, gpa: u64, bytes: &[u8]) {
        for (&(start, len), stretch) in RAM.iter().zip(&mut self.0) {
            let end = gpa + bytes.len() as u64;
            if gpa >= start && end <= start + len {
                stretch[(gpa - start) as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn write_words(&mut self, gpa: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(gpa, &bytes);
    }
}
