//! Exceptions and interrupts on their way to their handlers.

use hypervisor::x86_64::{Activity, SegmentAttributes as A};

use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::system::TripleFault;
use crate::testing::system::*;

/// `int 0x40`, `iretq`, `iretd`.
const INT: &[u8] = &[0xcd, 0x40];
const IRETQ: &[u8] = &[0x48, 0xcf];
const IRETD: &[u8] = &[0xcf];

#[test]
fn interrupt_from_level_3_in_long_mode_switches_stacks() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, USER_GATE);
    machine.cpu.gpr[Cpu::RSP] = STACK - 3;
    machine.cpu.rflags |= flags::TF | flags::NT;

    machine.run(INT).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, HANDLER, 0));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], INNER_STACK - 40);
    let frame = [CODE + 2, USER_CODE64.into(), 0x4302, STACK - 3, USER_DATA.into()];
    assert_eq!(machine.stack(8), frame);
    let ss = machine.cpu.segment(SegReg::Ss);
    assert_eq!((ss.selector, ss.attributes), (0, A::UNUSABLE));
    assert_eq!(machine.cpu.rflags, 2);
}

#[test]
fn iretq_to_level_3_gives_everything_back() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, USER_GATE);
    let before = (machine.cpu.segments, machine.cpu.rflags, machine.cpu.gpr);
    machine.run(INT).unwrap();
    machine.cpu.events.nmi_masked = true;

    machine.run(IRETQ).unwrap();

    assert_eq!(machine.place_and_level(), (USER_CODE64, CODE + 2, 3));
    assert_eq!(
        (machine.cpu.segments, machine.cpu.rflags, machine.cpu.gpr),
        before
    );
    assert!(!machine.cpu.events.nmi_masked);
}

#[test]
fn iret_calls_for_a_waiting_non_maskable_interrupt() {
    let mut machine = Machine::long();
    machine.set_gate(2, CODE64, INTERRUPT_GATE);
    machine.exec().deliver_interrupt(2).unwrap();
    (machine.cpu.events.nmi_masked, machine.cpu.events.nmi_pending) = (true, true);
    assert!(!machine.cpu.apic.attention().wanted());

    machine.run(IRETQ).unwrap();

    assert!(machine.cpu.apic.attention().wanted());
}

#[test]
fn interrupt_at_the_same_level_in_long_mode_aligns_the_stack() {
    let mut machine = Machine::long();
    machine.set_gate(0x40, CODE64, INTERRUPT_GATE);
    machine.cpu.gpr[Cpu::RSP] = STACK - 5;

    machine.exec().deliver_interrupt(0x40).unwrap();

    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK - 16 - 40);
    assert_eq!(machine.stack(8), [CODE, CODE64.into(), 2, STACK - 5, FLAT.into()]);
    assert_eq!(machine.cpu.segment(SegReg::Ss).selector, FLAT);
}

#[test]
fn interrupt_with_a_stack_of_its_own_uses_it_at_the_same_level() {
    let mut machine = Machine::long();
    machine.set_gate(2, CODE64, INTERRUPT_GATE | 1);

    machine.exec().deliver_interrupt(2).unwrap();

    assert_eq!(machine.cpu.gpr[Cpu::RSP], IST1 - 40);
}

#[test]
fn interrupt_wakes_a_halted_processor() {
    let mut machine = Machine::long();
    machine.set_gate(0x40, CODE64, INTERRUPT_GATE);
    machine.run(&[0xf4]).unwrap();
    assert_eq!(machine.cpu.activity, Activity::Halted);

    machine.exec().deliver_interrupt(0x40).unwrap();

    assert_eq!(machine.cpu.activity, Activity::Running);
}

#[test]
fn trap_gate_leaves_interrupts_on() {
    let mut machine = Machine::long();
    machine.set_gate(0x40, CODE64, 0x8f00);
    machine.cpu.rflags |= flags::IF;

    machine.exec().deliver_interrupt(0x40).unwrap();

    assert_eq!(machine.cpu.rflags, 0x202);
}

#[test]
fn software_interrupt_through_a_closed_gate_is_a_protection_fault_about_it() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, INTERRUPT_GATE);
    let before = machine.place_and_level();

    assert_eq!(machine.run(INT), Err(Exception::protection(0x40 * 8 + 2)));
    assert_eq!(machine.place_and_level(), before);
}

#[test]
fn int1_does_not_care_about_the_gates_level() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(1, CODE64, INTERRUPT_GATE);

    machine.run(&[0xf1]).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, HANDLER, 0));
    assert_eq!(machine.cpu.debug.dr6, 0xffff_0ff0);
}

#[test]
fn gates_that_lead_nowhere_are_told_by_their_error_codes() {
    // Attributes of the gate, its selector, and what an interrupt from outside raises.
    let cases = [
        (0x0e00, CODE64, Exception::not_present(0x203)),
        (0x8500, CODE64, Exception::protection(0x203)),
        (0x8c00, CODE64, Exception::protection(0x203)),
        (INTERRUPT_GATE, 0, Exception::protection(1)),
        (INTERRUPT_GATE, FLAT, Exception::protection(0x11)),
        (INTERRUPT_GATE, CODE32, Exception::protection(0x19)),
        (INTERRUPT_GATE, USER_CODE64, Exception::protection(0x31)),
        (INTERRUPT_GATE, BEYOND, Exception::protection(0x69)),
    ];
    for (attributes, selector, exception) in cases {
        let mut machine = Machine::long();
        machine.set_gate(0x40, selector, attributes);
        machine.set_gate(exception.vector, CODE64, INTERRUPT_GATE);

        machine.exec().deliver_interrupt(0x40).unwrap();

        let code = machine.number(machine.cpu.gpr[Cpu::RSP], 8) as u32;
        assert_eq!(Some(code), exception.error_code);
    }
}

#[test]
fn fault_finds_the_resume_flag_set_and_an_error_code_on_the_stack() {
    let mut machine = Machine::long();
    machine.set_gate(14, CODE64, INTERRUPT_GATE);

    machine
        .exec()
        .deliver(Exception::page_fault(0xffff_8000_0000_1234, 2))
        .unwrap();

    assert_eq!(machine.stack(8), [2, CODE, CODE64.into(), 0x1_0002]);
    assert_eq!(machine.cpu.cr2, 0xffff_8000_0000_1234);
}

#[test]
fn trap_finds_the_resume_flag_clear_and_reports_in_dr6() {
    let mut machine = Machine::long();
    machine.set_gate(1, CODE64, INTERRUPT_GATE);
    machine.cpu.debug.dr6 = 0xffff_0ff2;
    machine.cpu.debug.dr7 = 0x2400;

    machine.exec().deliver(Exception::debug(0x4001, true)).unwrap();

    assert_eq!(machine.stack(8), [CODE, CODE64.into(), 2]);
    assert_eq!(machine.cpu.debug.dr6, 0xffff_4ff1);
    assert_eq!(machine.cpu.debug.dr7, 0x400);
}

#[test]
fn fault_while_a_contributory_one_is_delivered_becomes_a_double_fault() {
    let mut machine = Machine::long();
    // The handler of #GP is absent, which raises #NP.
    machine.set_gate(13, CODE64, 0x0e00);
    machine.set_gate(8, CODE64, INTERRUPT_GATE | 1);

    machine.exec().deliver(Exception::PROTECTION).unwrap();

    assert_eq!(machine.cpu.gpr[Cpu::RSP], IST1 - 48);
    assert_eq!(machine.stack(8), [0, CODE]);
}

#[test]
fn fault_while_a_benign_one_is_delivered_is_delivered_itself() {
    let mut machine = Machine::long();
    machine.set_gate(6, CODE64, 0x0e00);
    machine.set_gate(11, CODE64, INTERRUPT_GATE);

    machine.exec().deliver(Exception::UNDEFINED).unwrap();

    assert_eq!(machine.stack(8), [6 * 8 + 3]);
}

#[test]
fn double_fault_without_a_handler_is_a_triple_fault() {
    let mut machine = Machine::long();
    machine.cpu.idtr.limit = 0;

    assert_eq!(machine.exec().deliver(Exception::UNDEFINED), Err(TripleFault));
    assert_eq!(machine.exec().deliver_interrupt(0x40), Err(TripleFault));
}

#[test]
fn inner_stack_that_is_not_canonical_is_a_stack_fault() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, USER_GATE);
    machine.set_quad(TSS + 4, 0x9000_0000_0000);

    assert_eq!(machine.run(INT), Err(Exception::stack(0)));
}

#[test]
fn task_state_that_ends_too_early_is_an_invalid_tss() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, USER_GATE);
    machine.cpu.tr.limit = 10;

    assert_eq!(machine.run(INT), Err(Exception::invalid_tss(TASK.into())));
}

#[test]
fn interrupt_from_compatibility_mode_enters_64_bit_code() {
    let mut machine = Machine::long().at_level_3();
    machine.set_gate(0x40, CODE64, USER_GATE);
    let code = user(hypervisor::x86_64::Segment::flat_code32(USER_CODE32));
    machine.cpu.set_segment(SegReg::Cs, code);

    machine.run(INT).unwrap();

    assert_eq!(machine.cpu.mode.bits, 64);
    assert_eq!(machine.stack(8), [CODE + 2, USER_CODE32.into()]);
    machine.run(IRETQ).unwrap();
    assert_eq!((machine.cpu.mode.bits, machine.cpu.mode.stack_bits), (32, 32));
}

#[test]
fn interrupt_from_level_3_in_protected_mode_switches_stacks_and_back() {
    let mut machine = Machine::protected().at_level_3();
    machine.set_gate(0x40, CODE32, USER_GATE);
    let before = (machine.cpu.segments, machine.cpu.rflags, machine.cpu.gpr);

    machine.run(INT).unwrap();

    assert_eq!(machine.place_and_level(), (CODE32, HANDLER, 0));
    assert_eq!(machine.cpu.gpr[Cpu::RSP], INNER_STACK - 20);
    let frame = [CODE + 2, USER_CODE32.into(), 0x202, STACK, USER_DATA.into()];
    assert_eq!(machine.stack(4), frame);
    assert_eq!(machine.cpu.segment(SegReg::Ss).selector, FLAT);
    machine.run(IRETD).unwrap();
    assert_eq!(
        (machine.cpu.segments, machine.cpu.rflags, machine.cpu.gpr),
        before
    );
}

#[test]
fn interrupt_through_a_16_bit_gate_pushes_words() {
    let mut machine = Machine::protected();
    machine.set_gate(0x40, CODE32, 0x8600);

    machine.run(INT).unwrap();

    assert_eq!(machine.cpu.gpr[Cpu::RSP], STACK - 6);
    assert_eq!(machine.stack(2), [CODE + 2, CODE32.into(), 2]);
}

#[test]
fn inner_stack_segment_of_the_wrong_level_is_an_invalid_tss() {
    for (selector, exception) in [
        (0, Exception::invalid_tss(0)),
        (USER_DATA, Exception::invalid_tss(0x28)),
        (CODE32, Exception::invalid_tss(0x18)),
        (BEYOND, Exception::invalid_tss(0x68)),
    ] {
        let mut machine = Machine::protected().at_level_3();
        machine.set_gate(0x40, CODE32, USER_GATE);
        machine.set_quad(TSS + 4, u64::from(selector) << 32 | INNER_STACK);

        assert_eq!(machine.run(INT), Err(exception));
    }
}

#[test]
fn task_gate_is_refused() {
    let mut machine = Machine::protected();
    machine.set_gate(0x40, TASK, 0x8500);

    assert_eq!(machine.run(INT), Err(Exception::protection(0x202)));
}

#[test]
fn interrupt_in_real_mode_goes_through_the_vector_table_and_back() {
    let mut machine = Machine::real();
    machine.set_quad(0x40 * 4, 0x0123_4567);
    machine.cpu.rflags = 0x202;

    machine.run(INT).unwrap();

    assert_eq!(
        (machine.cpu.segment(SegReg::Cs).base, machine.cpu.rip),
        (0x1230, 0x4567)
    );
    assert_eq!(machine.stack(2), [CODE + 2, 0, 0x202]);
    assert_eq!(machine.cpu.rflags, 2);
    machine.run(IRETD).unwrap();
    assert_eq!(
        (machine.cpu.segment(SegReg::Cs).base, machine.cpu.rip),
        (0, CODE + 2)
    );
    assert_eq!((machine.cpu.rflags, machine.cpu.gpr[Cpu::RSP]), (0x202, STACK));
}

#[test]
fn into_interrupts_only_on_overflow() {
    let mut machine = Machine::protected();
    machine.set_gate(4, CODE32, INTERRUPT_GATE);

    machine.run(&[0xce]).unwrap();
    assert_eq!(machine.cpu.rip, CODE + 1);
    machine.cpu.rflags |= flags::OF;
    machine.run(&[0xce]).unwrap();
    assert_eq!(machine.cpu.rip, HANDLER);
}

#[test]
fn sti_holds_interrupts_off_for_one_instruction_where_they_were_off() {
    let mut machine = Machine::long();

    machine.run(&[0xfb]).unwrap();
    assert!(machine.cpu.events.shadow_sti);
    machine.cpu.events.shadow_sti = false;
    machine.run(&[0xfb]).unwrap();
    assert!(!machine.cpu.events.shadow_sti);
    machine.run(&[0xfa]).unwrap();
    assert_eq!(machine.cpu.rflags & flags::IF, 0);
}

#[test]
fn cli_sti_and_hlt_are_not_for_programs() {
    let mut machine = Machine::long().at_level_3();

    for code in [0xfa, 0xfb, 0xf4] {
        assert_eq!(machine.run(&[code]), Err(Exception::PROTECTION));
    }
    machine.cpu.rflags |= flags::IOPL;
    assert_eq!(machine.run(&[0xfa]), Ok(()));
}
