//! Segment registers.

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::testing::system::*;

/// `mov ds,eax`, `mov ss,eax`.
const MOV_DS: &[u8] = &[0x8e, 0xd8];
const MOV_SS: &[u8] = &[0x8e, 0xd0];

fn load(mut machine: Machine, code: &[u8], selector: u16) -> (Machine, Result<(), Exception>) {
    machine.cpu.gpr[Cpu::RAX] = selector.into();
    let result = machine.run(code);
    (machine, result)
}

#[test]
fn load_of_a_data_segment_is_checked() {
    let cases = [
        (FLAT, Ok(())),
        (USER_DATA, Ok(())),
        (USER_CODE32, Ok(())),
        (0, Ok(())),
        (3, Ok(())),
        (TASK, Err(Exception::protection(0x38))),
        (FLAT | 3, Err(Exception::protection(0x10))),
        (BEYOND, Err(Exception::protection(0x68))),
        // There is no local table.
        (FLAT | 4, Err(Exception::protection(0x14))),
    ];
    for (selector, expected) in cases {
        let (_, result) = load(Machine::protected(), MOV_DS, selector);
        assert_eq!(result, expected, "{selector:#x}");
    }
}

#[test]
fn load_of_a_data_segment_at_level_3_is_checked() {
    let cases = [
        (USER_DATA, Ok(())),
        (FLAT, Err(Exception::protection(0x10))),
        (FLAT | 3, Err(Exception::protection(0x10))),
    ];
    for (selector, expected) in cases {
        let (_, result) = load(Machine::protected().at_level_3(), MOV_DS, selector);
        assert_eq!(result, expected, "{selector:#x}");
    }
}

#[test]
fn load_of_an_absent_segment_is_not_present_and_of_a_stack_a_stack_fault() {
    for (code, expected) in [
        (MOV_DS, Exception::not_present(0x48)),
        (MOV_SS, Exception::stack(0x48)),
    ] {
        let mut machine = Machine::protected();
        let absent = Segment::flat_data(SPARE).descriptor() & !(1 << 47);
        machine.set_quad(GDT + u64::from(SPARE), absent);
        assert_eq!(load(machine, code, SPARE).1, Err(expected));
    }
}

#[test]
fn load_of_the_stack_segment_is_checked() {
    let cases = [
        (FLAT, Ok(())),
        (0, Err(Exception::PROTECTION)),
        (FLAT | 1, Err(Exception::protection(0x10))),
        (USER_DATA, Err(Exception::protection(0x28))),
        (CODE32, Err(Exception::protection(0x18))),
    ];
    for (selector, expected) in cases {
        let (machine, result) = load(Machine::protected(), MOV_SS, selector);
        assert_eq!(result, expected, "{selector:#x}");
        assert_eq!(machine.cpu.events.shadow_mov_ss, expected.is_ok());
    }
}

#[test]
fn null_stack_segment_is_for_64_bit_code_of_the_operating_system() {
    assert_eq!(load(Machine::long(), MOV_SS, 0).1, Ok(()));
    assert_eq!(load(Machine::long(), MOV_SS, 3).1, Err(Exception::PROTECTION));
    assert_eq!(
        load(Machine::long().at_level_3(), MOV_SS, 3).1,
        Err(Exception::PROTECTION)
    );
}

#[test]
fn null_data_segment_cannot_be_used_in_protected_mode() {
    let (mut machine, result) = load(Machine::protected(), MOV_DS, 0);
    assert_eq!(result, Ok(()));
    // `mov eax,[ebx]`.
    assert_eq!(machine.run(&[0x8b, 0x03]), Err(Exception::PROTECTION));
}

#[test]
fn null_segment_clears_the_base_of_fs_in_long_mode() {
    let mut machine = Machine::long();
    machine.cpu.segments[SegReg::Fs as usize].base = 0x1234;
    // `mov fs,eax`.
    let (machine, _) = load(machine, &[0x8e, 0xe0], 0);
    assert_eq!(machine.cpu.segment(SegReg::Fs).base, 0);
}

#[test]
fn store_of_a_selector_fills_registers_but_only_a_word_of_memory() {
    let mut machine = Machine::long();
    (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RBX]) = (u64::MAX, DATA);
    machine.set_quad(DATA, u64::MAX);
    // `mov eax,ds`, then `mov [rbx],ds`, then `mov ax,ds` over all ones.
    machine.run(&[0x8c, 0xd8]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x10);
    machine.run(&[0x48, 0x8c, 0x1b]).unwrap();
    assert_eq!(machine.number(DATA, 8), 0xffff_ffff_ffff_0010);
    machine.cpu.gpr[Cpu::RAX] = u64::MAX;
    machine.run(&[0x66, 0x8c, 0xd8]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0xffff_ffff_ffff_0010);
}

#[test]
fn push_and_pop_of_segment_registers_move_as_much_as_the_operand_size() {
    let mut machine = Machine::long();
    // `push fs`, `pop gs`.
    machine.run(&[0x0f, 0xa0]).unwrap();
    assert_eq!((machine.cpu.gpr[Cpu::RSP], machine.stack(8)), (STACK - 8, [0x10]));
    machine.run(&[0x0f, 0xa9]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
    let mut machine = Machine::protected();
    // `push ds`, `pop ss`, both with 16-bit operands.
    machine.run(&[0x66, 0x1e]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK - 2);
    machine.run(&[0x66, 0x17]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK);
    assert!(machine.cpu.events.shadow_mov_ss);
}

#[test]
fn far_pointers_load_offset_and_selector() {
    let mut machine = Machine::protected();
    machine.cpu.gpr[Cpu::RBX] = DATA;
    machine.set_quad(DATA, u64::from(USER_DATA) << 32 | 0x1234_5678);
    // `les ecx,[ebx]`, `lgs dx,[ebx+2]`.
    machine.run(&[0xc4, 0x0b]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RCX], 0x1234_5678);
    assert_eq!(machine.cpu.segment(SegReg::Es).selector, USER_DATA);
    machine.run(&[0x66, 0x0f, 0xb5, 0x53, 0x02]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RDX], 0x1234);
    assert_eq!(machine.cpu.segment(SegReg::Gs).selector, USER_DATA);
}

#[test]
fn far_pointer_with_a_bad_selector_changes_nothing() {
    let mut machine = Machine::protected();
    machine.cpu.gpr[Cpu::RBX] = DATA;
    machine.set_quad(DATA, u64::from(BEYOND) << 32 | 0x1234_5678);

    assert_eq!(
        machine.run(&[0xc4, 0x0b]),
        Err(Exception::protection(BEYOND.into()))
    );
    assert_eq!(machine.cpu.gpr[Cpu::RCX], 0);
}

#[test]
fn real_mode_keeps_limit_and_type_of_what_protected_mode_loaded() {
    let mut machine = Machine::protected();
    machine.cpu.cr0 &= !control::CR0_PE;
    machine.cpu.gpr[Cpu::RAX] = 0x1234;

    machine.run(MOV_DS).unwrap();

    let ds = machine.cpu.segment(SegReg::Ds);
    assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x1_2340, 0xffff_ffff));
    assert!(ds.attributes.contains(A::GRANULAR));
}

#[test]
fn cs_is_loaded_by_no_move() {
    assert_eq!(
        load(Machine::protected(), &[0x8e, 0xc8], CODE32).1,
        Err(Exception::UNDEFINED)
    );
}
