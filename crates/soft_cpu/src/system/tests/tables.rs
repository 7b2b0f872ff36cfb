//! Descriptor-table registers and questions about descriptors.

use hypervisor::x86_64::{Segment, SegmentAttributes as A, TableRegister};

use crate::cpu::{Cpu, SegReg, control, flags};
use crate::exception::Exception;
use crate::testing::system::*;

/// `lgdt [rbx]`, `sgdt [rbx]`, `lldt ax`, `ltr ax`.
const LGDT: &[u8] = &[0x0f, 0x01, 0x13];
const SGDT: &[u8] = &[0x0f, 0x01, 0x03];
const LLDT: &[u8] = &[0x0f, 0x00, 0xd0];
const LTR: &[u8] = &[0x0f, 0x00, 0xd8];

fn table_at_data(mut machine: Machine, limit: u16, base: u64) -> Machine {
    machine.cpu.gpr[Cpu::RBX] = DATA;
    machine.set_quad(DATA, u64::from(limit) | base << 16);
    machine.set_quad(DATA + 8, base >> 48);
    machine
}

#[test]
fn lgdt_and_sgdt_move_ten_bytes_in_64_bit_code() {
    let base = 0xffff_fe00_1234_5678;
    let mut machine = table_at_data(Machine::long(), 0x7f, base);
    machine.run(LGDT).unwrap();
    assert_eq!(machine.cpu.gdtr, TableRegister { base, limit: 0x7f });
    machine.cpu.gpr[Cpu::RBX] = DATA + 0x10;
    machine.run(SGDT).unwrap();
    assert_eq!(machine.number(DATA + 0x10, 2), 0x7f);
    assert_eq!(machine.number(DATA + 0x12, 8), base);
}

#[test]
fn lgdt_of_a_base_that_is_not_canonical_is_a_protection_fault() {
    let mut machine = table_at_data(Machine::long(), 0x7f, 0x8000_0000_0000);
    assert_eq!(machine.run(LGDT), Err(Exception::PROTECTION));
}

#[test]
fn lgdt_with_16_bit_operands_loads_24_bits() {
    let mut machine = table_at_data(Machine::protected(), 0x7f, 0x1234_5678);
    machine.run(&[0x66, 0x0f, 0x01, 0x13]).unwrap();
    assert_eq!(machine.cpu.gdtr.base, 0x34_5678);
}

#[test]
fn programs_see_tables_unless_that_is_prevented() {
    let mut machine = table_at_data(Machine::long().at_level_3(), 0, 0);
    assert_eq!(machine.run(LGDT), Err(Exception::PROTECTION));
    assert_eq!(machine.run(SGDT), Ok(()));
    machine.cpu.cr4 |= control::CR4_UMIP;
    // `sgdt [rbx]`, `sidt [rbx]`, `sldt eax`, `str eax`, `smsw eax`.
    for code in [
        [0x01, 0x03],
        [0x01, 0x0b],
        [0x00, 0xc0],
        [0x00, 0xc8],
        [0x01, 0xe0],
    ] {
        assert_eq!(machine.run(&[0x0f, code[0], code[1]]), Err(Exception::PROTECTION));
    }
}

#[test]
fn ltr_marks_the_task_busy_and_takes_no_busy_one() {
    let mut machine = Machine::long();
    let at = GDT + u64::from(SPARE);
    let free = Segment::busy_tss(SPARE, 0x1234_5678, 0x67).descriptor() & !(1 << 41);
    machine.set_quad(at, free);
    machine.set_quad(at + 8, 0xffff_fe00);
    machine.cpu.gpr[Cpu::RAX] = SPARE.into();

    machine.run(LTR).unwrap();

    assert_eq!(
        machine.cpu.tr,
        Segment::busy_tss(SPARE, 0xffff_fe00_1234_5678, 0x67)
    );
    assert_eq!(machine.number(at, 8), free | 1 << 41);
    assert_eq!(machine.run(LTR), Err(Exception::protection(SPARE.into())));
}

#[test]
fn ltr_of_what_is_no_task_is_a_protection_fault() {
    for (selector, expected) in [
        (0, Exception::PROTECTION),
        (FLAT, Exception::protection(0x10)),
        (BEYOND, Exception::protection(0x68)),
        (FLAT | 4, Exception::protection(0x14)),
    ] {
        let mut machine = Machine::long();
        machine.cpu.gpr[Cpu::RAX] = selector.into();
        assert_eq!(machine.run(LTR), Err(expected));
    }
}

#[test]
fn lldt_loads_a_table_that_selectors_then_name() {
    let mut machine = Machine::long();
    let table = Segment::ldt(SPARE, DATA, 0xf);
    machine.set_quad(GDT + u64::from(SPARE), table.descriptor());
    machine.set_quad(DATA + 8, Segment::flat_data(0xc).descriptor());
    machine.cpu.gpr[Cpu::RAX] = SPARE.into();

    machine.run(LLDT).unwrap();

    assert_eq!(machine.cpu.ldtr, table);
    machine.cpu.gpr[Cpu::RAX] = 0xc;
    // `mov es,eax`.
    machine.run(&[0x8e, 0xc0]).unwrap();
    assert_eq!(machine.cpu.segment(SegReg::Es), &Segment::flat_data(0xc));
    machine.cpu.gpr[Cpu::RAX] = 0x14;
    assert_eq!(machine.run(&[0x8e, 0xc0]), Err(Exception::protection(0x14)));
}

#[test]
fn lldt_of_null_leaves_no_table() {
    let mut machine = Machine::long();
    machine.run(LLDT).unwrap();
    assert!(machine.cpu.ldtr.attributes.contains(A::UNUSABLE));
}

#[test]
fn tables_of_tasks_do_not_exist_in_real_mode() {
    let mut machine = Machine::real();
    for code in [
        LLDT,
        LTR,
        &[0x0f, 0x00, 0xc0],
        &[0x0f, 0x02, 0xc8],
        &[0x0f, 0x00, 0xe0],
    ] {
        assert_eq!(machine.run(code), Err(Exception::UNDEFINED));
    }
}

/// Runs `code` about the selector in AX; gives ECX where ZF is set.
fn ask(machine: &mut Machine, code: &[u8], selector: u16) -> Option<u64> {
    machine.cpu.gpr[Cpu::RAX] = selector.into();
    machine.cpu.gpr[Cpu::RCX] = 0x5555;
    machine.run(code).unwrap();
    let found = machine.cpu.rflags & flags::ZF != 0;
    found.then_some(machine.cpu.gpr[Cpu::RCX])
}

#[test]
fn lar_and_lsl_answer_for_what_the_program_may_see() {
    // Selector, access rights, limit; as level 3 sees them.
    let cases = [
        (USER_DATA, Some(0xcf_f300), Some(0xffff_ffff)),
        (USER_CODE64, Some(0xaf_fb00), Some(0xffff_ffff)),
        (FLAT, None, None),
        (TASK, None, None),
        (0, None, None),
        (BEYOND, None, None),
    ];
    let mut machine = Machine::long().at_level_3();
    for (selector, rights, limit) in cases {
        // `lar ecx,eax`, `lsl ecx,eax`.
        assert_eq!(ask(&mut machine, &[0x0f, 0x02, 0xc8], selector), rights);
        assert_eq!(ask(&mut machine, &[0x0f, 0x03, 0xc8], selector), limit);
    }
    let mut machine = Machine::long();
    assert_eq!(ask(&mut machine, &[0x0f, 0x02, 0xc8], TASK), Some(0x8b00));
    assert_eq!(ask(&mut machine, &[0x0f, 0x03, 0xc8], TASK), Some(0x67));
}

#[test]
fn verr_and_verw_tell_what_may_be_read_and_written() {
    let mut machine = Machine::long().at_level_3();
    for (selector, readable, writable) in [
        (USER_DATA, true, true),
        (USER_CODE64, true, false),
        (FLAT, false, false),
        (TASK, false, false),
    ] {
        // `verr ax`, `verw ax`.
        assert_eq!(
            ask(&mut machine, &[0x0f, 0x00, 0xe0], selector).is_some(),
            readable
        );
        assert_eq!(
            ask(&mut machine, &[0x0f, 0x00, 0xe8], selector).is_some(),
            writable
        );
    }
}

#[test]
fn arpl_raises_a_level_and_never_lowers_one() {
    let mut machine = Machine::protected();
    (machine.cpu.gpr[Cpu::RCX], machine.cpu.gpr[Cpu::RAX]) = (3, 0x5555_0010);
    // `arpl ax,cx`.
    machine.run(&[0x63, 0xc8]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x5555_0013);
    assert_ne!(machine.cpu.rflags & flags::ZF, 0);
    machine.cpu.gpr[Cpu::RCX] = 1;
    machine.run(&[0x63, 0xc8]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], 0x5555_0013);
    assert_eq!(machine.cpu.rflags & flags::ZF, 0);
}
