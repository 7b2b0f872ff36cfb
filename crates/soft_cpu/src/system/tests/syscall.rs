//! Fast system calls and segment bases.

use hypervisor::x86_64::Segment;

use crate::cpu::{Cpu, SegReg, control, flags};
use crate::exception::Exception;
use crate::testing::system::*;

const SYSCALL: &[u8] = &[0x0f, 0x05];
const SYSRETQ: &[u8] = &[0x48, 0x0f, 0x07];
const SYSRETL: &[u8] = &[0x0f, 0x07];
const SYSENTER: &[u8] = &[0x0f, 0x34];
const SYSEXIT: &[u8] = &[0x0f, 0x35];
/// Kernel code at 8, user code at 0x20 and what follows.
const STAR: u64 = 0x0020_0008_0000_9000;
const ENTRY: u64 = 0x9100;
const ENTRY32: u64 = 0x9200;
const R11: usize = 11;

fn with_calls(mut machine: Machine) -> Machine {
    machine.cpu.efer |= control::EFER_SCE;
    let msrs = &mut machine.cpu.msrs;
    (msrs.star, msrs.lstar, msrs.cstar, msrs.fmask) = (STAR, ENTRY, ENTRY32, 0x4_7700);
    machine
}

#[test]
fn syscall_then_sysret_gives_everything_back() {
    let mut machine = with_calls(Machine::long().at_level_3());
    machine.cpu.rflags |= flags::DF | flags::CF;
    let before = (machine.cpu.segments, machine.cpu.rflags);

    machine.run(SYSCALL).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, ENTRY, 0));
    assert_eq!(machine.cpu.segment(SegReg::Ss), &Segment::flat_data(FLAT));
    assert_eq!(machine.cpu.rflags, 3);
    assert_eq!(
        (machine.cpu.gpr[Cpu::RCX], machine.cpu.gpr[R11]),
        (CODE + 2, 0x603)
    );
    machine.run(SYSRETQ).unwrap();
    assert_eq!(machine.place_and_level(), (USER_CODE64, CODE + 2, 3));
    assert_eq!((machine.cpu.segments, machine.cpu.rflags), before);
}

#[test]
fn syscall_from_compatibility_mode_has_an_entry_of_its_own() {
    let mut machine = with_calls(Machine::long().at_level_3());
    machine
        .cpu
        .set_segment(SegReg::Cs, user(Segment::flat_code32(USER_CODE32)));

    machine.run(SYSCALL).unwrap();

    assert_eq!(machine.place_and_level(), (CODE64, ENTRY32, 0));
    assert_eq!(machine.cpu.mode.bits, 64);
    machine.run(SYSRETL).unwrap();
    assert_eq!(machine.place_and_level(), (USER_CODE32, CODE + 2, 3));
    assert_eq!(machine.cpu.mode.bits, 32);
}

#[test]
fn syscall_in_protected_mode_goes_where_star_says() {
    let mut machine = with_calls(Machine::protected().at_level_3());

    machine.run(SYSCALL).unwrap();

    assert_eq!(
        (machine.cpu.rip, machine.cpu.cpl(), machine.cpu.mode.bits),
        (0x9000, 0, 32)
    );
    assert_eq!(machine.cpu.gpr[Cpu::RCX], CODE + 2);
    machine.run(SYSRETL).unwrap();
    assert_eq!(machine.place_and_level(), (USER_CODE32, CODE + 2, 3));
}

#[test]
fn syscall_and_sysret_without_sce_are_undefined() {
    assert_eq!(Machine::long().run(SYSCALL), Err(Exception::UNDEFINED));
    assert_eq!(Machine::long().run(SYSRETQ), Err(Exception::UNDEFINED));
}

#[test]
fn sysret_is_not_for_programs() {
    let mut machine = with_calls(Machine::long().at_level_3());
    assert_eq!(machine.run(SYSRETQ), Err(Exception::PROTECTION));
}

/// As AMD's processors have it: the program faults, not the operating system.
#[test]
fn sysret_to_an_address_that_is_not_canonical_faults_at_level_3() {
    let mut machine = with_calls(Machine::long());
    machine.cpu.gpr[Cpu::RCX] = 0x8000_0000_0000;
    machine.run(SYSRETQ).unwrap();
    assert_eq!(machine.cpu.cpl(), 3);
    assert_eq!(machine.exec().run_instruction(), Err(Exception::PROTECTION));
}

#[test]
fn sysenter_and_sysexit_exist_in_protected_mode_alone() {
    let mut machine = Machine::protected().at_level_3();
    assert_eq!(machine.run(SYSENTER), Err(Exception::PROTECTION));
    let msrs = &mut machine.cpu.msrs;
    (msrs.sysenter_cs, msrs.sysenter_eip, msrs.sysenter_esp) = (CODE32.into(), ENTRY, INNER_STACK);
    machine.run(SYSENTER).unwrap();
    assert_eq!(machine.place_and_level(), (CODE32, ENTRY, 0));
    assert_eq!((machine.cpu.gpr[Cpu::RSP], machine.cpu.rflags), (INNER_STACK, 2));
    (machine.cpu.gpr[Cpu::RDX], machine.cpu.gpr[Cpu::RCX]) = (CODE, STACK);
    machine.run(SYSEXIT).unwrap();
    assert_eq!(
        (machine.place_and_level(), machine.cpu.gpr[Cpu::RSP]),
        ((0x2b, CODE, 3), STACK)
    );

    assert_eq!(Machine::long().run(SYSENTER), Err(Exception::UNDEFINED));
    assert_eq!(Machine::long().run(SYSEXIT), Err(Exception::UNDEFINED));
}

#[test]
fn swapgs_exchanges_bases_for_the_operating_system() {
    let mut machine = Machine::long();
    machine.cpu.msrs.kernel_gs_base = 0x1234;
    machine.cpu.segments[SegReg::Gs as usize].base = 0x5678;
    machine.run(&[0x0f, 0x01, 0xf8]).unwrap();
    assert_eq!(machine.cpu.segment(SegReg::Gs).base, 0x1234);
    assert_eq!(machine.cpu.msrs.kernel_gs_base, 0x5678);
    let mut machine = Machine::long().at_level_3();
    assert_eq!(machine.run(&[0x0f, 0x01, 0xf8]), Err(Exception::PROTECTION));
}

#[test]
fn base_instructions_work_where_cr4_says_so() {
    let mut machine = Machine::long().at_level_3();
    // `wrfsbase rax`, `rdfsbase rbx`, `wrgsbase eax`.
    let (wrfsbase, rdfsbase) = ([0xf3, 0x48, 0x0f, 0xae, 0xd0], [0xf3, 0x48, 0x0f, 0xae, 0xc3]);
    assert_eq!(machine.run(&wrfsbase), Err(Exception::UNDEFINED));
    machine.cpu.cr4 |= control::CR4_FSGSBASE;
    machine.cpu.gpr[Cpu::RAX] = 0x7fff_ffff_f000;
    machine.run(&wrfsbase).unwrap();
    machine.run(&rdfsbase).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RBX], 0x7fff_ffff_f000);
    machine.run(&[0xf3, 0x0f, 0xae, 0xd8]).unwrap();
    assert_eq!(machine.cpu.segment(SegReg::Gs).base, 0xffff_f000);
    machine.cpu.gpr[Cpu::RAX] = 0x8000_0000_0000;
    assert_eq!(machine.run(&wrfsbase), Err(Exception::PROTECTION));
}
