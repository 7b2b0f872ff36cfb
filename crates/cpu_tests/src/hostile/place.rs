//! Where things lie in a hostile guest: little RAM with holes in it, and few linear addresses where something may be.

/// Guest-physical addresses of the kernel's own memory, the first stretch of RAM.
pub(super) const PML4: u64 = 0x1000;
pub(super) const KERNEL_PDPT: u64 = 0x2000;
pub(super) const KERNEL_DIRECTORY: u64 = 0x3000;
pub(super) const GDT: u64 = 0x4000;
pub(super) const IDT: u64 = 0x5000;
pub(super) const TSS: u64 = 0x6000;
pub(super) const HANDLER: u64 = 0x7000;
/// The handler of 32-bit code, and what takes a program from one mode to another.
pub(super) const NARROW_HANDLER: u64 = 0x7800;
/// What the handler knows: where it writes next, which part comes next, and how many are left.
pub(super) const NEXT_RECORD: u64 = 0x8000;
pub(super) const NEXT_PART: u64 = 0x8008;
pub(super) const PARTS_LEFT: u64 = 0x8010;
/// What IDTR is loaded from, in IA-32e mode and outside.
pub(super) const WIDE_IDTR: u64 = 0x8020;
pub(super) const NARROW_IDTR: u64 = 0x8030;
/// What is loaded for each part.
pub(super) const PARTS: u64 = 0x8100;
pub(super) const RECORDS: u64 = 0x9000;
pub(super) const HANDLER_STACK_TOP: u64 = 0xc000;
/// Where the handler of 64-bit code finds all registers of what it interrupted, and that of 32-bit code puts them.
pub(super) const FRAME: u64 = HANDLER_STACK_TOP - RECORD_LEN;
/// Stacks of 32-bit code: its handler's, that of changes of mode, and that of parts of ring 0.
pub(super) const NARROW_STACK_TOP: u64 = 0xbc00;
pub(super) const SWITCH_STACK_TOP: u64 = 0xba00;
pub(super) const PART_STACK_TOP: u64 = 0xb800;
/// The IDT outside IA-32e mode.
pub(super) const NARROW_IDT: u64 = 0xd000;
/// The roots of the tables of 32-bit paging and of PAE paging.
pub(super) const DIRECTORY: u64 = 0xe000;
pub(super) const POINTERS: u64 = 0xf020;
/// Pages of the kernel's that lie at the same linear address, where programs go from mode to mode.
pub(super) const SAME: std::ops::Range<u64> = GDT..0x1_0000;
/// Page tables that are made up, one stretch for each kind.
pub(super) const TABLES: u64 = 0x1_0000;
pub(super) const NARROW_TABLES: u64 = 0x2_0000;
pub(super) const PAE_TABLES: u64 = 0x2_8000;
pub(super) const TABLES_END: u64 = 0x3_0000;

/// A stretch that a hole follows: pages of data, then pages of code up to the last.
pub(super) const DATA: u64 = 0x4_0000;
pub(super) const DATA_PAGES: usize = 8;
pub(super) const CODE: u64 = 0x4_8000;
pub(super) const CODE_PAGES: usize = 10;
/// A page of RAM alone in a hole.
pub(super) const ALONE: u64 = 0x8_0000;
/// A part of a large page, and of a huge one: the rest of both is a hole.
pub(super) const IN_LARGE: u64 = 0x4020_0000;

/// All RAM, as (guest-physical address, length).
pub(super) const RAM: [(u64, u64); 4] = [
    (0, TABLES_END),
    (DATA, CODE + CODE_PAGES as u64 * PAGE - DATA),
    (ALONE, PAGE),
    (IN_LARGE, 3 * PAGE),
];

/// The kernel's memory again, in the linear address space.
pub(super) const KERNEL: u64 = 0xffff_8000_0000_0000;

pub(super) const PAGE: u64 = 0x1000;
/// Runs of linear pages that tables are made up for, as (first page, number): neighbours, others that share their
/// slots in a small TLB, the ends of both halves of the address space, and 4 GiB.
pub(super) const RUNS: [(u64, usize); 6] = [
    (0x40_0000, 8),
    (0x50_0000, 8),
    (0xffff_e000, 4),
    (0x7fff_ffff_e000, 2),
    (0xffff_ffff_ffff_e000, 2),
    (0, 2),
];
/// Where code of each part begins: so many pages for one.
pub(super) const CODE_LINEAR: u64 = 0x80_0000;
pub(super) const CODE_STRIDE: u64 = 3 * PAGE;
/// A large page and a huge one.
pub(super) const LARGE: u64 = 0xa0_0000;
pub(super) const HUGE: u64 = 0x4000_0000;

/// Parts of a program, each of which ends with an exception.
pub(super) const MOST_PARTS: usize = 8;
/// Bytes of a record: CR2, general registers, vector, error code, and what the processor pushed.
pub(super) const RECORD_LEN: u64 = 24 * 8;
/// A write to this port ends the program.
pub(super) const END_PORT: u16 = 0xf4;

pub(super) const USER_CS: u16 = 0x33;
pub(super) const USER_SS: u16 = 0x2b;
pub(super) const KERNEL_CS: u16 = 0x10;
pub(super) const KERNEL_SS: u16 = 0x18;
pub(super) const TSS_SELECTOR: u16 = 0x40;
/// Flat 32-bit code of ring 0, and flat data of ring 1.
pub(super) const KERNEL_CS32: u16 = 0x50;
pub(super) const RING1_SS: u16 = 0x59;
/// Code and data of each part.
pub(super) const PART_SEGMENTS: u16 = 0x60;
/// Descriptors of which nothing is known.
pub(super) const ODD_SEGMENTS: u16 = PART_SEGMENTS + MOST_PARTS as u16 * 16;
pub(super) const ODD_COUNT: u16 = 16;
pub(super) const GDT_LIMIT: u16 = ODD_SEGMENTS + ODD_COUNT * 8 - 1;
