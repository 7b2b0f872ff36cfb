//! Model-specific registers that are part of a vCPU's state.

use std::collections::BTreeMap;

/// MSR number to value, for those of [`STATE_MSRS`] that the CPU has.
pub type Msrs = BTreeMap<u32, u64>;

/// IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// IA32_TSC_ADJUST.
pub const TSC_ADJUST: u32 = 0x3b;
/// IA32_SYSENTER_CS.
pub const SYSENTER_CS: u32 = 0x174;
/// IA32_SYSENTER_ESP.
pub const SYSENTER_ESP: u32 = 0x175;
/// IA32_SYSENTER_EIP.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_PAT.
pub const PAT: u32 = 0x277;
/// IA32_MTRR_DEF_TYPE.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_MISC_ENABLE.
pub const MISC_ENABLE: u32 = 0x1a0;
/// IA32_TSC_DEADLINE.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_STAR.
pub const STAR: u32 = 0xc000_0081;
/// IA32_LSTAR.
pub const LSTAR: u32 = 0xc000_0082;
/// IA32_KERNEL_GS_BASE.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Every MSR that a guest can set and that no other element of the state holds, in ascending order.
///
/// Left out on purpose: what lives in the system registers (EFER, APIC_BASE, FS_BASE, GS_BASE), the x2APIC
/// range (the local APIC's element), the time-stamp counter and its deadline (elements of their own), counters
/// of performance monitoring (no profile shows them) and machine-check banks (nothing raises them).
pub const STATE_MSRS: &[u32] = &[
    0x0011, // KVM wall clock, legacy number
    0x0012, // KVM system time, legacy number
    0x003b, // IA32_TSC_ADJUST
    0x0048, // IA32_SPEC_CTRL
    0x00e1, // IA32_UMWAIT_CONTROL
    0x010a, // IA32_ARCH_CAPABILITIES
    0x0140, // MISC_FEATURE_ENABLES
    0x0174, // IA32_SYSENTER_CS
    0x0175, // IA32_SYSENTER_ESP
    0x0176, // IA32_SYSENTER_EIP
    0x017a, // IA32_MCG_STATUS
    0x01a0, // IA32_MISC_ENABLE
    0x01c4, // IA32_XFD
    0x01c5, // IA32_XFD_ERR
    0x01d9, // IA32_DEBUGCTL
    0x0200,
    0x0201,
    0x0202,
    0x0203,
    0x0204,
    0x0205,
    0x0206,
    0x0207, // IA32_MTRR_PHYSBASE0..
    0x0208,
    0x0209,
    0x020a,
    0x020b,
    0x020c,
    0x020d,
    0x020e,
    0x020f, // ..IA32_MTRR_PHYSMASK7
    0x0250, // IA32_MTRR_FIX64K_00000
    0x0258,
    0x0259, // IA32_MTRR_FIX16K_80000, _A0000
    0x0268,
    0x0269,
    0x026a,
    0x026b,
    0x026c,
    0x026d,
    0x026e,
    0x026f, // IA32_MTRR_FIX4K_C0000..F8000
    0x0277, // IA32_PAT
    0x02ff, // IA32_MTRR_DEF_TYPE
    0x06a0,
    0x06a2,
    0x06a4,
    0x06a5,
    0x06a6,
    0x06a7,
    0x06a8,      // control-flow enforcement
    0x0da0,      // IA32_XSS
    0x4b56_4d00, // KVM wall clock
    0x4b56_4d01, // KVM system time
    0x4b56_4d02, // KVM asynchronous page faults: enable
    0x4b56_4d03, // KVM stolen time
    0x4b56_4d04, // KVM paravirtual end of interrupt
    0x4b56_4d05, // KVM halt polling
    0x4b56_4d06, // KVM asynchronous page faults: vector
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0102, // IA32_KERNEL_GS_BASE
    0xc000_0103, // IA32_TSC_AUX
    0xc000_0104, // AMD TSC_RATIO
    0xc001_0015, // AMD HWCR
    0xc001_011f, // AMD VIRT_SPEC_CTRL
    0xc001_1029, // AMD DE_CFG
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_msrs_ascend_and_leave_the_other_elements_alone() {
        assert!(STATE_MSRS.windows(2).all(|pair| pair[0] < pair[1]));
        for elsewhere in [
            TSC,
            TSC_DEADLINE,
            0x1b,
            0xc000_0080,
            0xc000_0100,
            0xc000_0101,
            0x808,
        ] {
            assert!(!STATE_MSRS.contains(&elsewhere));
        }
    }
}
