//! CPUID leaves.

/// One answer of the CPUID instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX going in.
    pub leaf: u32,
    /// ECX going in, where it matters for this leaf.
    pub subleaf: Option<u32>,
    /// What comes back.
    pub eax: u32,
    /// What comes back.
    pub ebx: u32,
    /// What comes back.
    pub ecx: u32,
    /// What comes back.
    pub edx: u32,
}

impl CpuidLeaf {
    /// A leaf without subleaves: EAX, EBX, ECX and EDX.
    pub fn of(leaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> Self {
        Self {
            leaf,
            subleaf: None,
            eax,
            ebx,
            ecx,
            edx,
        }
    }

    /// The same of a subleaf.
    pub fn of_subleaf(leaf: u32, subleaf: u32, registers: [u32; 4]) -> Self {
        Self {
            subleaf: Some(subleaf),
            ..Self::of(leaf, registers)
        }
    }
}

impl CpuidLeaf {
    /// Whether this answers `leaf` and `subleaf`.
    pub fn answers(&self, leaf: u32, subleaf: u32) -> bool {
        self.leaf == leaf && self.subleaf.is_none_or(|mine| mine == subleaf)
    }
}

/// The answer to `leaf` and `subleaf` among `leaves`, where there is one.
pub fn find_leaf(leaves: &[CpuidLeaf], leaf: u32, subleaf: u32) -> Option<&CpuidLeaf> {
    leaves.iter().find(|entry| entry.answers(leaf, subleaf))
}

/// Caches as an AMD processor of family 0x19 tells of them (APM vol. 3, E.4): what programs copy by depends on their
/// sizes. They come after every other leaf but 0x80000021.
pub fn cache_leaves() -> Vec<CpuidLeaf> {
    /// Type and level, and that no software has to switch it on.
    const fn kind(kind: u32, level: u32) -> u32 {
        kind | level << 5 | 1 << 8
    }
    /// Ways of lines of 64 bytes.
    const fn ways(ways: u32) -> u32 {
        (ways - 1) << 22 | 63
    }
    let leaf = |leaf, subleaf, [eax, ebx, ecx, edx]: [u32; 4]| CpuidLeaf {
        leaf,
        subleaf,
        eax,
        ebx,
        ecx,
        edx,
    };
    vec![
        // 32 KiB of data and of code, eight ways; 512 KiB, eight ways; 32 MiB, sixteen ways.
        leaf(0x8000_0005, None, [0, 0, 0x2008_0140, 0x2008_0140]),
        leaf(0x8000_0006, None, [0, 0, 0x0200_6140, 0x0100_8140]),
        leaf(0x8000_001d, Some(0), [kind(1, 1), ways(8), 63, 0]),
        leaf(0x8000_001d, Some(1), [kind(2, 1), ways(8), 63, 0]),
        leaf(0x8000_001d, Some(2), [kind(3, 2), ways(8), 1023, 0]),
        leaf(0x8000_001d, Some(3), [kind(3, 3), ways(16), 32767, 0]),
        leaf(0x8000_001e, None, [0; 4]),
    ]
}

/// Topology level types of leaf 0xb (Intel SDM vol. 2, CPUID).
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Writes into a machine's CPUID what differs from one vCPU to the next: APIC ids, and a topology of `vcpus`
/// cores with one thread each in one package.
///
/// Called by every backend's `create_vcpu`, so that all agree; `index` is the APIC id.
pub fn for_vcpu(leaves: &[CpuidLeaf], index: u32, vcpus: u32) -> Vec<CpuidLeaf> {
    let mut out: Vec<CpuidLeaf> = leaves
        .iter()
        .filter(|entry| !is_topology(entry.leaf))
        .copied()
        .collect();
    // Bits of an APIC id that number a core inside the package.
    let core_bits = vcpus.max(1).next_power_of_two().trailing_zeros();
    let max_leaf = find_leaf(leaves, 0, 0).map_or(0, |entry| entry.eax);
    for entry in &mut out {
        fix_leaf(entry, index, vcpus, core_bits);
    }
    for leaf in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= max_leaf) {
        let level = |subleaf, eax, ebx, kind: u32| CpuidLeaf {
            leaf,
            subleaf: Some(subleaf),
            eax,
            ebx,
            ecx: kind << 8 | subleaf,
            edx: index,
        };
        out.extend([
            level(0, 0, 1, LEVEL_SMT),
            level(1, core_bits, vcpus, LEVEL_CORE),
            level(2, 0, 0, 0),
        ]);
    }
    out
}

fn is_topology(leaf: u32) -> bool {
    // 0x80000026 is AMD's form of 0xb; without it a guest reads 0xb.
    matches!(leaf, 0xb | 0x1f | 0x8000_0026)
}

fn fix_leaf(entry: &mut CpuidLeaf, index: u32, vcpus: u32, core_bits: u32) {
    const HTT: u32 = 1 << 28;
    match entry.leaf {
        1 => {
            let logical = vcpus.next_power_of_two().min(255);
            entry.ebx = entry.ebx & 0xffff | (logical & 0xff) << 16 | (index & 0xff) << 24;
            entry.edx = if vcpus > 1 {
                entry.edx | HTT
            } else {
                entry.edx & !HTT
            };
        }
        // Cache sharing and cores per package (Intel): the last level is shared by all, the others by none.
        4 if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 {
                vcpus.saturating_sub(1).min(0xfff)
            } else {
                0
            };
            let cores = ((1_u32 << core_bits) - 1).min(0x3f);
            entry.eax = entry.eax & 0x3fff | shared << 14 | cores << 26;
        }
        // Number of cores, and how many bits of the APIC id they take (AMD).
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | core_bits << 12 | vcpus.saturating_sub(1).min(0xff),
        // As leaf 4 (AMD).
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 {
                vcpus.saturating_sub(1).min(0xfff)
            } else {
                0
            };
            entry.eax = entry.eax & 0x3fff | shared << 14;
        }
        // Extended APIC id; core id, one thread a core; one node (AMD).
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (index, index & 0xff, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(leaf: u32, subleaf: Option<u32>) -> CpuidLeaf {
        CpuidLeaf {
            leaf,
            subleaf,
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        }
    }

    #[test]
    fn for_vcpu_shows_each_its_own_apic_id() {
        let leaves = [
            CpuidLeaf {
                eax: 0xd,
                ..leaf(0, None)
            },
            leaf(1, None),
            leaf(0xb, Some(0)),
        ];

        let third = for_vcpu(&leaves, 3, 4);

        assert_eq!(find_leaf(&third, 1, 0).unwrap().ebx, 3 << 24 | 4 << 16);
        assert_eq!(
            find_leaf(&third, 0xb, 1).unwrap(),
            &CpuidLeaf {
                leaf: 0xb,
                subleaf: Some(1),
                eax: 2,
                ebx: 4,
                ecx: 0x201,
                edx: 3
            }
        );
    }

    #[test]
    fn for_vcpu_single_processor_has_no_hyper_threading_bit() {
        let leaves = [CpuidLeaf {
            edx: u32::MAX,
            ..leaf(1, None)
        }];

        assert_eq!(for_vcpu(&leaves, 0, 1)[0].edx, !(1 << 28));
    }
}
