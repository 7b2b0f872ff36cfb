//! General, system and debug registers.

use super::table::{compare_whole, register_group};

register_group! {
    /// The registers every instruction uses (Intel SDM vol. 1, 3.4).
    pub struct GeneralRegisters {
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of instruction encodings.
        1 gpr: [u64; 16],
        /// Instruction pointer.
        2 rip: u64,
        /// Flags; bit 1 is always set.
        3 rflags: u64,
    }
}

/// Indices into [`GeneralRegisters::gpr`]; R8 to R15 have their own numbers.
impl GeneralRegisters {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RBP.
    pub const RBP: usize = 5;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;
}

/// A segment register with its hidden part (Intel SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The selector last loaded.
    pub selector: u16,
    /// First linear address.
    pub base: u64,
    /// Last valid offset in bytes, granularity applied.
    pub limit: u32,
    /// Type, rights and sizes.
    pub attributes: SegmentAttributes,
}

bitflags::bitflags! {
    /// The attribute bits of a descriptor: bits 40 to 55 of it with the limit's bits 48 to 51 left out as
    /// zero (Intel SDM vol. 3, 3.4.5), and [`SegmentAttributes::UNUSABLE`] for a null segment.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SegmentAttributes: u32 {
        /// The four type bits; for a system segment they name its kind.
        const TYPE = 0x000f;
        /// Type bit 0 of a code or data segment: it was loaded.
        const ACCESSED = 0x0001;
        /// Type bit 1: writable data, or readable code.
        const WRITABLE = 0x0002;
        /// Type bit 3: code.
        const CODE = 0x0008;
        /// S: code or data, not a system segment.
        const CODE_OR_DATA = 0x0010;
        /// The two bits of the privilege level.
        const DPL = 0x0060;
        /// P.
        const PRESENT = 0x0080;
        /// AVL.
        const AVAILABLE = 0x1000;
        /// L: 64-bit code.
        const LONG = 0x2000;
        /// D/B: 32-bit operands or stack.
        const BIG = 0x4000;
        /// G: the limit was counted in pages.
        const GRANULAR = 0x8000;
        /// The register holds a null selector: any use faults.
        const UNUSABLE = 0x1_0000;
    }
}

compare_whole!(Segment, TableRegister);

impl Segment {
    const FLAT: u32 = 0xffff_ffff;

    /// A segment as real mode has it: base 16 times the selector, 64 KiB.
    pub fn real_mode(selector: u16, code: bool) -> Self {
        use SegmentAttributes as A;
        let kind = if code { A::CODE } else { A::empty() };
        Self {
            selector,
            base: u64::from(selector) << 4,
            limit: 0xffff,
            attributes: A::PRESENT | A::CODE_OR_DATA | A::WRITABLE | A::ACCESSED | kind,
        }
    }

    /// Flat 64-bit code of privilege level 0.
    pub fn flat_code64(selector: u16) -> Self {
        Self {
            attributes: Self::code_attributes() | SegmentAttributes::LONG,
            ..Self::flat(selector)
        }
    }

    /// Flat 32-bit code of privilege level 0.
    pub fn flat_code32(selector: u16) -> Self {
        Self {
            attributes: Self::code_attributes() | SegmentAttributes::BIG,
            ..Self::flat(selector)
        }
    }

    /// Flat writable data of privilege level 0, for 32-bit and 64-bit code.
    pub fn flat_data(selector: u16) -> Self {
        Self::flat(selector)
    }

    /// A busy 64-bit task state segment (type 11).
    pub fn busy_tss(selector: u16, base: u64, limit: u32) -> Self {
        let attributes = SegmentAttributes::PRESENT | SegmentAttributes::from_bits_retain(11);
        Self {
            selector,
            base,
            limit,
            attributes,
        }
    }

    /// A present local descriptor table (type 2).
    pub fn ldt(selector: u16, base: u64, limit: u32) -> Self {
        let attributes = SegmentAttributes::PRESENT | SegmentAttributes::from_bits_retain(2);
        Self {
            selector,
            base,
            limit,
            attributes,
        }
    }

    /// The descriptor from which a load of this segment would fill the hidden part; bases above 4 GiB and
    /// system segments' upper halves do not fit into it.
    pub fn descriptor(&self) -> u64 {
        let attributes = u64::from(self.attributes.bits() & 0xf0ff);
        let granular = self.attributes.contains(SegmentAttributes::GRANULAR);
        let limit = u64::from(if granular { self.limit >> 12 } else { self.limit });
        let base = self.base;
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | attributes << 40
            | (limit >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56
    }

    fn flat(selector: u16) -> Self {
        use SegmentAttributes as A;
        Self {
            selector,
            base: 0,
            limit: Self::FLAT,
            attributes: A::PRESENT | A::CODE_OR_DATA | A::WRITABLE | A::ACCESSED | A::BIG | A::GRANULAR,
        }
    }

    fn code_attributes() -> SegmentAttributes {
        use SegmentAttributes as A;
        A::PRESENT | A::CODE_OR_DATA | A::CODE | A::WRITABLE | A::ACCESSED | A::GRANULAR
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear address of the first entry.
    pub base: u64,
    /// Last valid offset in bytes.
    pub limit: u16,
}

register_group! {
    /// Segments, descriptor tables and control registers: what only makes sense together, because a CPU
    /// checks them against each other.
    pub struct SystemRegisters {
        /// CS.
        1 cs: Segment,
        /// DS.
        2 ds: Segment,
        /// ES.
        3 es: Segment,
        /// FS.
        4 fs: Segment,
        /// GS.
        5 gs: Segment,
        /// SS.
        6 ss: Segment,
        /// Task register.
        7 tr: Segment,
        /// Local descriptor table register.
        8 ldtr: Segment,
        /// Global descriptor table register.
        9 gdtr: TableRegister,
        /// Interrupt descriptor table register.
        10 idtr: TableRegister,
        /// CR0.
        11 cr0: u64,
        /// CR2: the linear address of the last page fault.
        12 cr2: u64,
        /// CR3.
        13 cr3: u64,
        /// CR4.
        14 cr4: u64,
        /// CR8: the local APIC's task priority, bits 7 to 4 of its register.
        15 cr8: u64,
        /// IA32_EFER (0xc0000080).
        16 efer: u64,
        /// IA32_APIC_BASE (0x1b).
        17 apic_base: u64,
    }
}

register_group! {
    /// Debug registers (Intel SDM vol. 3, 18.2).
    pub struct DebugRegisters {
        /// DR0 to DR3: breakpoint addresses.
        1 dr: [u64; 4],
        /// DR6: what happened.
        2 dr6: u64,
        /// DR7: what is watched.
        3 dr7: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_of_flat_segments_is_what_every_boot_loader_writes() {
        assert_eq!(Segment::flat_code64(8).descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!(Segment::flat_code32(8).descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(Segment::flat_data(16).descriptor(), 0x00cf_9300_0000_ffff);
        assert_eq!(
            Segment::busy_tss(24, 0x12_3456, 0x67).descriptor(),
            0x0000_8b12_3456_0067
        );
    }

    #[test]
    fn real_mode_segment_starts_at_sixteen_times_its_selector() {
        let segment = Segment::real_mode(0x1234, true);

        assert_eq!((segment.base, segment.limit), (0x1_2340, 0xffff));
        assert_eq!(segment.attributes.bits(), 0x9b);
    }
}
