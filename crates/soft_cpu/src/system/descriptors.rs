//! Descriptors, and the tables they are in (Intel SDM vol. 3, 3.4 and 3.5).

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

use crate::cpu::{Cpu, SegReg, TlbSet};
use crate::exception::Exception;
use crate::exec::Exec;
use crate::memory::is_canonical;

/// Requested privilege level, and the bit that says that a selector names an entry of the LDT.
pub(super) const RPL: u16 = 3;
const LOCAL: u16 = 4;
/// Bits 8 to 12 of the last doubleword of a 16-byte descriptor, where an eight-byte one has its type.
const UPPER_TYPE: u64 = 0x1f << 8;

/// Types of system descriptors (Intel SDM vol. 3, table 3-2).
pub(super) mod kind {
    pub(crate) const TSS16: u32 = 1;
    pub(crate) const LDT: u32 = 2;
    pub(crate) const TSS16_BUSY: u32 = 3;
    pub(crate) const CALL_GATE16: u32 = 4;
    pub(crate) const TASK_GATE: u32 = 5;
    pub(crate) const INTERRUPT_GATE16: u32 = 6;
    pub(crate) const TRAP_GATE16: u32 = 7;
    pub(crate) const TSS: u32 = 9;
    pub(crate) const TSS_BUSY: u32 = 11;
    pub(crate) const CALL_GATE: u32 = 12;
    pub(crate) const INTERRUPT_GATE: u32 = 14;
    pub(crate) const TRAP_GATE: u32 = 15;
}

/// What #GP, #NP, #SS or #TS about a selector say: the selector without its RPL.
pub(super) fn code_of(selector: u16) -> u32 {
    u32::from(selector & !RPL)
}

/// Whether a selector names no descriptor.
pub(super) fn is_null(selector: u16) -> bool {
    selector & !RPL == 0
}

/// The eight bytes of a descriptor, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) bits: u64,
    pub(super) address: u64,
}

impl Descriptor {
    pub(super) fn attributes(self) -> A {
        A::from_bits_retain((self.bits >> 40) as u32 & 0xf0ff)
    }

    /// The privilege level.
    pub(super) fn dpl(self) -> u8 {
        (self.bits >> 45) as u8 & 3
    }

    pub(super) fn is_present(self) -> bool {
        self.attributes().contains(A::PRESENT)
    }

    /// The type of a system descriptor; `None` for code and data.
    pub(super) fn system(self) -> Option<u32> {
        let attributes = self.attributes();
        (!attributes.contains(A::CODE_OR_DATA)).then(|| (attributes & A::TYPE).bits())
    }

    pub(super) fn is_code(self) -> bool {
        self.attributes().contains(A::CODE_OR_DATA | A::CODE)
    }

    /// Code that runs at its caller's level (type bit 2 of code).
    pub(super) fn is_conforming(self) -> bool {
        self.is_code() && self.attributes().bits() & 4 != 0
    }

    pub(super) fn is_writable_data(self) -> bool {
        let attributes = self.attributes();
        attributes.contains(A::CODE_OR_DATA | A::WRITABLE) && !attributes.contains(A::CODE)
    }

    /// Data, or code that may be read.
    pub(super) fn is_readable(self) -> bool {
        let attributes = self.attributes();
        attributes.contains(A::CODE_OR_DATA)
            && (!attributes.contains(A::CODE) || attributes.contains(A::WRITABLE))
    }

    pub(super) fn limit(self) -> u32 {
        let limit = (self.bits & 0xffff | self.bits >> 32 & 0xf_0000) as u32;
        if self.attributes().contains(A::GRANULAR) {
            limit << 12 | 0xfff
        } else {
            limit
        }
    }

    /// The base address, as far as eight bytes have it.
    pub(super) fn base(self) -> u64 {
        self.bits >> 16 & 0xff_ffff | self.bits >> 32 & 0xff00_0000
    }

    /// A segment register that is loaded from this descriptor with `selector`.
    pub(super) fn segment(self, selector: u16) -> Segment {
        let code_or_data = self.attributes().contains(A::CODE_OR_DATA);
        Segment {
            selector,
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes() | if code_or_data { A::ACCESSED } else { A::empty() },
        }
    }
}

/// A call, interrupt or trap gate (Intel SDM vol. 3, 5.8.3 and 6.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) selector: u16,
    pub(super) offset: u64,
    /// Its type, as a system descriptor's.
    pub(super) kind: u32,
    pub(super) dpl: u8,
    pub(super) present: bool,
    /// Parameters of a call gate, in units of its width; for an interrupt gate of IA-32e mode the entry of the
    /// interrupt stack table.
    pub(super) count: u8,
}

impl Gate {
    /// From its eight bytes, and of a 16-byte gate the upper ones.
    pub(super) fn of(low: u64, high: Option<u64>) -> Self {
        let descriptor = Descriptor {
            bits: low,
            address: 0,
        };
        let kind = (descriptor.attributes() & A::TYPE).bits();
        let offset = low & 0xffff | low >> 32 & 0xffff_0000;
        let narrow = matches!(
            kind,
            kind::CALL_GATE16 | kind::INTERRUPT_GATE16 | kind::TRAP_GATE16
        );
        Self {
            selector: (low >> 16) as u16,
            offset: match high {
                Some(high) => offset | high << 32,
                None if narrow => offset & 0xffff,
                None => offset,
            },
            kind: if descriptor.system().is_some() { kind } else { 0 },
            dpl: descriptor.dpl(),
            present: descriptor.is_present(),
            count: (low >> 32) as u8 & 0x1f,
        }
    }

    /// Whether the handler finds interrupts off.
    pub(super) fn masks_interrupts(&self) -> bool {
        matches!(self.kind, kind::INTERRUPT_GATE | kind::INTERRUPT_GATE16)
    }
}

/// A segment register that holds a null selector. Its base is cleared, as CPUID promises (leaf 0x80000021).
pub(super) fn null_segment(selector: u16) -> Segment {
    Segment {
        selector,
        attributes: A::UNUSABLE,
        ..Segment::default()
    }
}

/// SS without a descriptor, which 64-bit code of level `cpl` may have.
pub(super) fn null_stack(selector: u16, cpl: u8) -> Segment {
    Segment {
        selector,
        attributes: A::UNUSABLE | A::from_bits_retain(u32::from(cpl) << 5),
        ..Segment::default()
    }
}

impl Exec<'_> {
    /// Whether selectors name descriptors: protected mode.
    pub(super) fn protected(&self) -> bool {
        self.cpu.cr0 & crate::cpu::control::CR0_PE != 0
    }

    /// Reads a table of the processor's own: at level 0, whatever the program's (Intel SDM vol. 3, 4.6.1).
    pub(super) fn table_read(&mut self, base: u64, offset: u64, size: usize) -> Result<u64, Exception> {
        let linear = self.table_address(base, offset, size)?;
        self.linear_load(TlbSet::Supervisor, linear, size)
    }

    /// The linear address of a table's entry.
    fn table_address(&self, base: u64, offset: u64, size: usize) -> Result<u64, Exception> {
        let linear = base.wrapping_add(offset);
        if !self.cpu.long_mode() {
            return Ok(linear & 0xffff_ffff);
        }
        if is_canonical(linear) && is_canonical(linear.wrapping_add(size as u64 - 1)) {
            return Ok(linear);
        }
        Err(Exception::PROTECTION)
    }

    /// The descriptor that a selector other than null names; `outside` tells of one beyond its table.
    pub(super) fn descriptor(
        &mut self,
        selector: u16,
        outside: fn(u32) -> Exception,
    ) -> Result<Descriptor, Exception> {
        self.find_descriptor(selector)?
            .ok_or_else(|| outside(code_of(selector)))
    }

    /// The same; `None` where the table ends before it.
    pub(super) fn find_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Exception> {
        let offset = u64::from(selector & !7);
        let Some(base) = self.table_of(selector, offset + 7) else {
            return Ok(None);
        };
        let bits = self.table_read(base, offset, 8)?;
        let address = base.wrapping_add(offset);
        Ok(Some(Descriptor { bits, address }))
    }

    /// The upper half of a 16-byte descriptor of IA-32e mode; `None` where the table ends before it or where it
    /// is that of another descriptor.
    pub(super) fn upper_half(&mut self, selector: u16) -> Result<Option<u64>, Exception> {
        let offset = u64::from(selector & !7) + 8;
        let Some(base) = self.table_of(selector, offset + 7) else {
            return Ok(None);
        };
        let bits = self.table_read(base, offset, 8)?;
        Ok((bits & UPPER_TYPE << 32 == 0).then_some(bits))
    }

    /// The base of the table that `selector` is about, where that reaches to its byte `last`.
    fn table_of(&self, selector: u16, last: u64) -> Option<u64> {
        let cpu = &*self.cpu;
        let (base, limit) = if selector & LOCAL == 0 {
            (cpu.gdtr.base, u64::from(cpu.gdtr.limit))
        } else if cpu.ldtr.attributes.contains(A::UNUSABLE) {
            return None;
        } else {
            (cpu.ldtr.base, u64::from(cpu.ldtr.limit))
        };
        (last <= limit).then_some(base)
    }

    /// Marks the descriptor of a segment that is being loaded as accessed.
    pub(super) fn mark_accessed(&mut self, descriptor: Descriptor) -> Result<(), Exception> {
        const ACCESSED: u64 = 1 << 40;
        if descriptor.bits & ACCESSED != 0 {
            return Ok(());
        }
        self.set_in_descriptor(descriptor, ACCESSED)
    }

    /// Marks the descriptor of a task that is being started as busy.
    pub(super) fn mark_busy(&mut self, descriptor: Descriptor) -> Result<(), Exception> {
        const BUSY: u64 = 1 << 41;
        self.set_in_descriptor(descriptor, BUSY)
    }

    fn set_in_descriptor(&mut self, descriptor: Descriptor, bits: u64) -> Result<(), Exception> {
        let linear = self.table_address(descriptor.address, 0, 8)?;
        self.linear_update(TlbSet::Supervisor, linear, 8, true, |old| old | bits)?;
        Ok(())
    }

    /// Reads from the task state segment; #TS where it ends before.
    pub(super) fn task_read(&mut self, offset: u64, size: usize) -> Result<u64, Exception> {
        let tr = self.cpu.tr;
        if offset + size as u64 - 1 > tr.limit.into() {
            return Err(Exception::invalid_tss(code_of(tr.selector)));
        }
        self.table_read(tr.base, offset, size)
    }

    /// SS and the stack pointer that the task state segment has for level `dpl` (Intel SDM vol. 3, 7.2.1).
    pub(super) fn task_stack(&mut self, dpl: u8) -> Result<(u16, u64), Exception> {
        let wide = (self.cpu.tr.attributes & A::TYPE).bits() & 8 != 0;
        let (first, size) = if wide { (4, 4) } else { (2, 2) };
        let offset = first + u64::from(dpl) * 2 * size;
        let pointer = self.task_read(offset, size as usize)?;
        let selector = self.task_read(offset + size, 2)? as u16;
        Ok((selector, pointer))
    }

    /// The stack pointer that the 64-bit task state segment has for level `dpl`, or in entry `ist` of its
    /// interrupt stack table.
    pub(super) fn task_stack64(&mut self, dpl: u8, ist: u8) -> Result<u64, Exception> {
        let offset = match ist {
            0 => 4 + 8 * u64::from(dpl),
            ist => 28 + 8 * u64::from(ist),
        };
        self.task_read(offset, 8)
    }
}

impl Cpu {
    /// Empties the data segment registers that the code of an outer level may not keep (Intel SDM vol. 2, RET).
    pub(super) fn drop_inner_segments(&mut self, cpl: u8) {
        for register in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            let segment = self.segment(register);
            let dpl = (segment.attributes & A::DPL).bits() >> 5;
            let conforming = segment.attributes.contains(A::CODE) && segment.attributes.bits() & 4 != 0;
            if !is_null(segment.selector) && !conforming && dpl < u32::from(cpl) {
                self.set_segment(register, null_segment(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(bits: u64) -> Descriptor {
        Descriptor { bits, address: 0 }
    }

    #[test]
    fn segment_of_a_flat_descriptor_is_flat() {
        let bits = Segment::flat_code64(8).descriptor();

        assert_eq!(descriptor(bits).segment(8), Segment::flat_code64(8));
    }

    #[test]
    fn segment_counted_in_bytes_keeps_its_limit() {
        let segment = descriptor(0x1242_9256_789a_bcde).segment(0x1b);

        assert_eq!((segment.base, segment.limit), (0x1256_789a, 0x2_bcde));
        assert_eq!(segment.attributes.bits(), 0x4093);
    }

    #[test]
    fn gate_of_64_bits_has_its_offset_in_three_parts() {
        let gate = Gate::of(0x8123_8e02_0010_4567, Some(0xffff_ffff));

        let expected = Gate {
            selector: 0x10,
            offset: 0xffff_ffff_8123_4567,
            kind: kind::INTERRUPT_GATE,
            dpl: 0,
            present: true,
            count: 2,
        };
        assert_eq!(gate, expected);
    }

    #[test]
    fn gate_of_16_bits_ignores_the_upper_offset() {
        assert_eq!(Gate::of(0x8123_8600_0010_4567, None).offset, 0x4567);
    }
}
