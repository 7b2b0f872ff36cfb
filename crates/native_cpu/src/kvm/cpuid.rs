//! CPUID leaves, between KVM's structures and architectural ones.

use hypervisor::Error;
use hypervisor::x86_64::CpuidLeaf;
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};

use super::host;

/// What KVM can show a guest on this host. KVM's own paravirtual leaves are among them.
pub(super) fn supported(kvm: &kvm_ioctls::Kvm) -> Result<Vec<CpuidLeaf>, Error> {
    let entries = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(host("ask KVM for its CPUID leaves"))?;
    Ok(entries.as_slice().iter().map(to_leaf).collect())
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
        element: "CPUID",
        reason: format!("{} leaves are more than KVM takes", leaves.len()),
    })
}
