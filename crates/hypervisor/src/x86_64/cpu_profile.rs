//! CPU profiles: which of a host's features a guest is shown.
//!
//! A profile is a filter over [`crate::Capabilities::cpuid`]. `host` shows what the backend offers; the named
//! ones show a level of the x86-64 psABI (section 3.1.1) and nothing above it, so that a snapshot moves between
//! hosts.

use std::fmt;
use std::str::FromStr;

use super::{CpuidLeaf, find_leaf};
use crate::Error;

/// A named filter of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CpuProfile {
    /// All that this host's backend offers.
    #[default]
    Host,
    /// x86-64-v2: up to SSE4.2 and POPCNT.
    X86_64V2,
    /// x86-64-v3: with AVX2, BMI and FMA.
    X86_64V3,
    /// x86-64-v4: with AVX-512.
    X86_64V4,
}

/// One register of one leaf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// Feature words: leaf, subleaf, register, and the bits each level adds, v2 first (its bits are the baseline
/// with v2). The last column has what every level keeps where the host has it: features for the kernel, and
/// instructions without which encryption is an order of magnitude slower.
struct Word {
    leaf: u32,
    subleaf: u32,
    register: Register,
    levels: [u32; 3],
    system: u32,
}

const WORDS: &[Word] = &[
    Word {
        leaf: 1,
        subleaf: 0,
        register: Ecx,
        // v2: SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT; v3: FMA MOVBE XSAVE OSXSAVE AVX F16C.
        levels: [0x0098_2201, 0x3c40_1000, 0],
        // PCLMULQDQ PCID x2APIC TSC-deadline AES RDRAND hypervisor.
        system: 0xc322_0002,
    },
    Word {
        leaf: 1,
        subleaf: 0,
        register: Edx,
        levels: [0x0780_8101, 0, 0],
        system: 0x180b_7fff,
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: Ebx,
        // v3: BMI1 AVX2 BMI2; v4: AVX512F DQ CD BW VL.
        levels: [0, 0x0000_0128, 0xd003_0000],
        // FSGSBASE TSC_ADJUST SMEP ERMS INVPCID SMAP.
        system: 0x0010_0683,
    },
    Word {
        leaf: 7,
        subleaf: 0,
        register: Ecx,
        levels: [0; 3],
        system: 0x0000_0004,
    },
    // What tells a kernel which mitigations this host needs: MD_CLEAR, SPEC_CTRL, STIBP, L1D_FLUSH,
    // ARCH_CAPABILITIES, SSBD; FSRM.
    Word {
        leaf: 7,
        subleaf: 0,
        register: Edx,
        levels: [0; 3],
        system: 0xbc00_0410,
    },
    Word {
        leaf: 7,
        subleaf: 1,
        register: Eax,
        levels: [0; 3],
        system: 0,
    },
    Word {
        leaf: 0xd,
        subleaf: 1,
        register: Eax,
        levels: [0; 3],
        system: 0x0000_0007,
    },
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Ecx,
        // v2: LAHF; v3: LZCNT.
        levels: [0x0000_0001, 0x0000_0020, 0],
        // CmpLegacy, CR8Legacy, 3DNowPrefetch, TopologyExtensions.
        system: 0x0040_0112,
    },
    // SYSCALL NX RDTSCP LM, 1 GiB pages, and the copies of leaf 1's bits.
    Word {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Edx,
        levels: [0x2010_0800; 3],
        system: 0x0d93_f7ff,
    },
    // XSAVEERPTR, WBNOINVD and the speculation controls.
    Word {
        leaf: 0x8000_0008,
        subleaf: 0,
        register: Ebx,
        levels: [0; 3],
        system: 0x1f08_d204,
    },
];

/// The x87 and SSE state, AVX state, AVX-512 state, as bits of XCR0.
const XCR0_BY_LEVEL: [u64; 3] = [0x3, 0x7, 0xe7];

impl CpuProfile {
    /// Every profile, weakest portable one first.
    pub const ALL: [Self; 4] = [Self::X86_64V2, Self::X86_64V3, Self::X86_64V4, Self::Host];

    /// Its name, as options and snapshots spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::X86_64V2 => "x86-64-v2",
            Self::X86_64V3 => "x86-64-v3",
            Self::X86_64V4 => "x86-64-v4",
        }
    }

    fn level(self) -> Option<usize> {
        match self {
            Self::Host => None,
            Self::X86_64V2 => Some(0),
            Self::X86_64V3 => Some(1),
            Self::X86_64V4 => Some(2),
        }
    }

    /// What a guest of this profile is shown by a backend that offers `offered`.
    ///
    /// # Errors
    /// [`Error::State`] where the host lacks a feature that the profile promises.
    pub fn apply(self, offered: &[CpuidLeaf]) -> Result<Vec<CpuidLeaf>, Error> {
        let mut leaves = offered.to_vec();
        let Some(level) = self.level() else {
            return Ok(leaves);
        };
        for word in WORDS {
            let required = word.levels[..=level].iter().fold(0, |bits, more| bits | more) & !OS_BITS;
            let have = find_leaf(&leaves, word.leaf, word.subleaf).map_or(0, |leaf| word.register.of(leaf));
            if have & required != required {
                return Err(Error::State {
                    element: "cpuid",
                    reason: format!(
                        "this host lacks features {:#010x} of leaf {:#x} that profile {self} promises",
                        required & !have,
                        word.leaf
                    ),
                });
            }
            for leaf in leaves
                .iter_mut()
                .filter(|leaf| leaf.answers(word.leaf, word.subleaf))
            {
                word.register.keep(leaf, required | word.system);
            }
        }
        cut_extended_state(&mut leaves, XCR0_BY_LEVEL[level]);
        Ok(leaves)
    }
}

/// OSXSAVE mirrors CR4 and is never in what a backend offers.
const OS_BITS: u32 = 1 << 27;

impl Register {
    fn of(self, leaf: &CpuidLeaf) -> u32 {
        match self {
            Eax => leaf.eax,
            Ebx => leaf.ebx,
            Ecx => leaf.ecx,
            Edx => leaf.edx,
        }
    }

    fn keep(self, leaf: &mut CpuidLeaf, mask: u32) {
        match self {
            Eax => leaf.eax &= mask,
            Ebx => leaf.ebx &= mask,
            Ecx => leaf.ecx &= mask,
            Edx => leaf.edx &= mask,
        }
    }
}

/// Takes every state component out of leaf 0xd that is not in `xcr0`, and AMX's leaves with them.
fn cut_extended_state(leaves: &mut Vec<CpuidLeaf>, xcr0: u64) {
    leaves.retain(|leaf| {
        let component = leaf.subleaf.unwrap_or(0);
        let kept = component < 2 || component < 64 && xcr0 >> component & 1 != 0;
        !matches!(leaf.leaf, 0x1d | 0x1e | 0x24) && (leaf.leaf != 0xd || kept)
    });
    // The area ends with the last component left (Intel SDM vol. 1, 13.2).
    let end = |leaf: &CpuidLeaf| leaf.ebx.saturating_add(leaf.eax);
    let extended = leaves
        .iter()
        .filter(|leaf| leaf.leaf == 0xd && leaf.subleaf.unwrap_or(0) >= 2);
    let size = extended.map(end).max().unwrap_or(0).max(576);
    for leaf in leaves.iter_mut().filter(|leaf| leaf.leaf == 0xd) {
        match leaf.subleaf.unwrap_or(0) {
            0 => (leaf.eax, leaf.edx, leaf.ecx) = (leaf.eax & xcr0 as u32, 0, size),
            // No supervisor components.
            1 => (leaf.ecx, leaf.edx) = (0, 0),
            _ => {}
        }
    }
}

impl fmt::Display for CpuProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The profile's name is none that exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CPU profile is called {0:?}; there are host, x86-64-v2, x86-64-v3 and x86-64-v4")]
pub struct UnknownProfile(pub String);

impl FromStr for CpuProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that has everything.
    fn all_features() -> Vec<CpuidLeaf> {
        let full = |leaf, subleaf| CpuidLeaf {
            leaf,
            subleaf: Some(subleaf),
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
        };
        let component = |number, offset, len| CpuidLeaf {
            eax: len,
            ebx: offset,
            ecx: 0,
            ..full(0xd, number)
        };
        vec![
            full(1, 0),
            full(7, 0),
            full(7, 1),
            full(0xd, 0),
            full(0xd, 1),
            component(2, 576, 256),
            component(5, 1088, 64),
            component(6, 1152, 512),
            component(7, 1664, 1024),
            component(18, 2752, 8192),
            full(0x8000_0001, 0),
            full(0x8000_0008, 0),
        ]
    }

    #[test]
    fn apply_v2_hides_avx_and_its_state() {
        let leaves = CpuProfile::X86_64V2.apply(&all_features()).unwrap();

        let avx = find_leaf(&leaves, 1, 0).unwrap().ecx >> 28 & 1;
        assert_eq!(avx, 0);
        assert_eq!(find_leaf(&leaves, 0xd, 0).unwrap().eax, 3);
        assert_eq!(find_leaf(&leaves, 0xd, 0).unwrap().ecx, 576);
        assert!(find_leaf(&leaves, 0xd, 2).is_none());
    }

    #[test]
    fn apply_v4_shows_avx512_without_amx() {
        let leaves = CpuProfile::X86_64V4.apply(&all_features()).unwrap();

        assert_eq!(find_leaf(&leaves, 7, 0).unwrap().ebx & 0xd003_0128, 0xd003_0128);
        assert_eq!(find_leaf(&leaves, 0xd, 0).unwrap().ecx, 2688);
        assert!(find_leaf(&leaves, 0xd, 18).is_none());
    }

    #[test]
    fn apply_host_without_a_promised_feature_is_refused() {
        let mut offered = all_features();
        offered[1].ebx &= !(1 << 5);

        assert!(matches!(
            CpuProfile::X86_64V3.apply(&offered),
            Err(Error::State { element: "cpuid", .. })
        ));
        assert!(CpuProfile::X86_64V2.apply(&offered).is_ok());
    }

    #[test]
    fn apply_host_profile_changes_nothing() {
        assert_eq!(CpuProfile::Host.apply(&all_features()).unwrap(), all_features());
    }

    #[test]
    fn from_str_reads_every_name_and_names_the_unknown() {
        for profile in CpuProfile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert_eq!(
            "x86-64-v9".parse::<CpuProfile>(),
            Err(UnknownProfile("x86-64-v9".into()))
        );
    }
}
