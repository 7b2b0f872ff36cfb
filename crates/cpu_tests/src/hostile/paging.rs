//! The ways a guest's processor finds memory: four levels, PAE, two levels, and none at all.

use super::place::{CODE_LINEAR, CODE_STRIDE, KERNEL, KERNEL_32, LARGE, LARGE_4M, PAGE, RUNS};
use super::tables::code_page;
use crate::random::Random;

/// How linear addresses are translated (Intel SDM vol. 3, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// Long mode, with 64-bit, 32-bit and 16-bit code.
    FourLevel,
    /// Protected mode with entries of 64 bits.
    Pae,
    /// Protected mode with entries of 32 bits.
    TwoLevel,
    /// Protected mode without tables.
    None,
}

impl Paging {
    /// Half of all cases have four levels: only there is code translated.
    pub(super) fn pick(random: &mut Random) -> Self {
        random.pick(&[
            Self::FourLevel,
            Self::FourLevel,
            Self::FourLevel,
            Self::Pae,
            Self::TwoLevel,
            Self::None,
        ])
    }

    pub(super) fn is_long(self) -> bool {
        self == Self::FourLevel
    }

    /// Where in the linear address space the kernel's memory is.
    pub(super) fn kernel(self) -> u64 {
        match self {
            Self::FourLevel => KERNEL,
            Self::Pae | Self::TwoLevel => KERNEL_32,
            Self::None => 0,
        }
    }

    /// From the root down: the lowest bit of each table's index, and how many bits it has.
    pub(super) fn levels(self) -> &'static [(u32, u32)] {
        match self {
            Self::FourLevel => &[(39, 9), (30, 9), (21, 9), (12, 9)],
            Self::Pae => &[(30, 2), (21, 9), (12, 9)],
            Self::TwoLevel => &[(22, 10), (12, 10)],
            Self::None => &[],
        }
    }

    /// Bytes of an entry.
    pub(super) fn entry_len(self) -> usize {
        if self == Self::TwoLevel { 4 } else { 8 }
    }

    /// The linear address of the large page, and the logarithm of its size.
    pub(super) fn large(self) -> (u64, u32) {
        match self {
            Self::TwoLevel => (LARGE_4M, 22),
            _ => (LARGE, 21),
        }
    }

    /// `linear` as far as there are such addresses.
    pub(super) fn cut(self, linear: u64) -> u64 {
        if self.is_long() {
            linear
        } else {
            linear & 0xffff_ffff
        }
    }

    /// Runs of linear pages where something may be.
    pub(super) fn runs(self) -> Vec<(u64, usize)> {
        match self {
            Self::FourLevel => RUNS.to_vec(),
            // Those at the end of a 64-bit half have no place here.
            Self::Pae | Self::TwoLevel => RUNS
                .into_iter()
                .filter(|(first, _)| *first <= 0xffff_ffff)
                .collect(),
            Self::None => super::place::RAM[1..]
                .iter()
                .map(|(gpa, len)| (gpa - PAGE, (len / PAGE) as usize + 2))
                .chain([(0xffff_e000, 2)])
                .collect(),
        }
    }

    /// The linear page that code of part `number` begins in.
    pub(super) fn code(self, number: usize) -> u64 {
        match self {
            Self::None => code_page(number),
            _ => CODE_LINEAR + number as u64 * CODE_STRIDE,
        }
    }
}
