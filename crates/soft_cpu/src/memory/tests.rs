//! Page tables that say what few do.

use crate::cpu::{SegReg, TlbSet, control};
use crate::exception::Exception;
use crate::testing::system::{CODE32, Machine};

use hypervisor::x86_64::Segment;

/// Where tables lie: a root, and what follows from it.
const ROOT: u64 = 0x2_0000;
const DIRECTORY: u64 = 0x2_1000;
const TABLE: u64 = 0x2_2000;
/// A page of data, where it is in linear addresses.
const LINEAR: u64 = 0x40_5000;
const PAGE: u64 = 0x3_0000;
/// Present, writable, for users.
const ALL: u64 = 7;
/// A page fault's error code: of an entry that is there, with a reserved bit.
const RESERVED: u32 = 9;

/// With PAE tables that map [`LINEAR`] by `entry`.
fn pae(entry: u64) -> Machine {
    let mut machine = Machine::protected();
    machine.set_quad(ROOT, DIRECTORY | 1);
    machine.set_quad(DIRECTORY + (LINEAR >> 21) * 8, TABLE | ALL);
    machine.set_quad(TABLE + (LINEAR >> 12 & 0x1ff) * 8, entry);
    machine.cpu.cr3 = ROOT;
    machine.cpu.cr4 |= control::CR4_PAE;
    machine.cpu.cr0 |= control::CR0_PG;
    machine
}

/// With 32-bit tables that map it.
fn legacy() -> Machine {
    let mut machine = Machine::protected();
    machine.set_quad(ROOT + (LINEAR >> 22) * 4, TABLE | ALL);
    machine.set_quad(TABLE + (LINEAR >> 12 & 0x3ff) * 4, PAGE | ALL);
    machine.cpu.cr3 = ROOT;
    machine.cpu.cr0 |= control::CR0_PG;
    machine
}

fn load(machine: &mut Machine) -> Result<u64, Exception> {
    machine.set_quad(PAGE, 0x1234);
    machine.exec().linear_load(TlbSet::Supervisor, LINEAR, 4)
}

#[test]
fn pae_entry_with_a_bit_that_four_level_tables_ignore_is_reserved() {
    let loaded = [0, 52, 62].map(|bit| load(&mut pae(PAGE | ALL | 1 << bit)));

    let reserved = Exception::page_fault(LINEAR, RESERVED);
    assert_eq!(loaded, [Ok(0x1234), Err(reserved), Err(reserved)]);
}

#[test]
fn cr3_above_4_gib_outside_ia_32e_mode_is_ignored() {
    let mut machines = [pae(PAGE | ALL), legacy()];
    let loaded = machines.each_mut().map(|machine| {
        machine.cpu.cr3 |= 1 << 40;
        load(machine)
    });

    assert_eq!(loaded, [Ok(0x1234), Ok(0x1234)]);
}

#[test]
fn access_over_4_gib_wraps_but_in_64_bit_code() {
    let mut machine = Machine::long();
    let wide = machine.exec().behind(0xffff_fffe, 2);
    machine.cpu.set_segment(SegReg::Cs, Segment::flat_code32(CODE32));
    let compatibility = machine.exec().behind(0xffff_fffe, 2);
    let table = machine.exec().behind(0xffff_8000_ffff_fffe, 2);

    assert_eq!([wide, compatibility, table], [1 << 32, 0, 0xffff_8001_0000_0000]);
}
