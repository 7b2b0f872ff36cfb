//! KVM_PRE_FAULT_MEMORY (api.rst, 4.143; Linux 6.11).

use std::ops::Range;

use hypervisor::Error;
use kvm_bindings::{KVMIO, kvm_pre_fault_memory};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::host;

ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);

/// Enters `pages` into the second-level page tables that the VM's CPUs share.
pub(super) fn map_ahead(vcpu: &VcpuFd, pages: &[Range<u64>]) -> Result<(), Error> {
    for pages in pages {
        let mut request = kvm_pre_fault_memory {
            gpa: pages.start,
            size: pages.end.saturating_sub(pages.start),
            ..Default::default()
        };
        // KVM moves both on by what is done, and comes back early where a signal wants to be heard.
        while request.size > 0 {
            // SAFETY: the request is of this ioctl's type, and lives through the call. The tables lead to memory that
            // the VM has mapped, and to nothing else.
            let done = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut request) };
            if done < 0 {
                let error = vmm_sys_util::errno::Error::last();
                if ![libc::EINTR, libc::EAGAIN].contains(&error.errno()) {
                    return Err(host("map guest memory ahead")(error));
                }
            }
        }
    }
    Ok(())
}
