//! Model-specific registers, CPUID, the time.

use hypervisor::x86_64::msr::{self, Msrs};

use crate::cpu::{Cpu, SegReg, control};
use crate::exception::Exception;
use crate::system;
use crate::testing::system::*;

const RDMSR: &[u8] = &[0x0f, 0x32];
const WRMSR: &[u8] = &[0x0f, 0x30];
const CPUID: &[u8] = &[0x0f, 0xa2];

fn read(machine: &mut Machine, index: u32) -> Result<u64, Exception> {
    machine.cpu.gpr[Cpu::RCX] = index.into();
    machine.run(RDMSR)?;
    Ok(machine.cpu.gpr[Cpu::RAX] | machine.cpu.gpr[Cpu::RDX] << 32)
}

fn write(machine: &mut Machine, index: u32, value: u64) -> Result<(), Exception> {
    machine.cpu.gpr[Cpu::RCX] = index.into();
    (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RDX]) = (value & 0xffff_ffff, value >> 32);
    machine.run(WRMSR)
}

/// EAX, EBX, ECX, EDX.
fn cpuid(machine: &mut Machine, leaf: u64, subleaf: u64) -> [u64; 4] {
    (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RCX]) = (leaf, subleaf);
    machine.run(CPUID).unwrap();
    [Cpu::RAX, Cpu::RBX, Cpu::RCX, Cpu::RDX].map(|register| machine.cpu.gpr[register])
}

#[test]
fn what_is_written_is_read_back() {
    let mut machine = Machine::long();
    let values = [
        (msr::PAT, 0x0100_0605_0407_0006),
        (msr::STAR, 0x0023_0010_1234_5678),
        (msr::LSTAR, 0xffff_ffff_8180_0000),
        (msr::KERNEL_GS_BASE, 0x7f12_3456_7000),
        (0xc000_0100, 0xffff_8800_0000_1000),
        (0xc000_0101, 0x1234_5678_9000),
        (0xc000_0103, 0x1234),
        (0x174, 0x10),
        (0x175, 0xffff_fe00_0000_2000),
        (msr::MTRR_DEF_TYPE, 0xc06),
        (0x201, 0x3f80_0000_0800),
        (0x26f, 0x0505_0505_0505_0505),
    ];
    for (index, value) in values {
        assert_eq!(write(&mut machine, index, value), Ok(()), "{index:#x}");
        assert_eq!(read(&mut machine, index), Ok(value), "{index:#x}");
    }
    assert_eq!(machine.cpu.segment(SegReg::Gs).base, 0x1234_5678_9000);
}

#[test]
fn values_that_cannot_be_are_protection_faults() {
    let mut machine = Machine::long();
    let values = [
        (msr::PAT, 2),
        (msr::LSTAR, 0x8000_0000_0000),
        (0xc000_0100, 0x8000_0000_0000),
        (msr::KERNEL_GS_BASE, 1 << 63),
        (0xc000_0103, 1 << 32),
        (0x200, 7),
        (0x201, 1 << 46),
        (0x250, 2),
        (msr::MTRR_DEF_TYPE, 0x100),
        (0xfe, 0),
        (0x1234_5678, 0),
        // Announced to nobody: speculation control, asynchronous page faults.
        (0x48, 0),
        (0x4b56_4d02, 0),
        (0x179, 0),
    ];
    for (index, value) in values {
        assert_eq!(
            write(&mut machine, index, value),
            Err(Exception::PROTECTION),
            "{index:#x}"
        );
    }
}

#[test]
fn registers_that_do_not_exist_are_protection_faults() {
    let mut machine = Machine::long();
    for index in [0x48, 0x179, 0x400, 0x1234_5678, 0x4b56_4d04, 0xc000_0104] {
        assert_eq!(
            read(&mut machine, index),
            Err(Exception::PROTECTION),
            "{index:#x}"
        );
    }
    let mut machine = Machine::long().at_level_3();
    assert_eq!(read(&mut machine, msr::STAR), Err(Exception::PROTECTION));
}

#[test]
fn state_msrs_come_back_as_they_were_set() {
    let mut machine = Machine::long();
    let mut wanted = system::msrs(&machine.cpu);
    assert!(wanted.keys().all(|index| msr::STATE_MSRS.contains(index)));
    wanted.insert(msr::STAR, 0x0023_0010_0000_0000);
    wanted.insert(0x4b56_4d01, DATA | 1);
    wanted.insert(0x12, DATA | 1);
    wanted.insert(msr::TSC_ADJUST, 0x55);

    system::set_msrs(&mut machine.cpu, &wanted).unwrap();

    assert_eq!(system::msrs(&machine.cpu), wanted);
}

#[test]
fn state_msrs_of_another_cpu_are_refused_where_they_mean_something() {
    let mut machine = Machine::long();
    let before = system::msrs(&machine.cpu);
    assert!(system::set_msrs(&mut machine.cpu, &Msrs::from([(0xda0, 0)])).is_ok());
    assert!(system::set_msrs(&mut machine.cpu, &Msrs::from([(msr::STAR, 1), (0xda0, 1)])).is_err());
    assert_eq!(system::msrs(&machine.cpu), before);
}

#[test]
fn store_to_the_time_stamp_counter_shows_in_its_adjustment() {
    let mut machine = Machine::long();
    write(&mut machine, msr::TSC, 1 << 50).unwrap();
    let now = read(&mut machine, msr::TSC).unwrap();
    let adjust = read(&mut machine, msr::TSC_ADJUST).unwrap();
    assert_eq!((now >> 49, adjust >> 49), (2, 1));
    write(&mut machine, msr::TSC_ADJUST, 0).unwrap();
    assert!(read(&mut machine, msr::TSC).unwrap() < 1 << 49);
}

/// The clock as the guest reads it at `ticks`: version, then time.
fn clock(machine: &Machine, ticks: u64) -> (u64, u64) {
    let (version, stamp) = (machine.number(DATA, 4), machine.number(DATA + 8, 8));
    let (time, scale) = (machine.number(DATA + 16, 8), machine.number(DATA + 24, 4));
    let delta = ticks.wrapping_sub(stamp) << machine.number(DATA + 28, 1);
    (
        version,
        time.wrapping_add(((u128::from(delta) * u128::from(scale)) >> 32) as u64),
    )
}

#[test]
fn paravirtual_clock_counts_nanoseconds_whatever_the_guest_does_to_its_counter() {
    let mut machine = Machine::long();
    write(&mut machine, 0x4b56_4d01, DATA | 1).unwrap();
    assert_eq!(clock(&machine, 123_456_789), (2, 123_456_789));
    assert_eq!(machine.number(DATA + 29, 1), 1);

    write(&mut machine, msr::TSC_ADJUST, 1 << 40).unwrap();

    assert_eq!(clock(&machine, (1 << 40) + 123_456_789), (4, 123_456_789));
}

#[test]
fn paravirtual_clock_is_written_anew_after_its_register_was_set_from_outside() {
    let mut machine = Machine::long();
    system::set_msrs(&mut machine.cpu, &Msrs::from([(0x4b56_4d01, DATA | 1)])).unwrap();
    assert_eq!(clock(&machine, 0).0, 0);
    machine.exec().refresh_clock();
    machine.exec().refresh_clock();
    assert_eq!(clock(&machine, 5), (2, 5));
}

#[test]
fn paravirtual_clock_outside_ram_is_lost_and_harms_nobody() {
    let mut machine = Machine::long();
    for address in [u64::MAX, 0xf_fff8 | 1, 1 << 60 | 1] {
        assert_eq!(write(&mut machine, 0x4b56_4d01, address), Ok(()));
    }
}

#[test]
fn wall_clock_says_when_the_counter_was_zero() {
    let mut machine = Machine::long();
    write(&mut machine, 0x4b56_4d00, DATA).unwrap();
    let unix = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seconds = machine.number(DATA + 4, 4);
    assert_eq!(machine.number(DATA, 4), 2);
    assert!(seconds <= unix && unix - seconds < 1000);
    assert!(machine.number(DATA + 8, 4) < 1_000_000_000);
}

#[test]
fn cpuid_osxsave_mirrors_cr4() {
    let mut machine = Machine::long();
    assert_ne!(cpuid(&mut machine, 1, 0)[2] & 1 << 27, 0);
    machine.cpu.cr4 &= !control::CR4_OSXSAVE;
    assert_eq!(cpuid(&mut machine, 1, 0)[2] & 1 << 27, 0);
}

#[test]
fn cpuid_tells_the_save_areas_size_for_what_is_enabled() {
    let mut machine = Machine::long();
    for (xcr0, size) in [(1, 576), (3, 576), (7, 832)] {
        machine.cpu.xcr0 = xcr0;
        assert_eq!(cpuid(&mut machine, 0xd, 0)[1..3], [size, 832]);
        assert_eq!(cpuid(&mut machine, 0xd, 1)[1], size);
    }
}

#[test]
fn cpuid_of_leaves_that_do_not_exist_is_zero() {
    let mut machine = Machine::long();
    for (leaf, subleaf) in [(7, 1), (0xd, 5), (0x1000, 0), (0x4000_0100, 0), (0x8fff_ffff, 0)] {
        assert_eq!(cpuid(&mut machine, leaf, subleaf), [0; 4]);
    }
}

#[test]
fn time_is_kept_from_programs_where_cr4_says_so() {
    let mut machine = Machine::long().at_level_3();
    // `rdtsc`, `rdtscp`.
    let codes: [&[u8]; 2] = [&[0x0f, 0x31], &[0x0f, 0x01, 0xf9]];
    assert_eq!(codes.map(|code| machine.run(code)), [Ok(()); 2]);
    machine.cpu.cr4 |= control::CR4_TSD;
    assert_eq!(
        codes.map(|code| machine.run(code)),
        [Err(Exception::PROTECTION); 2]
    );
}

#[test]
fn rdtscp_and_rdpid_tell_the_processors_number() {
    let mut machine = Machine::long();
    write(&mut machine, 0xc000_0103, 7).unwrap();
    machine.run(&[0x0f, 0x01, 0xf9]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RCX], 7);
    // `rdpid rbx`.
    machine.run(&[0xf3, 0x0f, 0xc7, 0xfb]).unwrap();
    assert_eq!(machine.cpu.gpr[Cpu::RBX], 7);
}

#[test]
fn hypercalls_are_answered_with_an_error() {
    let mut machine = Machine::long();
    // `vmmcall`, `vmcall`.
    for code in [[0x0f, 0x01, 0xd9], [0x0f, 0x01, 0xc1]] {
        machine.run(&code).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RAX], -1000_i64 as u64);
    }
}
