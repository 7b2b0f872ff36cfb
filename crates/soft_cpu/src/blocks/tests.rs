//! Code where segments end, code that page tables lie in, and code for newer processors.

use hypervisor::x86_64::Segment;

use crate::cpu::{Cpu, Features, SegReg, TlbSet, flags};
use crate::exception::Exception;
use crate::testing::integer::{CODE, DATA, Machine, START};

/// `inc eax`, five times.
const FIVE: [u8; 5] = [0x40; 5];

/// Has the code segment begin at `base` and end behind its byte `limit`.
fn set_code_segment(machine: &mut Machine, base: u64, limit: u64) {
    let limit = limit as u32;
    let code = Segment {
        base,
        limit,
        ..Segment::flat_code32(8)
    };
    machine.cpu.set_segment(SegReg::Cs, code);
}

/// Runs the block at RIP.
fn run_block(machine: &mut Machine, rip: u64) -> Result<(), Exception> {
    machine.cpu.rip = rip;
    let mut exec = machine.exec();
    let slot = exec.find_block()?;
    exec.run_found_block(slot)
}

#[test]
fn code_segment_ends_inside_a_block_code_up_to_there_runs() {
    let mut machine = Machine::new(32);
    machine.set_bytes(START, &FIVE);
    set_code_segment(&mut machine, 0, START + 2);

    let ran = run_block(&mut machine, START);
    let at = machine.cpu.rip;
    let beyond = run_block(&mut machine, at);

    assert_eq!((ran, at), (Ok(()), START + 3));
    assert_eq!(beyond, Err(Exception::PROTECTION));
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 3);
}

#[test]
fn block_that_was_decoded_in_a_longer_segment_does_not_run_beyond_a_shorter_one() {
    let mut machine = Machine::new(32);
    machine.set_bytes(START, &FIVE);
    // Not defined: ends the block.
    machine.set_bytes(START + 5, &[0x0f, 0x0b]);
    let _ = run_block(&mut machine, START);
    set_code_segment(&mut machine, 0, START + 1);

    let ran = run_block(&mut machine, START);

    assert_eq!((ran, machine.cpu.rip), (Ok(()), START + 2));
}

#[test]
fn instruction_over_the_end_of_a_page_in_a_segment_off_page_borders_runs_again() {
    let mut machine = Machine::new(32);
    let at = CODE + 0xffe;
    // add eax, 2
    machine.set_bytes(at, &[0x05, 2, 0, 0, 0]);
    let base = CODE + 0x10;
    set_code_segment(&mut machine, base, at - base + 4);

    let ran = [0, 1].map(|_| {
        machine.cpu.rip = at - base;
        machine.exec().run_instruction()
    });

    assert_eq!(ran, [Ok(()), Ok(())]);
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 4);
}

/// The table of [`DATA`], as [`Machine::page_without`] makes it: code may lie behind its entries.
const TABLE: u64 = CODE + 0xa000;
/// A present entry for users that is an instruction as well: `add eax, imm32`; and what it is once it was accessed.
const ADD: u8 = 0x05;
const OR_ACCESSED: u8 = 0x20;

#[test]
fn walk_that_marks_an_entry_in_code_has_that_decoded_anew() {
    let mut machine = Machine::new(32);
    machine.page_without(0);
    let (at, entry) = (TABLE + 0x800, [ADD, 0, 0x10, 0x40, 0]);
    machine.set_bytes(at, &entry);
    machine.cpu.rip = at;
    machine.exec().run_instruction().unwrap();
    let added = machine.cpu.gpr[Cpu::RAX];

    machine
        .exec()
        .linear_load(TlbSet::Supervisor, DATA + 0x20_0000, 4)
        .unwrap();
    machine.cpu.rip = at;
    machine.cpu.gpr[Cpu::RAX] = 0x1000;
    machine.exec().run_instruction().unwrap();

    assert_eq!(added, 0x40_1000);
    assert_eq!(machine.bytes(at, 1), [ADD | OR_ACCESSED]);
    // and eax, 0x401000
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x1000);
}

#[test]
fn instruction_whose_second_page_is_mapped_by_its_own_bytes_is_watched_and_true() {
    let mut machine = Machine::new(32);
    machine.page_without(0);
    // The table maps itself next to last, and a page of code last: by an entry that the first has at its end.
    let (first, second) = (DATA + 0x3f_e000, CODE + 0x5000);
    machine.set_bytes(TABLE + 0x3fe * 4, &((TABLE | 7) as u32).to_le_bytes());
    machine.set_bytes(TABLE + 0xffc, &((second | u64::from(ADD)) as u32).to_le_bytes());
    machine.cpu.gpr[Cpu::RAX] = 0xffff_ffff;
    machine.cpu.rip = first + 0xffc;

    machine.exec().run_instruction().unwrap();
    let once = machine.cpu.gpr[Cpu::RAX];
    // or eax, imm32
    machine
        .exec()
        .linear_store(TlbSet::Supervisor, first + 0xffc, 1, 0x0d)
        .unwrap();
    machine.cpu.gpr[Cpu::RAX] = 0x8000_0000;
    machine.cpu.rip = first + 0xffc;
    machine.exec().run_instruction().unwrap();

    // and eax, imm32
    assert_eq!(once, second >> 8);
    assert_eq!(machine.cpu.gpr[Cpu::RAX], second >> 8 | 0x8000_0000);
}

#[test]
fn count_of_zeros_on_a_processor_without_it_is_a_scan() {
    let mut machine = Machine::new(64);
    machine.cpu.features = Features::of(&[]);
    let counts: [&[u8]; 2] = [
        // tzcnt rax, rcx; lzcnt rdx, rcx
        &[0xf3, 0x48, 0x0f, 0xbc, 0xc1],
        &[0xf3, 0x48, 0x0f, 0xbd, 0xd1],
    ];
    for code in counts {
        machine.set_gprs(&[(Cpu::RAX, 7), (Cpu::RDX, 7), (Cpu::RCX, 0)]);
        assert_eq!(machine.run(code), Ok(()));
        assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]), (7, 7));
        assert_ne!(machine.status() & flags::ZF, 0);

        machine.set_gprs(&[(Cpu::RCX, 0x100)]);
        assert_eq!(machine.run(code), Ok(()));
    }
    assert_eq!((machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]), (7, 8));
    assert_eq!(machine.passed(), 5);
}
