//! Which instructions a vCPU has: what its CPUID leaves promise.

use hypervisor::x86_64::{CpuidLeaf, find_leaf};
use iced_x86::CpuidFeature;

/// The feature words that instructions depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    leaf1_ecx: u32,
    leaf1_edx: u32,
    leaf7_ebx: u32,
    leaf7_ecx: u32,
    leaf7_edx: u32,
    xsave_eax: u32,
    extended_ecx: u32,
    extended_edx: u32,
}

impl Features {
    pub(crate) fn of(leaves: &[CpuidLeaf]) -> Self {
        let leaf = |leaf, subleaf| {
            find_leaf(leaves, leaf, subleaf).copied().unwrap_or(CpuidLeaf {
                leaf,
                subleaf: None,
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            })
        };
        let (one, seven, extended) = (leaf(1, 0), leaf(7, 0), leaf(0x8000_0001, 0));
        Self {
            leaf1_ecx: one.ecx,
            leaf1_edx: one.edx,
            leaf7_ebx: seven.ebx,
            leaf7_ecx: seven.ecx,
            leaf7_edx: seven.edx,
            xsave_eax: leaf(0xd, 1).eax,
            extended_ecx: extended.ecx,
            extended_edx: extended.edx,
        }
    }

    /// Whether an instruction that needs `feature` exists. What no guest is ever shown does not.
    pub(crate) fn has(&self, feature: CpuidFeature) -> bool {
        use CpuidFeature as F;
        let (word, bit) = match feature {
            F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CPUID
            | F::MULTIBYTENOP
            | F::FPU287
            | F::FPU387
            | F::PAUSE => return true,
            F::FPU => (self.leaf1_edx, 0),
            F::TSC => (self.leaf1_edx, 4),
            F::MSR => (self.leaf1_edx, 5),
            F::CX8 => (self.leaf1_edx, 8),
            F::SEP => (self.leaf1_edx, 11),
            F::CMOV => (self.leaf1_edx, 15),
            F::CLFSH => (self.leaf1_edx, 19),
            F::MMX => (self.leaf1_edx, 23),
            F::FXSR => (self.leaf1_edx, 24),
            F::SSE => (self.leaf1_edx, 25),
            F::SSE2 => (self.leaf1_edx, 26),
            F::SSE3 => (self.leaf1_ecx, 0),
            F::PCLMULQDQ => (self.leaf1_ecx, 1),
            F::MONITOR => (self.leaf1_ecx, 3),
            F::SSSE3 => (self.leaf1_ecx, 9),
            F::FMA => (self.leaf1_ecx, 12),
            F::CMPXCHG16B => (self.leaf1_ecx, 13),
            F::SSE4_1 => (self.leaf1_ecx, 19),
            F::SSE4_2 => (self.leaf1_ecx, 20),
            F::MOVBE => (self.leaf1_ecx, 22),
            F::POPCNT => (self.leaf1_ecx, 23),
            F::AES => (self.leaf1_ecx, 25),
            F::XSAVE => (self.leaf1_ecx, 26),
            F::AVX => (self.leaf1_ecx, 28),
            F::F16C => (self.leaf1_ecx, 29),
            F::RDRAND => (self.leaf1_ecx, 30),
            F::FSGSBASE => (self.leaf7_ebx, 0),
            F::BMI1 => (self.leaf7_ebx, 3),
            F::AVX2 => (self.leaf7_ebx, 5),
            F::SMAP => (self.leaf7_ebx, 20),
            F::BMI2 => (self.leaf7_ebx, 8),
            F::INVPCID => (self.leaf7_ebx, 10),
            F::RDSEED => (self.leaf7_ebx, 18),
            F::ADX => (self.leaf7_ebx, 19),
            F::CLFLUSHOPT => (self.leaf7_ebx, 23),
            F::CLWB => (self.leaf7_ebx, 24),
            F::SHA => (self.leaf7_ebx, 29),
            F::VAES => (self.leaf7_ecx, 9),
            F::VPCLMULQDQ => (self.leaf7_ecx, 10),
            F::RDPID => (self.leaf7_ecx, 22),
            F::SERIALIZE => (self.leaf7_edx, 14),
            F::XSAVEOPT => (self.xsave_eax, 0),
            F::XSAVEC => (self.xsave_eax, 1),
            F::XSAVES => (self.xsave_eax, 3),
            F::LZCNT => (self.extended_ecx, 5),
            // Long mode has it, too (AMD APM vol. 3, PREFETCHW).
            F::PREFETCHW => (self.extended_ecx >> 8 | self.extended_edx >> 29, 0),
            F::SYSCALL => (self.extended_edx, 11),
            F::RDTSCP => (self.extended_edx, 27),
            _ => return false,
        };
        word >> bit & 1 != 0
    }
}
