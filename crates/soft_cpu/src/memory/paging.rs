//! Page tables (Intel SDM vol. 3, chapter 4).

use super::{PAGE_OFFSET, PAGE_SIZE};
use crate::cpu::{TlbSet, control};
use crate::exception::Exception;
use crate::exec::Exec;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

/// Bits of every paging-structure entry (Intel SDM vol. 3, 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits of a page fault's error code (Intel SDM vol. 3, 4.7).
const FAULT_PRESENT: u32 = 1 << 0;
const FAULT_WRITE: u32 = 1 << 1;
const FAULT_USER: u32 = 1 << 2;
const FAULT_RESERVED: u32 = 1 << 3;
const FAULT_FETCH: u32 = 1 << 4;

/// Width of physical addresses, as CPUID leaf 0x80000008 says.
pub(crate) const PHYSICAL_BITS: u32 = 46;
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !PAGE_OFFSET;
/// Bits 51 to the width of physical addresses are reserved; in PAE tables those above as well, up to the last but one.
const TOO_HIGH: u64 = ((1 << 52) - 1) & !((1 << PHYSICAL_BITS) - 1);
const ABOVE_PAE: u64 = !NO_EXECUTE & !((1 << 52) - 1);
/// CR3 has 32 bits where tables are not those of IA-32e mode (Intel SDM vol. 3, tables 4-3 and 4-7).
const NARROW_ROOT: u64 = 0xffff_ffff;

/// Where a page is, and what may be remembered about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translation {
    pub(super) gpa: u64,
    /// Stores may go there as well, and the page is marked dirty.
    pub(super) writable: bool,
    pub(super) global: bool,
    /// The logarithm of its size.
    pub(super) shift: u8,
}

/// One kind of tables: levels from the root down as (lowest bit of the index, bits of the index), and the size
/// of an entry.
struct Format {
    levels: &'static [(u32, u32)],
    entry: u64,
}

const FOUR_LEVEL: Format = Format {
    levels: &[(39, 9), (30, 9), (21, 9), (12, 9)],
    entry: 8,
};
const PAE: Format = Format {
    levels: &[(30, 2), (21, 9), (12, 9)],
    entry: 8,
};
const LEGACY: Format = Format {
    levels: &[(22, 10), (12, 10)],
    entry: 4,
};

/// The rights of one walk, gathered from the root down.
struct Rights {
    writable: bool,
    user: bool,
    executable: bool,
}

impl Exec<'_> {
    /// Walks the page tables for one access.
    pub(super) fn walk(
        &mut self,
        set: TlbSet,
        linear: u64,
        access: Access,
    ) -> Result<Translation, Exception> {
        if self.cpu.cr0 & control::CR0_PG == 0 {
            return Ok(Translation {
                gpa: linear & 0xffff_ffff,
                writable: true,
                global: false,
                shift: 12,
            });
        }
        self.walk_tables(self.format(), set, linear, access)
    }

    fn walk_tables(
        &mut self,
        format: &Format,
        set: TlbSet,
        linear: u64,
        access: Access,
    ) -> Result<Translation, Exception> {
        let fault = |exec: &Self, code| Err(self::fault(exec, set, linear, access, code));
        let mut table = self.root(format);
        let mut rights = Rights {
            writable: true,
            user: true,
            executable: true,
        };
        for (level, &(shift, bits)) in format.levels.iter().enumerate() {
            let at = table + (linear >> shift & ((1 << bits) - 1)) * format.entry;
            let Some(entry) = self.memory.ram().load(at, format.entry as usize) else {
                return fault(self, 0);
            };
            if entry & PRESENT == 0 {
                return fault(self, 0);
            }
            // The four entries at the root of PAE tables have neither rights nor marks.
            let directory_pointer = format.levels.len() == 3 && level == 0;
            let last = level + 1 == format.levels.len();
            let large = !last && entry & LARGE != 0 && self.large_pages(format, level);
            if self.reserved(format, entry, level, large, directory_pointer) {
                return fault(self, FAULT_PRESENT | FAULT_RESERVED);
            }
            if !directory_pointer {
                rights.writable &= entry & WRITABLE != 0;
                rights.user &= entry & USER != 0;
                rights.executable &= entry & NO_EXECUTE == 0 || self.cpu.efer & control::EFER_NXE == 0;
            }
            if !last && !large {
                if !directory_pointer {
                    self.mark(at, format.entry, entry, ACCESSED);
                }
                table = next_table(format, entry);
                continue;
            }
            if !allowed(self, set, access, &rights) {
                return fault(self, FAULT_PRESENT);
            }
            let dirty = access == Access::Write;
            self.mark(at, format.entry, entry, ACCESSED | if dirty { DIRTY } else { 0 });
            let offset = (1_u64 << shift) - 1;
            let base = frame(format, entry, large) & !offset;
            return Ok(Translation {
                gpa: base | linear & offset,
                writable: (dirty || entry & DIRTY != 0) && allowed(self, set, Access::Write, &rights),
                global: entry & GLOBAL != 0 && self.cpu.cr4 & control::CR4_PGE != 0,
                shift: shift as u8,
            });
        }
        fault(self, 0)
    }

    /// Where `linear` is in physical memory, whoever may access it; looking changes nothing.
    pub(crate) fn look_up(&self, linear: u64) -> Option<u64> {
        if self.cpu.cr0 & control::CR0_PG == 0 {
            return Some(linear & 0xffff_ffff);
        }
        let format = self.format();
        let mut table = self.root(format);
        for (level, &(shift, bits)) in format.levels.iter().enumerate() {
            let at = table + (linear >> shift & ((1 << bits) - 1)) * format.entry;
            let entry = self.memory.ram().load(at, format.entry as usize)?;
            if entry & PRESENT == 0 {
                return None;
            }
            let last = level + 1 == format.levels.len();
            let large = !last && entry & LARGE != 0 && self.large_pages(format, level);
            if last || large {
                let offset = (1_u64 << shift) - 1;
                return Some(frame(format, entry, large) & !offset | linear & offset);
            }
            table = next_table(format, entry);
        }
        None
    }

    fn format(&self) -> &'static Format {
        match (self.cpu.long_mode(), self.cpu.cr4 & control::CR4_PAE != 0) {
            (true, _) => &FOUR_LEVEL,
            (false, true) => &PAE,
            (false, false) => &LEGACY,
        }
    }

    /// Where the first table is. PAE's four pointers are looked at in each walk, not when CR3 is loaded: that is how
    /// AMD's processors have it for guests (AMD APM vol. 2, 15.25.10), so a bad pointer is a page fault.
    fn root(&self, format: &Format) -> u64 {
        match format.levels.len() {
            4 => self.cpu.cr3 & ADDRESS,
            3 => self.cpu.cr3 & NARROW_ROOT & !0x1f,
            _ => self.cpu.cr3 & NARROW_ROOT & ADDRESS,
        }
    }

    /// Whether an entry of this level can be a page of its own.
    fn large_pages(&self, format: &Format, level: usize) -> bool {
        match format.levels.len() {
            4 => level == 1 || level == 2,
            3 => level == 1,
            _ => self.cpu.cr4 & control::CR4_PSE != 0,
        }
    }

    fn reserved(&self, format: &Format, entry: u64, level: usize, large: bool, pointer: bool) -> bool {
        if format.entry == 4 {
            // A 4 MiB page above 4 GiB has its high address in bits 20 to 13 (PSE-36); bit 21 is reserved.
            return large && entry & 1 << 21 != 0;
        }
        let no_execute = entry & NO_EXECUTE != 0 && (self.cpu.efer & control::EFER_NXE == 0 || pointer);
        let shift = format.levels[level].0;
        let misplaced = large && entry & ((1 << shift) - 1) & !0x1fff != 0;
        // The root has no pages of its own: the bit is reserved there.
        let large_root = format.levels.len() == 4 && level == 0 && entry & LARGE != 0;
        let pointer_bits = pointer && entry & 0x1e6 != 0;
        let above = format.levels.len() == 3 && entry & ABOVE_PAE != 0;
        entry & TOO_HIGH != 0 || above || no_execute || misplaced || large_root || pointer_bits
    }

    /// Sets bits in an entry that others may change at the same moment. It is a store as any other: code may lie
    /// there.
    fn mark(&mut self, at: u64, size: u64, entry: u64, bits: u64) {
        let mut entry = entry;
        if entry & bits == bits {
            return;
        }
        while entry & bits != bits {
            match self
                .memory
                .ram()
                .compare_exchange(at, size as usize, entry, entry | bits)
            {
                Some(Err(now)) if now & PRESENT != 0 => entry = now,
                _ => break,
            }
        }
        self.note_store(at, size);
    }
}

/// The physical address in an entry that leads to another table.
fn next_table(format: &Format, entry: u64) -> u64 {
    entry & if format.entry == 4 { 0xffff_f000 } else { ADDRESS }
}

/// The physical address in an entry that maps a page.
fn frame(format: &Format, entry: u64, large: bool) -> u64 {
    match (format.entry, large) {
        (4, true) => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
        (4, false) => entry & 0xffff_f000,
        _ => entry & ADDRESS,
    }
}

/// The rules of Intel SDM vol. 3, 4.6.1.
fn allowed(exec: &Exec<'_>, set: TlbSet, access: Access, rights: &Rights) -> bool {
    let cpu = &*exec.cpu;
    if set == TlbSet::User {
        return rights.user
            && match access {
                Access::Read => true,
                Access::Write => rights.writable,
                Access::Fetch => rights.executable,
            };
    }
    let smap = cpu.cr4 & control::CR4_SMAP != 0 && set == TlbSet::Supervisor;
    match access {
        Access::Read => !(rights.user && smap),
        Access::Write => !(rights.user && smap) && (rights.writable || cpu.cr0 & control::CR0_WP == 0),
        Access::Fetch => rights.executable && !(rights.user && cpu.cr4 & control::CR4_SMEP != 0),
    }
}

fn fault(exec: &Exec<'_>, set: TlbSet, linear: u64, access: Access, code: u32) -> Exception {
    let cpu = &*exec.cpu;
    let tells_fetches = cpu.efer & control::EFER_NXE != 0 || cpu.cr4 & control::CR4_SMEP != 0;
    let what = match access {
        Access::Read => 0,
        Access::Write => FAULT_WRITE,
        Access::Fetch if tells_fetches => FAULT_FETCH,
        Access::Fetch => 0,
    };
    Exception::page_fault(
        linear,
        code | what | if set == TlbSet::User { FAULT_USER } else { 0 },
    )
}

/// Whether an address of 64-bit mode has all its upper bits alike (Intel SDM vol. 1, 3.3.7.1).
pub(crate) fn is_canonical(linear: u64) -> bool {
    ((linear as i64) << 16 >> 16) as u64 == linear
}

const _: () = assert!(PAGE_SIZE == 1 << 12);
