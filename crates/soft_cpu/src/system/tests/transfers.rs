//! Far jumps, calls and returns.

use hypervisor::x86_64::Segment;

use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::testing::system::*;

const IRETQ: &[u8] = &[0x48, 0xcf];
const IRETD: &[u8] = &[0xcf];
/// `retf` as wide as code is, and with REX.W.
const RETF: &[u8] = &[0xcb];
const RETFQ: &[u8] = &[0x48, 0xcb];

/// `jmp` or `call` through the far pointer at [`DATA`], as RBX has it: 32-bit offsets.
const JMP: &[u8] = &[0xff, 0x2b];
const CALL: &[u8] = &[0xff, 0x1b];

fn with_pointer(mut machine: Machine, selector: u16, offset: u32) -> Machine {
    machine.cpu.gpr[Cpu::RBX] = DATA;
    machine.set_quad(DATA, u64::from(selector) << 32 | u64::from(offset));
    machine
}

/// Pushes words of `size` bytes: the first ends up deepest.
fn push(machine: &mut Machine, size: usize, words: &[u64]) {
    for &word in words {
        machine.exec().push(size, word).unwrap();
    }
}

#[test]
fn jump_between_64_bit_and_compatibility_mode_changes_how_code_is_decoded() {
    let mut machine = with_pointer(Machine::long(), CODE32, 0x9000);
    machine.run(JMP).unwrap();
    assert_eq!(
        (machine.place_and_level(), machine.cpu.mode.bits),
        ((CODE32, 0x9000, 0), 32)
    );
    let mut machine = with_pointer(machine, CODE64, 0x9100);
    machine.run(JMP).unwrap();
    assert_eq!(
        (machine.place_and_level(), machine.cpu.mode.bits),
        ((CODE64, 0x9100, 0), 64)
    );
}

#[test]
fn jump_to_what_is_no_code_of_this_level_is_a_protection_fault() {
    let cases = [
        (0, Exception::PROTECTION),
        (FLAT, Exception::protection(0x10)),
        (TASK, Exception::protection(0x38)),
        (USER_CODE32 & !3, Exception::protection(0x20)),
        (CODE32 | 3, Exception::protection(0x18)),
        (BEYOND, Exception::protection(0x68)),
    ];
    for (selector, exception) in cases {
        let mut machine = with_pointer(Machine::protected(), selector, 0x9000);
        assert_eq!(machine.run(JMP), Err(exception));
        assert_eq!(machine.place_and_level(), (CODE32, CODE, 0));
    }
}

#[test]
fn jump_beyond_the_segment_is_a_protection_fault() {
    let mut machine = with_pointer(Machine::protected(), SPARE, 0x9000);
    let small = Segment {
        limit: 0xfff,
        ..Segment::flat_code32(SPARE)
    };
    machine.set_quad(GDT + u64::from(SPARE), small.descriptor() & !(1 << 55));

    assert_eq!(machine.run(JMP), Err(Exception::PROTECTION));
}

#[test]
fn call_and_return_at_one_level_keep_the_stack() {
    let mut machine = with_pointer(Machine::protected(), CODE32, 0x9000);
    machine.run(CALL).unwrap();
    assert_eq!(machine.stack(4), [CODE + 2, CODE32.into()]);
    machine.run(RETF).unwrap();
    assert_eq!(machine.place_and_level(), (CODE32, CODE + 2, 0));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
}

#[test]
fn call_through_a_gate_copies_parameters_to_the_inner_stack() {
    let mut machine = with_pointer(Machine::protected().at_level_3(), SPARE, 0);
    machine.set_quad(GDT + u64::from(SPARE), gate(CODE32, 0xec02));
    push(&mut machine, 4, &[0x1111, 0x2222]);

    machine.run(CALL).unwrap();

    assert_eq!(machine.place_and_level(), (CODE32, HANDLER, 0));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], INNER_STACK - 24);
    let frame = [
        CODE + 2,
        USER_CODE32.into(),
        0x2222,
        0x1111,
        STACK - 8,
        USER_DATA.into(),
    ];
    assert_eq!(machine.stack(4), frame);
    // `retf 8` takes the parameters off both stacks.
    machine.run(&[0xca, 8, 0]).unwrap();
    assert_eq!(machine.place_and_level(), (USER_CODE32, CODE + 2, 3));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
}

#[test]
fn call_through_a_gate_in_long_mode_pushes_quadwords() {
    let mut machine = with_pointer(Machine::long().at_level_3(), SPARE, 0);
    machine.set_quad(GDT + u64::from(SPARE), gate(CODE64, 0xec00));

    machine.run(CALL).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, HANDLER, 0));
    let frame = [CODE + 2, USER_CODE64.into(), STACK, USER_DATA.into()];
    assert_eq!(machine.stack(8), frame);
    machine.run(RETFQ).unwrap();
    assert_eq!(machine.place_and_level(), (USER_CODE64, CODE + 2, 3));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
}

#[test]
fn call_through_a_gate_that_is_closed_or_absent_is_refused() {
    let cases = [
        (0x8c00, Exception::protection(0x48)),
        (0x6c00, Exception::not_present(0x48)),
        // A 16-bit gate, which IA-32e mode does not have.
        (0xe400, Exception::protection(0x48)),
    ];
    for (attributes, exception) in cases {
        let mut machine = with_pointer(Machine::long().at_level_3(), SPARE, 0);
        machine.set_quad(GDT + u64::from(SPARE), gate(CODE64, attributes));
        assert_eq!(machine.run(CALL), Err(exception));
    }
}

#[test]
fn return_to_level_3_empties_data_segments_of_level_0() {
    let mut machine = Machine::protected();
    machine
        .cpu
        .set_segment(SegReg::Fs, user(Segment::flat_data(USER_DATA)));
    push(
        &mut machine,
        4,
        &[USER_DATA.into(), 0x5000, USER_CODE32.into(), 0x9000],
    );

    machine.run(RETF).unwrap();

    let selector = |register| machine.cpu.segment(register).selector;
    assert_eq!(machine.place_and_level(), (USER_CODE32, 0x9000, 3));
    assert_eq!((selector(SegReg::Ds), selector(SegReg::Es)), (0, 0));
    assert_eq!(
        (selector(SegReg::Fs), selector(SegReg::Ss)),
        (USER_DATA, USER_DATA)
    );
    assert_eq!(machine.run(&[0x8b, 0x03]), Err(Exception::PROTECTION));
}

#[test]
fn return_to_where_no_program_may_go_is_a_protection_fault() {
    // CS, SS of a return from level 0 in 64-bit mode.
    let cases = [
        (0, FLAT, Exception::PROTECTION),
        (FLAT, FLAT, Exception::protection(0x10)),
        (USER_CODE64 & !3, FLAT, Exception::protection(0x30)),
        (USER_CODE64, 0, Exception::PROTECTION),
        (USER_CODE64, 3, Exception::PROTECTION),
        (USER_CODE64, FLAT, Exception::protection(0x10)),
        (USER_CODE64, USER_CODE32, Exception::protection(0x20)),
        (CODE32, 0, Exception::PROTECTION),
        (BEYOND, FLAT, Exception::protection(0x68)),
    ];
    for (cs, ss, exception) in cases {
        let mut machine = Machine::long();
        push(&mut machine, 8, &[ss.into(), STACK, 2, cs.into(), 0x9000]);
        assert_eq!(machine.run(IRETQ), Err(exception), "{cs:#x} {ss:#x}");
        assert_eq!(machine.place_and_level(), (CODE64, CODE, 0));
        assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK - 40);
    }
}

#[test]
fn iretq_to_level_0_takes_a_null_stack_segment() {
    let mut machine = Machine::long();
    push(&mut machine, 8, &[0, 0x5000, 2, CODE64.into(), 0x9000]);

    machine.run(IRETQ).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, 0x9000, 0));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], 0x5000);
}

#[test]
fn iretq_to_an_address_that_is_not_canonical_is_a_protection_fault() {
    let mut machine = Machine::long();
    push(
        &mut machine,
        8,
        &[FLAT.into(), STACK, 2, CODE64.into(), 0x8000_0000_0000],
    );

    assert_eq!(machine.run(IRETQ), Err(Exception::PROTECTION));
}

#[test]
fn iret_of_a_nested_task_is_a_protection_fault() {
    let mut machine = Machine::long();
    machine.cpu.rflags |= flags::NT;
    push(&mut machine, 8, &[FLAT.into(), STACK, 2, CODE64.into(), 0x9000]);

    assert_eq!(machine.run(IRETQ), Err(Exception::PROTECTION));
}

#[test]
fn iret_to_virtual_8086_mode_is_a_protection_fault() {
    let mut machine = Machine::protected();
    push(&mut machine, 4, &[flags::VM | 2, CODE32.into(), 0x9000]);

    assert_eq!(machine.run(IRETD), Err(Exception::PROTECTION));
}

#[test]
fn iret_at_level_3_changes_neither_iopl_nor_the_interrupt_flag() {
    let mut machine = Machine::protected().at_level_3();
    push(&mut machine, 4, &[0x24_7cd7, USER_CODE32.into(), 0x9000]);

    machine.run(IRETD).unwrap();

    assert_eq!(machine.cpu.rflags, 0x24_4ed7);
}

#[test]
fn iret_to_a_16_bit_stack_leaves_the_upper_half_of_the_stack_pointer() {
    let mut machine = Machine::protected();
    let small = Segment {
        limit: 0xffff,
        ..user(Segment::flat_data(SPARE | 3))
    };
    machine.set_quad(GDT + u64::from(SPARE), small.descriptor() & !(3 << 54));
    machine.cpu.gpr[Cpu::RSP] = 0x5_8000;
    push(
        &mut machine,
        4,
        &[u64::from(SPARE | 3), 0x1234_5678, 2, USER_CODE32.into(), 0x9000],
    );

    machine.run(IRETD).unwrap();

    assert_eq!(machine.cpu.gpr[Cpu::RSP], 0x5_5678);
}

#[test]
fn far_transfers_of_real_mode_only_change_the_base() {
    let mut machine = Machine::real();
    // `call 0x0123:0x4567`.
    machine.run(&[0x9a, 0x67, 0x45, 0x23, 0x01]).unwrap();
    assert_eq!(
        (machine.cpu.segment(SegReg::Cs).base, machine.cpu.rip),
        (0x1230, 0x4567)
    );
    machine.run(RETF).unwrap();
    assert_eq!(
        (machine.cpu.segment(SegReg::Cs).base, machine.cpu.rip),
        (0, CODE + 5)
    );
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
}

#[test]
fn loaded_segments_are_marked_in_their_table() {
    let mut machine = with_pointer(Machine::protected(), SPARE, 0x9000);
    let at = GDT + u64::from(SPARE);
    machine.set_quad(at, Segment::flat_code32(SPARE).descriptor() & !(1 << 40));

    machine.run(JMP).unwrap();

    assert_eq!(machine.number(at, 8), Segment::flat_code32(SPARE).descriptor());
}
