//! The features of named profiles, bit by bit (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).

use super::Level::{self, V2, V3, V4};
use crate::x86_64::{CpuidLeaf, find_leaf};

/// One register of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

impl Register {
    fn of(self, leaf: &CpuidLeaf) -> u32 {
        match self {
            Eax => leaf.eax,
            Ebx => leaf.ebx,
            Ecx => leaf.ecx,
            Edx => leaf.edx,
        }
    }

    fn of_mut(self, leaf: &mut CpuidLeaf) -> &mut u32 {
        match self {
            Eax => &mut leaf.eax,
            Ebx => &mut leaf.ebx,
            Ecx => &mut leaf.ecx,
            Edx => &mut leaf.edx,
        }
    }
}

/// A word of features: leaf, subleaf, register; and each feature's bit, the first level that has it, and its name.
struct Word(u32, u32, Register, &'static [(u8, Level, &'static str)]);

const FEATURES: &[Word] = &[
    Word(
        1,
        0,
        Ecx,
        &[
            (0, V2, "SSE3"),
            (9, V2, "SSSE3"),
            (12, V3, "FMA"),
            (13, V2, "CMPXCHG16B"),
            (19, V2, "SSE4.1"),
            (20, V2, "SSE4.2"),
            (21, V2, "x2APIC"),
            (22, V3, "MOVBE"),
            (23, V2, "POPCNT"),
            (26, V3, "XSAVE"),
            (28, V3, "AVX"),
            (29, V3, "F16C"),
            (30, V2, "RDRAND"),
            (31, V2, "hypervisor"),
        ],
    ),
    Word(
        1,
        0,
        Edx,
        &[
            (0, V2, "FPU"),
            (2, V2, "DE"),
            (3, V2, "PSE"),
            (4, V2, "TSC"),
            (5, V2, "MSR"),
            (6, V2, "PAE"),
            (8, V2, "CMPXCHG8B"),
            (9, V2, "APIC"),
            (11, V2, "SYSENTER"),
            (12, V2, "MTRR"),
            (13, V2, "PGE"),
            (15, V2, "CMOV"),
            (16, V2, "PAT"),
            (17, V2, "PSE-36"),
            (19, V2, "CLFLUSH"),
            (23, V2, "MMX"),
            (24, V2, "FXSR"),
            (25, V2, "SSE"),
            (26, V2, "SSE2"),
        ],
    ),
    Word(
        7,
        0,
        Ebx,
        &[
            (0, V3, "FSGSBASE"),
            (1, V2, "TSC_ADJUST"),
            (3, V3, "BMI1"),
            (5, V3, "AVX2"),
            (7, V2, "SMEP"),
            (8, V3, "BMI2"),
            (16, V4, "AVX512F"),
            (17, V4, "AVX512DQ"),
            (20, V3, "SMAP"),
            (28, V4, "AVX512CD"),
            (30, V4, "AVX512BW"),
            (31, V4, "AVX512VL"),
        ],
    ),
    Word(0xd, 1, Eax, &[(0, V3, "XSAVEOPT"), (2, V3, "XGETBV1")]),
    Word(
        0x4000_0001,
        0,
        Eax,
        &[
            (0, V2, "KVM's first clock"),
            (1, V2, "KVM's ports without delays"),
            (3, V2, "KVM's clock"),
            (24, V2, "KVM's stable clock"),
        ],
    ),
    Word(0x8000_0001, 0, Ecx, &[(0, V2, "LAHF"), (5, V3, "LZCNT")]),
    Word(
        0x8000_0001,
        0,
        Edx,
        &[
            (11, V2, "SYSCALL"),
            (20, V2, "NX"),
            (26, V2, "1-GiB pages"),
            (27, V2, "RDTSCP"),
            (29, V2, "long mode"),
        ],
    ),
];

/// The features of `level` that are not among what is `offered`, by name.
pub(super) fn missing(level: Level, offered: &[CpuidLeaf]) -> Vec<String> {
    let mut names = Vec::new();
    for Word(leaf, subleaf, register, features) in FEATURES {
        let have = find_leaf(offered, *leaf, *subleaf).map_or(0, |leaf| register.of(leaf));
        let lacking = |&&(bit, from, _): &&(u8, Level, &str)| from <= level && have >> bit & 1 == 0;
        names.extend(
            features
                .iter()
                .filter(lacking)
                .map(|(.., name)| (*name).to_owned()),
        );
    }
    names
}

/// Puts the features of `level` into leaves that have none yet.
pub(super) fn add(level: Level, leaves: &mut [CpuidLeaf]) {
    for Word(leaf, subleaf, register, features) in FEATURES {
        let word = features
            .iter()
            .filter(|(_, from, _)| *from <= level)
            .fold(0, |word, (bit, ..)| word | 1 << bit);
        for leaf in leaves.iter_mut().filter(|entry| entry.answers(*leaf, *subleaf)) {
            *register.of_mut(leaf) |= word;
        }
    }
}
