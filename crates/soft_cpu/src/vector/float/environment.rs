//! MXCSR as one instruction sees it.

/// How results are rounded (Intel SDM vol. 1, 4.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the nearest, of two equally near to the even one.
    Nearest,
    Down,
    Up,
    TowardsZero,
}

impl Rounding {
    /// As two bits encode it.
    #[inline]
    pub(crate) fn of(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::TowardsZero,
        }
    }
}

/// Flags of MXCSR.
pub(crate) mod flag {
    pub(crate) const INVALID: u32 = 1 << 0;
    pub(crate) const DENORMAL: u32 = 1 << 1;
    pub(crate) const DIVIDE: u32 = 1 << 2;
    pub(crate) const OVERFLOW: u32 = 1 << 3;
    pub(crate) const UNDERFLOW: u32 = 1 << 4;
    pub(crate) const PRECISION: u32 = 1 << 5;
    /// Found before anything is computed: if one of them is reported, the others are not.
    pub(crate) const BEFORE: u32 = INVALID | DENORMAL | DIVIDE;
}

const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
const MASKS_SHIFT: u32 = 7;
const ROUNDING_SHIFT: u32 = 13;
const FLUSH_TO_ZERO: u32 = 1 << 15;

/// What decides how numbers are computed, and the flags that computing them raises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    pub(crate) rounding: Rounding,
    /// Denormal operands count as zeros.
    pub(crate) denormals_are_zeros: bool,
    /// Tiny results become zeros.
    pub(crate) flush_to_zero: bool,
    masked: u32,
    sticky: u32,
    raised: u32,
    /// Raised by steps that are over, none of which made an exception.
    earlier: u32,
}

impl Environment {
    #[inline]
    pub(crate) fn of(mxcsr: u32) -> Self {
        let masked = mxcsr >> MASKS_SHIFT & 0x3f;
        Self {
            rounding: Rounding::of(mxcsr >> ROUNDING_SHIFT),
            denormals_are_zeros: mxcsr & DENORMALS_ARE_ZEROS != 0,
            flush_to_zero: mxcsr & FLUSH_TO_ZERO != 0 && masked & flag::UNDERFLOW != 0,
            masked,
            sticky: mxcsr & 0x3f,
            raised: 0,
            earlier: 0,
        }
    }

    /// Raises flags.
    #[inline]
    pub(crate) fn raise(&mut self, flags: u32) {
        self.raised |= flags;
    }

    /// Whether exceptions of this kind only set their flag.
    #[inline]
    pub(crate) fn masks(&self, flag: u32) -> bool {
        self.masked & flag != 0
    }

    /// Whether an inexact result in round-to-nearest changes nothing that is not so already.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.rounding == Rounding::Nearest && self.masked & self.sticky & flag::PRECISION != 0
    }

    /// The flags to set, and whether one of them makes an exception.
    pub(crate) fn outcome(&self) -> (u32, bool) {
        let unmasked = self.raised & !self.masked;
        let flags = if unmasked & flag::BEFORE != 0 {
            self.raised & flag::BEFORE
        } else {
            self.raised
        };
        (flags | self.earlier, unmasked != 0)
    }

    /// Ends a step of an instruction that has several, where it made no exception.
    pub(crate) fn end_step(&mut self) {
        self.earlier |= std::mem::take(&mut self.raised);
    }
}
