//! Control registers and modes.

use crate::cpu::{Cpu, SegReg, TlbSet, control as c, flags};
use crate::exception::Exception;
use crate::system;
use crate::testing::system::*;

use hypervisor::x86_64::Segment;

/// `mov cr0,rax` and its like.
const TO_CR0: &[u8] = &[0x0f, 0x22, 0xc0];
const TO_CR3: &[u8] = &[0x0f, 0x22, 0xd8];
const TO_CR4: &[u8] = &[0x0f, 0x22, 0xe0];
const TO_CR8: &[u8] = &[0x44, 0x0f, 0x22, 0xc0];
const WRMSR: &[u8] = &[0x0f, 0x30];
const EFER: u64 = 0xc000_0080;

fn set(machine: &mut Machine, code: &[u8], value: u64) -> Result<(), Exception> {
    machine.cpu.gpr[Cpu::RAX] = value;
    machine.run(code)
}

/// The same with a value that follows from what there is.
fn change(machine: &mut Machine, code: &[u8], value: impl Fn(&Cpu) -> u64) -> Result<(), Exception> {
    let value = value(&machine.cpu);
    set(machine, code, value)
}

fn set_efer(machine: &mut Machine, value: u64) -> Result<(), Exception> {
    (machine.cpu.gpr[Cpu::RCX], machine.cpu.gpr[Cpu::RDX]) = (EFER, value >> 32);
    set(machine, WRMSR, value & 0xffff_ffff)
}

/// In protected mode, about to switch paging on for long mode; page tables are all zero.
fn before_long_mode() -> Machine {
    let mut machine = Machine::protected();
    change(&mut machine, TO_CR4, |cpu| cpu.cr4 | c::CR4_PAE).unwrap();
    set(&mut machine, TO_CR3, 0x8_0000).unwrap();
    set_efer(&mut machine, c::EFER_LME).unwrap();
    machine
}

#[test]
fn paging_with_lme_activates_long_mode() {
    let mut machine = before_long_mode();
    assert_eq!(machine.cpu.efer, c::EFER_LME);

    change(&mut machine, TO_CR0, |cpu| cpu.cr0 | c::CR0_PG).unwrap();

    assert_eq!(machine.cpu.efer, c::EFER_LME | c::EFER_LMA);
    assert_eq!(machine.cpu.mode.bits, 32);
}

#[test]
fn invlpg_in_compatibility_mode_wraps_its_address_at_4_gib() {
    let mut machine = Machine::long();
    machine.cpu.set_segment(SegReg::Cs, Segment::flat_code32(CODE32));
    machine.cpu.segments[SegReg::Ds as usize].base = 0xffff_f000;
    machine
        .cpu
        .tlb
        .fill(TlbSet::User, 0x20_5000, 0x5000, 0x7000, true, false);
    machine.cpu.tlb.note_large_page(0x20_0000, 21);
    machine.cpu.gpr[Cpu::RAX] = 0x20_a000;

    // invlpg [eax]
    machine.run(&[0x0f, 0x01, 0x38]).unwrap();

    assert_eq!(machine.cpu.tlb.find_read(TlbSet::User, 0x20_5000), None);
}

#[test]
fn paging_with_lme_and_without_pae_is_a_protection_fault() {
    let mut machine = before_long_mode();
    machine.cpu.cr4 &= !c::CR4_PAE;

    assert_eq!(
        change(&mut machine, TO_CR0, |cpu| cpu.cr0 | c::CR0_PG),
        Err(Exception::PROTECTION)
    );
}

#[test]
fn long_mode_holds_lme_and_pae() {
    let mut machine = Machine::long();
    machine.cpu.cr0 |= c::CR0_PG;
    machine.cpu.tlb.fill_code(TlbSet::Supervisor, CODE, CODE, false);

    assert_eq!(set_efer(&mut machine, 0), Err(Exception::PROTECTION));
    assert_eq!(
        change(&mut machine, TO_CR4, |cpu| cpu.cr4 & !c::CR4_PAE),
        Err(Exception::PROTECTION)
    );
    assert_eq!(
        change(&mut machine, TO_CR0, |cpu| cpu.cr0 & !c::CR0_PG),
        Err(Exception::PROTECTION)
    );
}

#[test]
fn cr0_that_cannot_be_is_a_protection_fault() {
    let mut machine = Machine::long();
    for value in [c::CR0_PG, c::CR0_PE | c::CR0_NW, c::CR0_PE | 1 << 32] {
        assert_eq!(set(&mut machine, TO_CR0, value), Err(Exception::PROTECTION));
    }
}

#[test]
fn cr0_has_no_bits_that_do_not_exist() {
    let mut machine = Machine::long();
    set(&mut machine, TO_CR0, 0x1fff_ffc1 & !c::CR0_PG).unwrap();
    assert_eq!(machine.cpu.cr0, c::CR0_PE | c::CR0_ET | c::CR0_WP | c::CR0_AM);
}

#[test]
fn reserved_bits_of_cr3_cr4_cr8_and_efer_are_protection_faults() {
    let mut machine = Machine::long();
    // VME, PCIDE and LA57 are not what this CPU shows.
    for bit in [0, 6, 12, 13, 17, 22, 23, 32] {
        let value = machine.cpu.cr4 | 1 << bit;
        assert_eq!(
            set(&mut machine, TO_CR4, value),
            Err(Exception::PROTECTION),
            "{bit}"
        );
    }
    assert_eq!(set(&mut machine, TO_CR3, 1 << 46), Err(Exception::PROTECTION));
    assert_eq!(set(&mut machine, TO_CR3, 1 << 45), Ok(()));
    assert_eq!(set(&mut machine, TO_CR8, 16), Err(Exception::PROTECTION));
    for bit in [1, 12, 13, 14, 63] {
        assert_eq!(
            set_efer(&mut machine, c::EFER_LME | 1 << bit),
            Err(Exception::PROTECTION),
            "{bit}"
        );
    }
    assert_eq!(set_efer(&mut machine, c::EFER_LME | 1 << 21), Ok(()));
}

#[test]
fn cr8_is_the_task_priority() {
    let mut machine = Machine::long();
    set(&mut machine, TO_CR8, 5).unwrap();
    assert_eq!(machine.cpu.apic.tpr(), 5);
    // `mov rcx,cr8`.
    machine.run(&[0x44, 0x0f, 0x20, 0xc1]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RCX], 5);
}

#[test]
fn control_registers_that_do_not_exist_are_undefined() {
    let mut machine = Machine::long();
    for code in [
        &[0x0f, 0x20, 0xc8][..],
        &[0x0f, 0x22, 0xe8],
        &[0x44, 0x0f, 0x20, 0xc8],
    ] {
        assert_eq!(machine.run(code), Err(Exception::UNDEFINED));
    }
}

#[test]
fn control_registers_are_not_for_programs() {
    let mut machine = Machine::long().at_level_3();
    // `mov rax,cr0`, `mov cr0,rax`, `clts`, `invlpg [rbx]`, `wbinvd`, `lmsw ax`.
    for code in [
        &[0x0f, 0x20, 0xc0][..],
        TO_CR0,
        &[0x0f, 0x06],
        &[0x0f, 0x01, 0x3b],
        &[0x0f, 0x09],
        &[0x0f, 0x01, 0xf0],
    ] {
        assert_eq!(machine.run(code), Err(Exception::PROTECTION));
    }
}

#[test]
fn lmsw_enters_protected_mode_and_never_leaves_it() {
    let mut machine = Machine::protected();
    // `lmsw ax`.
    set(&mut machine, &[0x0f, 0x01, 0xf0], 0xffff_fffa).unwrap();
    assert_eq!(machine.cpu.cr0 & 0xf, c::CR0_PE | c::CR0_MP | c::CR0_TS);
    machine.run(&[0x0f, 0x06]).unwrap();
    assert_eq!(machine.cpu.cr0 & 0xf, c::CR0_PE | c::CR0_MP);
    // `smsw eax`.
    machine.run(&[0x0f, 0x01, 0xe0]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RAX], machine.cpu.cr0);
}

#[test]
fn clac_and_stac_switch_what_the_operating_system_may_reach() {
    let mut machine = Machine::long();
    machine.cpu.cr4 |= c::CR4_SMAP;
    machine.run(&[0x0f, 0x01, 0xcb]).unwrap();
    assert_eq!(machine.cpu.mode.set, TlbSet::SupervisorOpen);
    machine.run(&[0x0f, 0x01, 0xca]).unwrap();
    assert_eq!(
        (machine.cpu.mode.set, machine.cpu.rflags & flags::AC),
        (TlbSet::Supervisor, 0)
    );
    let mut machine = Machine::long().at_level_3();
    assert_eq!(machine.run(&[0x0f, 0x01, 0xcb]), Err(Exception::UNDEFINED));
}

#[test]
fn store_to_cr3_forgets_all_but_global_translations_and_one_to_cr4_all() {
    let mut machine = Machine::long();
    let remember = |machine: &mut Machine| {
        let set = TlbSet::Supervisor;
        machine.cpu.tlb.fill(set, 0x5000, 0x1000, 0x7000, true, false);
        machine.cpu.tlb.fill(set, 0x6000, 0x2000, 0x8000, true, true);
    };
    let known = |machine: &Machine| {
        [0x5000, 0x6000].map(|page| machine.cpu.tlb.find_read(TlbSet::Supervisor, page).is_some())
    };
    remember(&mut machine);
    set(&mut machine, TO_CR3, 0).unwrap();
    assert_eq!(known(&machine), [false, true]);
    remember(&mut machine);
    change(&mut machine, TO_CR4, |cpu| cpu.cr4 | c::CR4_PGE).unwrap();
    assert_eq!(known(&machine), [false, false]);
    remember(&mut machine);
    machine.cpu.gpr[Cpu::RBX] = 0x6123;
    // `invlpg [rbx]`.
    machine.run(&[0x0f, 0x01, 0x3b]).unwrap();
    assert_eq!(known(&machine), [true, false]);
}

#[test]
fn system_registers_come_back_as_they_were_set() {
    let mut machine = Machine::long();
    let mut wanted = system::system_registers(&machine.cpu);
    wanted.fs.base = 0x7fff_1234_5000;
    (wanted.cr2, wanted.cr3, wanted.cr8) = (0x1234, 0x5000, 7);
    wanted.idtr.limit = 0x123;

    system::set_system_registers(&mut machine.cpu, &wanted);

    assert_eq!(system::system_registers(&machine.cpu), wanted);
    assert_eq!(machine.cpu.segment(SegReg::Fs), &wanted.fs);
}
