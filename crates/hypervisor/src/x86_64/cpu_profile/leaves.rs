//! The leaves of named profiles: an AMD processor of family 0x19 (APM vol. 3, appendix E) with KVM's clock. The vendor is
//! the software CPU's, as that of a snapshot must not depend on the host.

use super::{Level, features};
use crate::x86_64::{CpuidLeaf, cache_leaves, find_leaf};

const MAX_BASIC: u32 = 0xd;
const MAX_HYPERVISOR: u32 = 0x4000_0001;
const MAX_EXTENDED: u32 = 0x8000_001e;
/// Family 0x19, model 0x21.
const SIGNATURE: u32 = 0x00a2_0f10;
/// Caches are flushed in lines of eight quadwords.
const CLFLUSH_LINE: u32 = 8 << 8;
/// The local APIC's timer never stops.
const ARAT: u32 = 1 << 2;
/// Width of addresses: enough for the largest machine.
const PHYSICAL_BITS: u32 = 40;
const LINEAR_BITS: u32 = 48;
/// CmpLegacy and TopologyExtensions: what leaves there are, which no host need have.
const EXTENDED_ECX: u32 = 1 << 1 | 1 << 22;
/// Bits of leaf 1 that an AMD processor repeats in leaf 0x80000001 (EDX): 0 to 9, 12 to 17, MMX and FXSR.
const REPEATED_EDX: u32 = 0x0183_f3ff;
/// State components: number, length, and offset in the standard format (Intel SDM vol. 1, 13.4.4 on).
const COMPONENTS: [(u32, u32, u32); 4] = [(2, 256, 576), (5, 64, 1088), (6, 512, 1152), (7, 1024, 1664)];

/// Letters, four a word.
fn letters<const N: usize>(text: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(text.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// All leaves of a processor of `level`.
pub(super) fn shown(level: Level) -> Vec<CpuidLeaf> {
    let [first, last, middle] = letters(b"AuthcAMDenti");
    let [kvm_first, kvm_middle, kvm_last] = letters(b"KVMKVMKVM\0\0\0");
    let mut leaves = vec![
        CpuidLeaf::of(0, [MAX_BASIC, first, last, middle]),
        CpuidLeaf::of(1, [SIGNATURE, CLFLUSH_LINE, 0, 0]),
        CpuidLeaf::of(6, [ARAT, 0, 0, 0]),
        CpuidLeaf::of_subleaf(7, 0, [0; 4]),
        CpuidLeaf::of_subleaf(0xb, 0, [0; 4]),
    ];
    leaves.extend(extended_state(level));
    leaves.extend([
        CpuidLeaf::of(0x4000_0000, [MAX_HYPERVISOR, kvm_first, kvm_middle, kvm_last]),
        CpuidLeaf::of(0x4000_0001, [0; 4]),
        CpuidLeaf::of(0x8000_0000, [MAX_EXTENDED, first, last, middle]),
        CpuidLeaf::of(0x8000_0001, [SIGNATURE, 0, EXTENDED_ECX, 0]),
    ]);
    leaves.extend(brand(level));
    leaves.push(CpuidLeaf::of(
        0x8000_0008,
        [PHYSICAL_BITS | LINEAR_BITS << 8, 0, 0, 0],
    ));
    leaves.extend(cache_leaves());
    features::add(level, &mut leaves);
    let repeated = find_leaf(&leaves, 1, 0).map_or(0, |leaf| leaf.edx) & REPEATED_EDX;
    for leaf in leaves.iter_mut().filter(|leaf| leaf.leaf == 0x8000_0001) {
        leaf.edx |= repeated;
    }
    leaves
}

/// The brand string, which names the profile.
fn brand(level: Level) -> [CpuidLeaf; 3] {
    let text = match level {
        Level::V2 => b"CrumbleCracker x86-64-v2",
        Level::V3 => b"CrumbleCracker x86-64-v3",
        Level::V4 => b"CrumbleCracker x86-64-v4",
    };
    let [a, b, c, d, e, f] = letters(text);
    [
        CpuidLeaf::of(0x8000_0002, [a, b, c, d]),
        CpuidLeaf::of(0x8000_0003, [e, f, 0, 0]),
        CpuidLeaf::of(0x8000_0004, [0; 4]),
    ]
}

/// Leaf 0xd (Intel SDM vol. 1, 13.2), where there is XSAVE.
fn extended_state(level: Level) -> Vec<CpuidLeaf> {
    let xcr0 = level.xcr0();
    let components = COMPONENTS.iter().filter(|(number, ..)| xcr0 >> number & 1 != 0);
    let places: Vec<CpuidLeaf> = components
        .map(|&(number, len, offset)| CpuidLeaf::of_subleaf(0xd, number, [len, offset, 0, 0]))
        .collect();
    // The area ends with the last component.
    let Some(size) = places.last().map(|last| last.ebx + last.eax) else {
        return Vec::new();
    };
    let mut leaves = vec![
        CpuidLeaf::of_subleaf(0xd, 0, [xcr0 as u32, size, size, 0]),
        CpuidLeaf::of_subleaf(0xd, 1, [0, size, 0, 0]),
    ];
    leaves.extend(places);
    leaves
}

/// State components that what is `offered` has in another place, or not at all.
pub(super) fn misplaced(shown: &[CpuidLeaf], offered: &[CpuidLeaf]) -> Vec<String> {
    let place = |leaf: &CpuidLeaf| (leaf.eax, leaf.ebx);
    let is_component = |leaf: &&CpuidLeaf| leaf.leaf == 0xd && leaf.subleaf.is_some_and(|number| number >= 2);
    let mut names = Vec::new();
    for leaf in shown.iter().filter(is_component) {
        let number = leaf.subleaf.unwrap_or(0);
        if find_leaf(offered, leaf.leaf, number).map(place) != Some(place(leaf)) {
            names.push(format!("XSAVE component {number} at {} of its area", leaf.ebx));
        }
    }
    names
}
