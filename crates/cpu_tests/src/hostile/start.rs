//! What a program starts from: RAM with tables, descriptors, handlers and code in it, and registers.

use anyhow::{Context, Result};
use hypervisor::x86_64::{CpuState, Segment, SegmentAttributes as A, TableRegister};

use super::handler::Handlers;
use super::part::{self, Plan, word};
use super::place::{
    FRAME, GDT, GDT_LIMIT, HANDLER, HANDLER_STACK_TOP, IDT, KERNEL, KERNEL_CS, KERNEL_CS32, KERNEL_DIRECTORY,
    KERNEL_PDPT, KERNEL_SS, MOST_PARTS, NARROW_HANDLER, NARROW_IDT, NARROW_IDTR, NARROW_STACK_TOP, NEXT_PART,
    NEXT_RECORD, ODD_COUNT, ODD_SEGMENTS, PAGE, PART_SEGMENTS, PARTS, PARTS_LEFT, PML4, RAM, RECORDS,
    RING1_SS, TSS, TSS_SELECTOR, USER_CS, USER_SS, WIDE_IDTR,
};
use super::program;
use super::setting::{Kind, Setting};
use super::tables::{Hostility, Tables};
use crate::random::Random;

/// One case in so many is wild.
const WILD: usize = 16;
/// Limits of the interrupt descriptor tables.
const WIDE_IDT_LIMIT: u16 = 0xfff;
const NARROW_IDT_LIMIT: u16 = 0x7ff;

/// What a program starts from.
pub(super) struct Start {
    pub(super) state: CpuState,
    pub(super) ram: Vec<Vec<u8>>,
    pub(super) wild: bool,
    /// Each part, and its code.
    pub(super) parts: Vec<(Plan, Vec<u8>)>,
}

impl Start {
    /// A program of this seed; `mixed` ones go from mode to mode.
    pub(super) fn make_up(seed: u64, mixed: bool, handlers: &Handlers) -> Result<Self> {
        let mut random = Random::new(seed);
        let wild = random.once_in(WILD);
        let mut ram = Ram(RAM.map(|(_, len)| vec![0; len as usize]).into());
        for stretch in &mut ram.0[1..] {
            for word in stretch.chunks_exact_mut(8) {
                word.copy_from_slice(&content(&mut random).to_le_bytes());
            }
        }
        let tables = Tables::make_up(&mut random, Hostility { wild, mixed });
        write_kernel(&mut ram, handlers);
        for (at, bytes) in tables.words() {
            ram.write(at, &bytes);
        }
        let plans = plans(&mut random, mixed);
        write_descriptors(&mut ram, &mut random, &plans);
        let codes = write_codes(&mut ram, &tables, &mut random, &plans)?;
        let state = if mixed {
            mixed_state(&mut random)
        } else {
            long_state(&plans[0], &mut random)
        };
        // What starts in the handler is not in the part yet.
        let started = if mixed { 0 } else { 1 };
        ram.write_words(NEXT_RECORD, &[if mixed { RECORDS } else { KERNEL + RECORDS }]);
        ram.write_words(NEXT_PART, &[if mixed { PARTS } else { KERNEL + PARTS }]);
        ram.write_words(PARTS_LEFT, &[plans.len() as u64 - 1]);
        let words: Vec<u64> = plans[started..].iter().flat_map(|plan| plan.words).collect();
        ram.write_words(PARTS, &words);
        if mixed {
            let registers: Vec<u64> = (0..18)
                .map(|_| program::address(&mut random, Kind::Narrow))
                .collect();
            ram.write_words(FRAME, &registers);
        }
        Ok(Self {
            state,
            ram: ram.0,
            wild,
            parts: plans.into_iter().zip(codes).collect(),
        })
    }
}

/// The parts of one program: in one mode, or each in its own.
fn plans(random: &mut Random, mixed: bool) -> Vec<Plan> {
    if !mixed {
        let setting = Setting::make_up(random, Kind::Long);
        return (0..MOST_PARTS)
            .map(|number| Plan::long(random, number, setting))
            .collect();
    }
    // Some programs stay in few modes.
    let kinds = [
        random.pick(&Kind::ALL),
        random.pick(&Kind::ALL),
        random.pick(&Kind::ALL),
    ];
    let all = random.once_in(3);
    let mut plan = |number| {
        let kind = if all {
            random.pick(&Kind::ALL)
        } else {
            random.pick(&kinds)
        };
        let setting = Setting::make_up(random, kind);
        Plan::mixed(random, number, setting)
    };
    (0..MOST_PARTS).map(&mut plan).collect()
}

/// What the handlers stand on.
fn write_kernel(ram: &mut Ram, handlers: &Handlers) {
    /// Present, writable; then large, global (Intel SDM vol. 3, 4.5).
    const TABLE: u64 = 3;
    const LARGE: u64 = TABLE | 0x80 | 0x100;
    ram.write_words(PML4 + (KERNEL >> 39 & 0x1ff) * 8, &[KERNEL_PDPT | TABLE]);
    ram.write_words(KERNEL_PDPT, &[KERNEL_DIRECTORY | TABLE]);
    ram.write_words(KERNEL_DIRECTORY, &[LARGE]);
    // ESP0 and SS0 outside IA-32e mode; the first stack of the interrupt stack table in it (Intel SDM vol. 3, 7.2.1
    // and 7.7).
    ram.write_words(TSS + 4, &[NARROW_STACK_TOP | u64::from(KERNEL_SS) << 32]);
    ram.write(TSS + 36, &(KERNEL + HANDLER_STACK_TOP).to_le_bytes());
    let (code, entries) = &handlers.long;
    ram.write(HANDLER, code);
    for (vector, &address) in entries.iter().enumerate() {
        ram.write_words(IDT + vector as u64 * 16, &gate(address));
    }
    let (code, entries) = &handlers.narrow;
    ram.write(NARROW_HANDLER, code);
    for (vector, &address) in entries.iter().enumerate() {
        ram.write_words(NARROW_IDT + vector as u64 * 8, &[narrow_gate(address)]);
    }
    for (at, table, limit) in [
        (WIDE_IDTR, IDT, WIDE_IDT_LIMIT),
        (NARROW_IDTR, NARROW_IDT, NARROW_IDT_LIMIT),
    ] {
        ram.write_words(at, &[table << 16 | u64::from(limit)]);
    }
}

/// An interrupt gate for every ring, on the first stack of the table (Intel SDM vol. 3, 6.14.1).
fn gate(address: u64) -> [u64; 2] {
    const KIND: u64 = 0xee01 << 32;
    let low = address & 0xffff | u64::from(KERNEL_CS) << 16 | KIND | (address >> 16 & 0xffff) << 48;
    [low, address >> 32]
}

/// An interrupt gate of 32 bits for every ring (Intel SDM vol. 3, 6.11).
fn narrow_gate(address: u64) -> u64 {
    const KIND: u64 = 0xee00 << 32;
    address & 0xffff | u64::from(KERNEL_CS32) << 16 | KIND | (address >> 16 & 0xffff) << 48
}

/// The same segment for another level.
fn of_level(segment: Segment, level: u32) -> Segment {
    Segment {
        attributes: segment.attributes & !A::DPL | A::from_bits_retain(level << 5),
        ..segment
    }
}

fn write_descriptors(ram: &mut Ram, random: &mut Random, plans: &[Plan]) {
    let task = Segment::busy_tss(TSS_SELECTOR, TSS, 0x67);
    for (selector, segment) in [
        (KERNEL_CS, Segment::flat_code64(0)),
        (KERNEL_SS, Segment::flat_data(0)),
        (USER_SS, of_level(Segment::flat_data(0), 3)),
        (USER_CS, of_level(Segment::flat_code64(0), 3)),
        (TSS_SELECTOR, task),
        (KERNEL_CS32, Segment::flat_code32(0)),
        (RING1_SS, of_level(Segment::flat_data(0), 1)),
    ] {
        ram.write_words(GDT + u64::from(selector & !7), &[segment.descriptor()]);
    }
    for (number, plan) in plans.iter().enumerate() {
        let at = GDT + u64::from(PART_SEGMENTS) + number as u64 * 16;
        ram.write_words(at, &plan.descriptors);
    }
    for number in 0..ODD_COUNT {
        let descriptor = odd_descriptor(random, plans);
        ram.write_words(GDT + u64::from(ODD_SEGMENTS + number * 8), &[descriptor]);
    }
}

/// A segment, a gate, or anything.
fn odd_descriptor(random: &mut Random, plans: &[Plan]) -> u64 {
    const PRESENT: u64 = 1 << 47;
    match random.below(6) {
        0 => random.next(),
        1 => {
            // A call gate to some part, in IA-32e mode the upper half of one as likely.
            let plan = &plans[random.below(plans.len())];
            let kind = random.pick(&[0xc_u64, 0xc, 4]);
            let level = random.below(4) as u64;
            let gate =
                plan.ip & 0xffff | (plan.ip >> 16 & 0xffff) << 48 | (plan.words[word::CS] & 0xffff) << 16;
            gate | PRESENT | level << 45 | kind << 40 | (random.below(4) as u64) << 32
        }
        2 => {
            // Of any type of the system's, among them tables and tasks.
            let segment = part::data_segment(random, 3).descriptor();
            segment & !(0x1f << 40) | (random.below(16) as u64) << 40
        }
        3 => {
            let code = part::data_segment(random, 3).descriptor() | 0x8 << 40;
            code | u64::from(random.once_in(4)) << 53
        }
        _ => {
            let level = random.pick(&[0, 1, 3, 3, 3]);
            part::data_segment(random, level).descriptor()
        }
    }
}

/// Numbers and addresses.
fn content(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => program::address(random, Kind::Long),
        1 => random.below(64) as u64,
        _ => random.next(),
    }
}

/// Writes the code of all parts to where its pages are, if they are.
fn write_codes(ram: &mut Ram, tables: &Tables, random: &mut Random, plans: &[Plan]) -> Result<Vec<Vec<u8>>> {
    let mut codes = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let code = program::code(random, number, plans).context("a part cannot be assembled")?;
        for (address, byte) in (plan.at..).zip(code.iter().copied()) {
            if plan.setting.kind == Kind::Unpaged {
                ram.write(address, &[byte]);
            } else if let Some(page) = tables.pages.get(&(address & !(PAGE - 1))) {
                ram.write(page | address & (PAGE - 1), &[byte]);
            }
        }
        codes.push(code);
    }
    Ok(codes)
}

/// In the first part of a program that knows but 64-bit code.
fn long_state(first: &Plan, random: &mut Random) -> CpuState {
    const LMA: u64 = 1 << 10;
    let mut state = CpuState::reset(0);
    let words = &first.words;
    state.enter_long_mode(words[word::RIP], PML4, KERNEL_CS, KERNEL_SS);
    let system = &mut state.system;
    if words[word::CS] == u64::from(USER_CS) {
        system.cs = of_level(Segment::flat_code64(USER_CS), 3);
        system.ss = of_level(Segment::flat_data(USER_SS), 3);
    }
    let setting = &first.setting;
    (system.cr0, system.cr4, system.efer) = (setting.cr0, setting.cr4, setting.efer | LMA);
    system_tables(&mut state, KERNEL);
    state.system.fs.base = program::address(random, Kind::Long) as i32 as u64;
    let general = &mut state.general;
    for register in &mut general.gpr {
        *register = program::address(random, Kind::Long);
    }
    general.gpr[4] = words[word::RSP];
    general.rflags = words[word::FLAGS];
    state
}

/// On the way to the first part of a program that knows all modes.
fn mixed_state(random: &mut Random) -> CpuState {
    let mut state = CpuState::reset(0);
    state.enter_protected_mode(NARROW_HANDLER, KERNEL_CS32, KERNEL_SS);
    system_tables(&mut state, 0);
    let system = &mut state.system;
    system.gdtr.limit = GDT_LIMIT;
    system.ldtr = Segment {
        attributes: A::UNUSABLE,
        ..Segment::default()
    };
    if random.once_in(2) {
        let base = program::address(random, Kind::Narrow);
        system.ldtr = Segment::ldt(0, base, random.below(0x1000) as u32);
    }
    for segment in [&mut system.fs, &mut system.gs] {
        *segment = part::data_segment(random, 3);
    }
    // OSXSAVE, without which XCR0 is nothing.
    system.cr4 |= 1 << 18;
    state
}

/// The kernel's own tables, with their pages from `base` on.
fn system_tables(state: &mut CpuState, base: u64) {
    let system = &mut state.system;
    system.tr = Segment::busy_tss(TSS_SELECTOR, base + TSS, 0x67);
    system.gdtr = TableRegister {
        base: base + GDT,
        limit: 0x4f,
    };
    system.idtr = TableRegister {
        base: base + IDT,
        limit: WIDE_IDT_LIMIT,
    };
    state.xcr0 = 7;
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
