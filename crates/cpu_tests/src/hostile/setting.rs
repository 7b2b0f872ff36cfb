//! The modes that parts of programs run in.

use super::place::{DIRECTORY, PML4, POINTERS};
use crate::random::Random;

/// Bits of CR0, CR4 and EFER (Intel SDM vol. 3, 2.5 and 2.2.1).
pub(super) mod bit {
    pub(crate) const PE: u64 = 1 << 0;
    pub(crate) const TS: u64 = 1 << 3;
    pub(crate) const NE: u64 = 1 << 5;
    pub(crate) const WP: u64 = 1 << 16;
    pub(crate) const AM: u64 = 1 << 18;
    pub(crate) const PG: u64 = 1 << 31;
    pub(crate) const TSD: u64 = 1 << 2;
    pub(crate) const PSE: u64 = 1 << 4;
    pub(crate) const PAE: u64 = 1 << 5;
    pub(crate) const PGE: u64 = 1 << 7;
    pub(crate) const UMIP: u64 = 1 << 11;
    pub(crate) const FSGSBASE: u64 = 1 << 16;
    pub(crate) const SMEP: u64 = 1 << 20;
    pub(crate) const SMAP: u64 = 1 << 21;
    pub(crate) const SCE: u64 = 1 << 0;
    pub(crate) const LME: u64 = 1 << 8;
    pub(crate) const NXE: u64 = 1 << 11;
}

/// How code is run and addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 64-bit code.
    Long,
    /// Other code in IA-32e mode.
    Compatibility,
    Pae,
    /// 32-bit paging.
    Narrow,
    /// Protected mode without paging.
    Unpaged,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Long,
        Self::Compatibility,
        Self::Pae,
        Self::Narrow,
        Self::Unpaged,
    ];

    /// Addresses have 64 bits.
    pub(super) fn is_wide(self) -> bool {
        self == Self::Long
    }

    /// Interrupts are those of IA-32e mode.
    pub(super) fn is_long_mode(self) -> bool {
        matches!(self, Self::Long | Self::Compatibility)
    }
}

/// Control registers.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) kind: Kind,
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
}

impl Setting {
    pub(super) fn make_up(random: &mut Random, kind: Kind) -> Self {
        /// PE, MP, ET, NE.
        const CR0: u64 = bit::PE | 1 << 1 | 1 << 4 | bit::NE;
        /// OSFXSR, OSXMMEXCPT, OSXSAVE. What the time-stamp counter says is nothing to compare.
        const CR4: u64 = bit::TSD | 1 << 9 | 1 << 10 | 1 << 18;
        let mut some = |bits: &[u64]| bits.iter().filter(|_| !random.once_in(3)).sum::<u64>();
        let mut cr0 = CR0 | some(&[bit::WP, bit::AM]);
        let mut cr4 = CR4 | some(&[bit::PGE, bit::FSGSBASE, bit::UMIP, bit::SMAP, bit::PSE]);
        let mut efer = bit::SCE;
        if kind != Kind::Unpaged {
            cr0 |= bit::PG;
        }
        if matches!(kind, Kind::Long | Kind::Compatibility | Kind::Pae)
            || kind == Kind::Unpaged && some(&[1]) == 1
        {
            cr4 |= bit::PAE;
        }
        if kind.is_long_mode() {
            efer |= bit::LME;
        }
        // Without it, what tables say of data is reserved.
        if !random.once_in(8) {
            efer |= bit::NXE;
        }
        // Nearly all code is on pages of users: with SMEP the kernel's would not run.
        if random.once_in(8) {
            cr4 |= bit::SMEP;
        }
        let cr3 = root(random, kind);
        Self {
            kind,
            cr0,
            cr3,
            cr4,
            efer,
        }
    }
}

/// Where the tables of a kind begin, with any attributes of caches.
fn root(random: &mut Random, kind: Kind) -> u64 {
    let root = match kind {
        Kind::Long | Kind::Compatibility => PML4,
        Kind::Pae => POINTERS,
        Kind::Narrow | Kind::Unpaged => DIRECTORY,
    };
    root | random.next() & 0x18
}
