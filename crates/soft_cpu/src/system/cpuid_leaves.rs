//! What this CPU offers to show a guest.
//!
//! An AMD processor of family 0x19 (APM vol. 3, appendix E), with what a guest needs to know that it needs no
//! mitigation against hardware that is not there, and KVM's paravirtual clock.

use crate::cpu::TSC_KHZ;
use crate::memory::PHYSICAL_BITS;

use hypervisor::x86_64::{CpuidLeaf, cache_leaves};

/// Width of linear addresses.
const LINEAR_BITS: u32 = 48;
/// Family 0x19, model 0x21.
const SIGNATURE: u32 = 0x00a2_0f10;
const NAME: &[u8; 48] = b"CrumbleCracker software CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const MAX_BASIC: u32 = 0xd;
const MAX_EXTENDED: u32 = 0x8000_0021;
const MAX_HYPERVISOR: u32 = 0x4000_0010;
/// Frequency of the local APIC's timer.
const APIC_TIMER_KHZ: u32 = 1_000_000;

/// A word with these bits.
const fn bits<const N: usize>(set: [u32; N]) -> u32 {
    let (mut word, mut index) = (0, 0);
    while index < N {
        word |= 1 << set[index];
        index += 1;
    }
    word
}

/// SSE3 SSSE3 FMA CX16 SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline XSAVE AVX F16C RDRAND hypervisor.
const LEAF1_ECX: u32 = bits([0, 9, 12, 13, 19, 20, 21, 22, 23, 24, 26, 28, 29, 30, 31]);
/// FPU DE PSE TSC MSR PAE CX8 APIC MTRR PGE CMOV PAT PSE-36 MMX FXSR: where leaf 0x80000001 has them as well.
const COMMON_EDX: u32 = bits([0, 2, 3, 4, 5, 6, 8, 9, 12, 13, 15, 16, 17, 23, 24]);
/// SEP CLFSH SSE SSE2.
const LEAF1_EDX: u32 = COMMON_EDX | bits([11, 19, 25, 26]);
/// FSGSBASE TSC_ADJUST BMI1 AVX2 SMEP BMI2 ERMS SMAP.
const LEAF7_EBX: u32 = bits([0, 1, 3, 5, 7, 8, 9, 20]);
/// UMIP RDPID.
const LEAF7_ECX: u32 = bits([2, 22]);
/// XSAVEOPT XSAVEC XGETBV1.
const XSAVE_EAX: u32 = bits([0, 1, 2]);
/// LAHF CmpLegacy AltMovCr8 ABM 3DNowPrefetch TopologyExtensions.
const EXTENDED_ECX: u32 = bits([0, 1, 4, 5, 8, 22]);
/// SYSCALL NX 1-GiB pages RDTSCP LM.
const EXTENDED_EDX: u32 = COMMON_EDX | bits([11, 20, 26, 27, 29]);
/// The time-stamp counter is invariant.
const POWER_EDX: u32 = bits([8]);
/// SSB_NO.
const CAPACITY_EBX: u32 = bits([26]);
/// NoNestedDataBp, LfenceAlwaysSerializing, NullSelectClearsBase, AutomaticIBRS, SRSO_NO.
const EXTENDED2_EAX: u32 = bits([0, 2, 6, 8, 29]);
/// TSA_SQ_NO TSA_L1_NO TSA_FILL_NO.
const EXTENDED2_ECX: u32 = bits([1, 2, 7]);
/// CLOCKSOURCE NOP_IO_DELAY CLOCKSOURCE2 CLOCKSOURCE_STABLE.
const KVM_FEATURES: u32 = bits([0, 1, 3, 24]);

/// Three times four letters.
fn letters(text: &[u8; 12]) -> [u32; 3] {
    [0, 4, 8].map(|at| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]))
}

/// Everything this CPU can show.
pub(crate) fn offered_leaves() -> Vec<CpuidLeaf> {
    let mut leaves = basic();
    leaves.extend(hypervisor());
    leaves.extend(extended());
    leaves.extend(cache_leaves());
    leaves
}

fn basic() -> Vec<CpuidLeaf> {
    /// Caches are flushed in lines of eight quadwords.
    const CLFLUSH_LINE: u32 = 8 << 8;
    /// The local APIC's timer never stops.
    const ARAT: u32 = bits([2]);
    let [first, last, middle] = letters(b"AuthcAMDenti");
    vec![
        CpuidLeaf::of(0, [MAX_BASIC, first, last, middle]),
        CpuidLeaf::of(1, [SIGNATURE, CLFLUSH_LINE, LEAF1_ECX, LEAF1_EDX]),
        CpuidLeaf::of(6, [ARAT, 0, 0, 0]),
        CpuidLeaf::of_subleaf(7, 0, [0, LEAF7_EBX, LEAF7_ECX, 0]),
        CpuidLeaf::of_subleaf(0xb, 0, [0; 4]),
        // x87, SSE and AVX state.
        CpuidLeaf::of_subleaf(0xd, 0, [7, 832, 832, 0]),
        CpuidLeaf::of_subleaf(0xd, 1, [XSAVE_EAX, 832, 0, 0]),
        CpuidLeaf::of_subleaf(0xd, 2, [256, 576, 0, 0]),
    ]
}

fn hypervisor() -> Vec<CpuidLeaf> {
    let [first, middle, last] = letters(b"KVMKVMKVM\0\0\0");
    vec![
        CpuidLeaf::of(0x4000_0000, [MAX_HYPERVISOR, first, middle, last]),
        CpuidLeaf::of(0x4000_0001, [KVM_FEATURES, 0, 0, 0]),
        CpuidLeaf::of(0x4000_0010, [TSC_KHZ, APIC_TIMER_KHZ, 0, 0]),
    ]
}

fn extended() -> Vec<CpuidLeaf> {
    let [first, last, middle] = letters(b"AuthcAMDenti");
    let mut leaves = vec![
        CpuidLeaf::of(0x8000_0000, [MAX_EXTENDED, first, last, middle]),
        CpuidLeaf::of(0x8000_0001, [SIGNATURE, 0, EXTENDED_ECX, EXTENDED_EDX]),
    ];
    for (number, part) in (0x8000_0002..).zip(NAME.chunks_exact(16)) {
        let word = |at: usize| u32::from_le_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]]);
        leaves.push(CpuidLeaf::of(number, [0, 4, 8, 12].map(word)));
    }
    leaves.extend([
        CpuidLeaf::of(0x8000_0007, [0, 0, 0, POWER_EDX]),
        CpuidLeaf::of(
            0x8000_0008,
            [PHYSICAL_BITS | LINEAR_BITS << 8, CAPACITY_EBX, 0, 0],
        ),
        CpuidLeaf::of(0x8000_0021, [EXTENDED2_EAX, 0, EXTENDED2_ECX, 0]),
    ]);
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::x86_64::{CpuProfile, find_leaf};

    #[test]
    fn offered_leaves_satisfy_the_profiles_up_to_v3() {
        for profile in [CpuProfile::X86_64V2, CpuProfile::X86_64V3, CpuProfile::Host] {
            assert!(profile.apply(&offered_leaves()).is_ok(), "{profile}");
        }
        assert!(CpuProfile::X86_64V4.apply(&offered_leaves()).is_err());
    }

    #[test]
    fn vendor_is_spelt_in_the_order_of_the_registers() {
        let leaves = offered_leaves();
        for number in [0, 0x8000_0000] {
            let leaf = find_leaf(&leaves, number, 0).unwrap();
            let text = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
            assert_eq!(text, b"AuthenticAMD");
        }
    }

    #[test]
    fn brand_string_is_the_products() {
        let leaves = offered_leaves();
        let text: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .map(|number| find_leaf(&leaves, number, 0).unwrap())
            .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(
            text.trim_ascii_end().split(|&byte| byte == 0).next().unwrap(),
            b"CrumbleCracker software CPU"
        );
    }
}
