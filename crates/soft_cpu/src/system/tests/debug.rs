//! Breakpoints and single steps.

use crate::cpu::{Cpu, control, flags};
use crate::exception::Exception;
use crate::testing::system::*;

const NOP: &[u8] = &[0x90];
/// `mov [rbx],al`, `mov al,[rbx]`, `mov [rbx],rax`.
const STORE: &[u8] = &[0x88, 0x03];
const LOAD: &[u8] = &[0x8a, 0x03];
const STORE_QUAD: &[u8] = &[0x48, 0x89, 0x03];
const STEP: u64 = 1 << 14;

/// Breakpoint 1 at `address` with these two fields of DR7.
fn with_breakpoint(address: u64, kind: u64, len: u64) -> Machine {
    let mut machine = Machine::long();
    machine.cpu.debug.dr[1] = address;
    machine.cpu.debug.dr7 = 0x400 | 1 << 2 | kind << 20 | len << 22;
    machine.cpu.gpr[Cpu::RBX] = DATA;
    machine
}

fn hit(dr6: u64) -> Result<(), Exception> {
    Err(Exception::debug(dr6, true))
}

#[test]
fn single_step_traps_after_the_instruction() {
    let mut machine = Machine::long();
    assert!(!machine.exec().is_debugged());
    machine.cpu.rflags |= flags::TF;
    assert!(machine.exec().is_debugged());
    assert_eq!(machine.run_debugged(NOP), hit(STEP));
    assert_eq!(machine.cpu.rip, CODE + 1);
}

#[test]
fn single_step_begins_after_the_instruction_that_asks_for_it() {
    let mut machine = Machine::long();
    machine.exec().push(8, flags::TF | 2).unwrap();
    // `popfq`.
    assert_eq!(machine.run_debugged(&[0x9d]), Ok(()));
    assert_eq!(machine.run_debugged(NOP), hit(STEP));
    machine.exec().push(8, 2).unwrap();
    assert_eq!(machine.run_debugged(&[0x9d]), hit(STEP));
    assert_eq!(machine.run_debugged(NOP), Ok(()));
}

#[test]
fn single_step_into_a_handler_does_not_trap_there() {
    let mut machine = Machine::long();
    machine.set_gate(0x40, CODE64, INTERRUPT_GATE);
    machine.cpu.rflags |= flags::TF;
    assert_eq!(machine.run_debugged(&[0xcd, 0x40]), Ok(()));
    assert_eq!((machine.cpu.rip, machine.cpu.rflags & flags::TF), (HANDLER, 0));
}

#[test]
fn single_step_waits_until_after_the_stack_pointer_is_set() {
    let mut machine = Machine::long();
    machine.cpu.rflags |= flags::TF;
    machine.cpu.gpr[Cpu::RAX] = FLAT.into();
    // `mov ss,eax`.
    assert_eq!(machine.run_debugged(&[0x8e, 0xd0]), Ok(()));
    machine.cpu.events.shadow_mov_ss = false;
    assert_eq!(machine.run_debugged(NOP), hit(STEP));
}

#[test]
fn single_step_of_a_repeated_instruction_is_one_element() {
    let mut machine = Machine::long();
    machine.cpu.rflags |= flags::TF;
    (machine.cpu.gpr[Cpu::RDI], machine.cpu.gpr[Cpu::RCX]) = (DATA, 3);
    // `rep stosb`.
    for left in [2, 1, 0] {
        assert_eq!(machine.run_debugged(&[0xf3, 0xaa]), hit(STEP));
        assert_eq!(machine.cpu.gpr[Cpu::RCX], left);
    }
}

#[test]
fn single_step_by_branches_passes_over_other_instructions() {
    let mut machine = Machine::long();
    machine.set_gate(1, CODE64, INTERRUPT_GATE);
    machine.cpu.rflags |= flags::TF;
    (machine.cpu.gpr[Cpu::RCX], machine.cpu.gpr[Cpu::RAX]) = (0x1d9, 2);
    // `wrmsr`, `jz` that is not taken, `jmp`.
    assert_eq!(machine.run_debugged(&[0x0f, 0x30]), Ok(()));
    assert_eq!(machine.run_debugged(&[0x74, 0x10]), Ok(()));
    assert_eq!(machine.run_debugged(&[0xeb, 0x10]), hit(STEP));
    machine.exec().deliver(Exception::debug(STEP, true)).unwrap();
    machine.cpu.rflags |= flags::TF;
    assert_eq!(machine.run_debugged(NOP), hit(STEP));
}

#[test]
fn breakpoint_on_code_faults_before_the_instruction_once() {
    let mut machine = with_breakpoint(CODE, 0, 0);
    assert_eq!(machine.run_debugged(NOP), Err(Exception::debug(2, false)));
    assert_eq!(machine.cpu.rip, CODE);
    machine.cpu.rflags |= flags::RF;
    assert_eq!(machine.run_debugged(NOP), Ok(()));
    assert_eq!((machine.cpu.rip, machine.cpu.rflags & flags::RF), (CODE + 1, 0));
}

#[test]
fn breakpoint_on_code_is_passed_by_iretq_with_the_resume_flag() {
    let mut machine = with_breakpoint(HANDLER, 0, 0);
    for word in [FLAT.into(), STACK, flags::RF | 2, CODE64.into(), HANDLER] {
        machine.exec().push(8, word).unwrap();
    }
    assert_eq!(machine.run_debugged(&[0x48, 0xcf]), Ok(()));
    assert_eq!(machine.run_debugged(NOP), Ok(()));
}

#[test]
fn breakpoint_on_writes_traps_after_a_store_that_overlaps() {
    // The store is of eight bytes from DATA on.
    for (address, len, expected) in [
        (DATA, 0, hit(2)),
        (DATA + 7, 0, hit(2)),
        (DATA + 8, 0, Ok(())),
        (DATA - 1, 1, Ok(())),
        (DATA - 4, 3, Ok(())),
        (DATA + 4, 3, hit(2)),
    ] {
        let mut machine = with_breakpoint(address, 1, len);
        assert_eq!(machine.run_debugged(STORE_QUAD), expected, "{address:#x} {len}");
        assert_eq!(machine.cpu.rip, CODE + 3);
    }
}

#[test]
fn breakpoint_on_writes_lets_loads_pass() {
    assert_eq!(with_breakpoint(DATA, 1, 0).run_debugged(LOAD), Ok(()));
    assert_eq!(with_breakpoint(DATA, 3, 0).run_debugged(LOAD), hit(2));
    assert_eq!(with_breakpoint(DATA, 3, 0).run_debugged(STORE), hit(2));
}

#[test]
fn breakpoint_on_the_stack_is_hit_by_a_push() {
    // `push rax`.
    assert_eq!(with_breakpoint(STACK - 8, 1, 2).run_debugged(&[0x50]), hit(2));
}

#[test]
fn breakpoint_on_data_is_not_hit_where_the_access_faults() {
    let mut machine = with_breakpoint(DATA, 1, 0);
    machine.cpu.gpr[Cpu::RBX] = 0x8000_0000_0000;
    assert_eq!(machine.run_debugged(STORE), Err(Exception::PROTECTION));
}

#[test]
fn breakpoint_and_single_step_are_told_together() {
    let mut machine = with_breakpoint(DATA, 1, 0);
    machine.cpu.rflags |= flags::TF;
    assert_eq!(machine.run_debugged(STORE), hit(STEP | 2));
}

#[test]
fn breakpoint_on_a_port_needs_debugging_extensions() {
    let mut machine = with_breakpoint(0x40, 2, 0);
    // `out 0x40,al`.
    assert_eq!(machine.run_debugged(&[0xe6, 0x40]), Ok(()));
    machine.cpu.cr4 |= control::CR4_DE;
    assert_eq!(machine.run_debugged(&[0xe6, 0x40]), hit(2));
    assert_eq!(machine.run_debugged(&[0xe6, 0x41]), Ok(()));
}

/// `mov dr7,rax`, `mov rcx,dr7` and the same of DR6, DR4, DR2.
#[test]
fn debug_registers_keep_the_bits_that_exist() {
    let mut machine = Machine::long();
    machine.cpu.gpr[Cpu::RAX] = 0xffff_ffff & !(1 << 13);
    for (code, value) in [(0xf8, 0xffff_07ff), (0xf0, 0xffff_cfff), (0xd0, 0xffff_dfff)] {
        machine.run(&[0x0f, 0x23, code]).unwrap();
        machine.run(&[0x0f, 0x21, code | 1]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RCX], value);
    }
    machine.cpu.gpr[Cpu::RAX] = 1 << 32;
    assert_eq!(machine.run(&[0x0f, 0x23, 0xf8]), Err(Exception::PROTECTION));
    assert_eq!(machine.run(&[0x0f, 0x23, 0xf0]), Err(Exception::PROTECTION));
    assert_eq!(machine.run(&[0x0f, 0x23, 0xd0]), Ok(()));
}

#[test]
fn debug_register_4_is_6_unless_extensions_are_on() {
    let mut machine = Machine::long();
    // `mov rcx,dr4`.
    machine.run(&[0x0f, 0x21, 0xe1]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RCX], 0xffff_0ff0);
    machine.cpu.cr4 |= control::CR4_DE;
    assert_eq!(machine.run(&[0x0f, 0x21, 0xe1]), Err(Exception::UNDEFINED));
}

#[test]
fn access_to_debug_registers_is_detected() {
    let mut machine = Machine::long();
    machine.cpu.debug.dr7 |= 1 << 13;
    assert_eq!(
        machine.run(&[0x0f, 0x21, 0xf8]),
        Err(Exception::debug(1 << 13, false))
    );
    let mut machine = Machine::long().at_level_3();
    assert_eq!(machine.run(&[0x0f, 0x21, 0xf8]), Err(Exception::PROTECTION));
}
