//! Where things lie in a hostile guest: little RAM with holes in it, and few linear addresses where something may be.

/// Guest-physical addresses of the kernel's own memory, the first stretch of RAM.
pub(super) const PML4: u64 = 0x1000;
pub(super) const KERNEL_PDPT: u64 = 0x2000;
pub(super) const KERNEL_DIRECTORY: u64 = 0x3000;
pub(super) const GDT: u64 = 0x4000;
pub(super) const IDT: u64 = 0x5000;
pub(super) const TSS: u64 = 0x6000;
pub(super) const HANDLER: u64 = 0x7000;
/// What the handler knows: where it writes next, which part comes next, and how many are left.
pub(super) const NEXT_RECORD: u64 = 0x8000;
pub(super) const NEXT_PART: u64 = 0x8008;
pub(super) const PARTS_LEFT: u64 = 0x8010;
/// What is loaded for each part.
pub(super) const PARTS: u64 = 0x8100;
pub(super) const RECORDS: u64 = 0x9000;
pub(super) const HANDLER_STACK_TOP: u64 = 0xc000;
/// Page tables that are made up.
pub(super) const TABLES: u64 = 0x1_0000;
pub(super) const TABLES_END: u64 = 0x2_0000;

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
