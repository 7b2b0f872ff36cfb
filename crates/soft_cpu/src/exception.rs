//! What an instruction can raise.

/// An exception on its way to its handler (Intel SDM vol. 3, 6.3.1): a fault unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    /// Which one, 0 to 31.
    pub(crate) vector: u8,
    /// What its handler finds on the stack.
    pub(crate) error_code: Option<u32>,
    /// For a page fault the linear address (goes to CR2), for a debug exception what to set in DR6.
    pub(crate) payload: u64,
    /// A trap: RIP of the instruction after, not of the one that raised it.
    pub(crate) trap: bool,
}

impl Exception {
    /// #DE: division by zero, or a quotient that does not fit.
    pub(crate) const DIVIDE: Self = Self::plain(0);
    /// #DF: an exception while another was on its way to its handler. It has no instruction to return to.
    pub(crate) const DOUBLE_FAULT: Self = Self {
        trap: true,
        ..Self::with_code(8, 0)
    };
    /// #BR: `BOUND` out of range.
    pub(crate) const BOUND: Self = Self::plain(5);
    /// #UD: an instruction that does not exist here.
    pub(crate) const UNDEFINED: Self = Self::plain(6);
    /// #NM: x87 or SSE while CR0.TS or CR0.EM forbids it.
    pub(crate) const NO_MATH: Self = Self::plain(7);
    /// #MF: a pending unmasked x87 exception.
    pub(crate) const X87: Self = Self::plain(16);
    /// #AC: a misaligned access of a program that asked to be told.
    pub(crate) const ALIGNMENT: Self = Self::with_code(17, 0);
    /// #XM: an unmasked SIMD floating-point exception.
    pub(crate) const SIMD: Self = Self::plain(19);
    /// #GP(0), the commonest of all.
    pub(crate) const PROTECTION: Self = Self::protection(0);

    const fn plain(vector: u8) -> Self {
        Self {
            vector,
            error_code: None,
            payload: 0,
            trap: false,
        }
    }

    const fn with_code(vector: u8, code: u32) -> Self {
        Self {
            vector,
            error_code: Some(code),
            payload: 0,
            trap: false,
        }
    }

    /// #DB with these bits for DR6.
    pub(crate) const fn debug(dr6: u64, trap: bool) -> Self {
        Self {
            vector: 1,
            error_code: None,
            payload: dr6,
            trap,
        }
    }

    /// #TS about a selector.
    pub(crate) const fn invalid_tss(code: u32) -> Self {
        Self::with_code(10, code)
    }

    /// #NP about a selector.
    pub(crate) const fn not_present(code: u32) -> Self {
        Self::with_code(11, code)
    }

    /// #SS; code 0 where an access left the segment.
    pub(crate) const fn stack(code: u32) -> Self {
        Self::with_code(12, code)
    }

    /// #GP.
    pub(crate) const fn protection(code: u32) -> Self {
        Self::with_code(13, code)
    }

    /// #PF at a linear address.
    pub(crate) const fn page_fault(address: u64, code: u32) -> Self {
        Self {
            vector: 14,
            error_code: Some(code),
            payload: address,
            trap: false,
        }
    }
}
