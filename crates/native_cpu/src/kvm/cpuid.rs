//! CPUID leaves, between KVM's structures and architectural ones.

use hypervisor::Error;
use hypervisor::x86_64::CpuidLeaf;
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Cap;

use super::host;

/// Leaf 1 ECX: VMX, x2APIC, TSC-deadline, OSXSAVE, hypervisor.
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 ECX and EDX: debug store, and what reads performance counters (PDCM, DTES64, DS-CPL).
const COUNTERS_ECX: u32 = 1 << 2 | 1 << 4 | 1 << 15;
const COUNTERS_EDX: u32 = 1 << 21;
/// Leaf 0x80000001 ECX: SVM; core, north-bridge and last-level-cache counters.
const SVM: u32 = 1 << 2;
const AMD_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;
/// Leaf 7 EBX: SGX, Intel PT. Leaf 7 ECX: SGX launch control. Leaf 7 EDX: architectural last-branch records.
const LEAF7_EBX: u32 = 1 << 2 | 1 << 25;
const LEAF7_ECX: u32 = 1 << 30;
const LEAF7_EDX: u32 = 1 << 19;

/// What KVM can show a guest on this host, without the features whose state is not in the state table
/// (nested virtualization, performance counters, enclaves, tracing). KVM's own paravirtual leaves are kept:
/// a Linux guest takes its clock from them.
pub(super) fn supported(kvm: &kvm_ioctls::Kvm) -> Result<Vec<CpuidLeaf>, Error> {
    let entries = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(host("ask KVM for its CPUID leaves"))?;
    let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    let mut leaves: Vec<CpuidLeaf> = entries.as_slice().iter().map(to_leaf).collect();
    for leaf in &mut leaves {
        filter(leaf, tsc_deadline);
    }
    Ok(leaves)
}

fn filter(leaf: &mut CpuidLeaf, tsc_deadline: bool) {
    match leaf.leaf {
        1 => {
            // KVM leaves these to whoever knows that the local APIC is in the kernel, as it is here.
            leaf.ecx |= X2APIC | HYPERVISOR | if tsc_deadline { TSC_DEADLINE } else { 0 };
            leaf.ecx &= !(VMX | OSXSAVE | COUNTERS_ECX);
            leaf.edx &= !COUNTERS_EDX;
        }
        7 if leaf.subleaf.unwrap_or(0) == 0 => {
            leaf.ebx &= !LEAF7_EBX;
            leaf.ecx &= !LEAF7_ECX;
            leaf.edx &= !LEAF7_EDX;
        }
        // Performance monitoring, enclaves, tracing, last-branch records; SVM; AMD's performance monitoring.
        0xa | 0x12 | 0x14 | 0x1c | 0x8000_000a | 0x8000_0022 => {
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
        }
        0x8000_0001 => leaf.ecx &= !(SVM | AMD_COUNTERS),
        _ => {}
    }
}

fn to_leaf(entry: &kvm_cpuid_entry2) -> CpuidLeaf {
    let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    CpuidLeaf {
        leaf: entry.function,
        subleaf: indexed.then_some(entry.index),
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
    }
}

/// The structure KVM takes.
pub(super) fn to_kvm(leaves: &[CpuidLeaf]) -> Result<CpuId, Error> {
    let entries: Vec<_> = leaves
        .iter()
        .map(|leaf| kvm_cpuid_entry2 {
            function: leaf.leaf,
            index: leaf.subleaf.unwrap_or(0),
            flags: if leaf.subleaf.is_some() {
                KVM_CPUID_FLAG_SIGNIFCANT_INDEX
            } else {
                0
            },
            eax: leaf.eax,
            ebx: leaf.ebx,
            ecx: leaf.ecx,
            edx: leaf.edx,
            ..Default::default()
        })
        .collect();
    CpuId::from_entries(&entries).map_err(|_| Error::State {
        element: "cpuid",
        reason: format!("{} leaves are more than KVM takes", leaves.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_leaf_1_hides_nested_virtualization_and_shows_x2apic() {
        let mut leaf = CpuidLeaf {
            leaf: 1,
            subleaf: None,
            eax: 0,
            ebx: 0,
            ecx: VMX | OSXSAVE,
            edx: 0,
        };

        filter(&mut leaf, true);

        assert_eq!(leaf.ecx, X2APIC | HYPERVISOR | TSC_DEADLINE);
    }

    #[test]
    fn to_kvm_and_back_keeps_index_and_registers() {
        let plain = CpuidLeaf {
            leaf: 1,
            subleaf: None,
            eax: 1,
            ebx: 2,
            ecx: 3,
            edx: 4,
        };
        let indexed = CpuidLeaf {
            leaf: 0xd,
            subleaf: Some(2),
            ..plain
        };

        let entries = to_kvm(&[plain, indexed]).unwrap();

        assert_eq!(
            entries.as_slice().iter().map(to_leaf).collect::<Vec<_>>(),
            [plain, indexed]
        );
    }
}
