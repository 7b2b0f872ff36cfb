//! Loads and stores by segment and offset, with the checks of segmentation (Intel SDM vol. 3, 5.3 and 5.4).

use hypervisor::x86_64::{Segment, SegmentAttributes as A};

use super::paging::{Access, is_canonical};
use crate::cpu::{SegReg, control};
use crate::exception::Exception;
use crate::exec::Exec;

impl Exec<'_> {
    /// The linear address of an access, after all checks but paging's.
    #[inline]
    pub(crate) fn linear(
        &self,
        segment: SegReg,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<u64, Exception> {
        if self.cpu.mode.bits != 64 {
            return self.linear_segmented(segment, offset, size, access);
        }
        let base = match segment {
            SegReg::Fs | SegReg::Gs => self.cpu.segment(segment).base,
            _ => 0,
        };
        let linear = base.wrapping_add(offset);
        if is_canonical(linear) && is_canonical(linear.wrapping_add(size.saturating_sub(1))) {
            self.check_alignment(linear, size)?;
            return Ok(linear);
        }
        Err(outside(segment))
    }

    fn linear_segmented(
        &self,
        segment: SegReg,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<u64, Exception> {
        let register = self.cpu.segment(segment);
        let attributes = register.attributes;
        let protected = self.cpu.cr0 & control::CR0_PE != 0;
        if attributes.contains(A::UNUSABLE) {
            return Err(outside(segment));
        }
        if protected && access != Access::Fetch {
            let code = attributes.contains(A::CODE);
            let readable = !code || attributes.contains(A::WRITABLE);
            let writable = !code && attributes.contains(A::WRITABLE);
            if access == Access::Write && !writable || access == Access::Read && !readable {
                return Err(outside(segment));
            }
        }
        if !within_limit(register, offset, size) {
            return Err(outside(segment));
        }
        let linear = register.base.wrapping_add(offset) & 0xffff_ffff;
        self.check_alignment(linear, size)?;
        Ok(linear)
    }

    fn check_alignment(&self, linear: u64, size: u64) -> Result<(), Exception> {
        // Wider accesses have rules of their own where they are made.
        if self.cpu.mode.alignment_checks
            && size.is_power_of_two()
            && size <= 8
            && !linear.is_multiple_of(size)
        {
            return Err(Exception::ALIGNMENT);
        }
        Ok(())
    }

    /// Loads 1, 2, 4 or 8 bytes.
    #[inline]
    pub(crate) fn load(&mut self, segment: SegReg, offset: u64, size: usize) -> Result<u64, Exception> {
        let linear = self.linear(segment, offset, size as u64, Access::Read)?;
        self.linear_load(self.cpu.mode.set, linear, size)
    }

    /// Stores the low 1, 2, 4 or 8 bytes of `value`.
    #[inline]
    pub(crate) fn store(
        &mut self,
        segment: SegReg,
        offset: u64,
        size: usize,
        value: u64,
    ) -> Result<(), Exception> {
        let linear = self.linear(segment, offset, size as u64, Access::Write)?;
        self.linear_store(self.cpu.mode.set, linear, size, value)
    }

    /// Reads any number of bytes.
    pub(crate) fn read_bytes(
        &mut self,
        segment: SegReg,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), Exception> {
        let linear = self.linear(segment, offset, bytes.len() as u64, Access::Read)?;
        self.linear_read(self.cpu.mode.set, linear, bytes)
    }

    /// Writes any number of bytes, all or none.
    pub(crate) fn write_bytes(
        &mut self,
        segment: SegReg,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Exception> {
        let linear = self.linear(segment, offset, bytes.len() as u64, Access::Write)?;
        self.linear_write(self.cpu.mode.set, linear, bytes)
    }
}

/// Whether `size` bytes at `offset` lie inside a segment (Intel SDM vol. 3, 5.3).
pub(crate) fn within_limit(segment: &Segment, offset: u64, size: u64) -> bool {
    let last = offset.wrapping_add(size.saturating_sub(1));
    let limit = u64::from(segment.limit);
    let attributes = segment.attributes;
    // Type bit 2 of data: the segment grows downwards, and its limit is where it ends below.
    let expands_down = !attributes.contains(A::CODE) && attributes.bits() & 4 != 0;
    let top = if attributes.contains(A::BIG) {
        0xffff_ffff
    } else {
        0xffff
    };
    let inside = if expands_down {
        offset > limit && last <= top
    } else {
        last <= limit
    };
    inside && last >= offset
}

/// What an access outside a segment raises.
fn outside(segment: SegReg) -> Exception {
    if segment == SegReg::Ss {
        Exception::stack(0)
    } else {
        Exception::PROTECTION
    }
}
