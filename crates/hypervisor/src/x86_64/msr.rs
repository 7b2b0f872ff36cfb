//! Model-specific registers that belong to a CPU's state.

/// One model-specific register's number and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// The registers that are read, written and compared with a CPU, by number and name. A table: a backend
/// takes those its host has. EFER and APIC_BASE are among the system registers. TSC comes first, so that
/// TSC_DEADLINE, which is compared with it, is set after it.
pub const SAVED_MSRS: &[(u32, &str)] = &[
    (0x10, "TSC"),
    (0x3b, "TSC_ADJUST"),
    (0x174, "SYSENTER_CS"),
    (0x175, "SYSENTER_ESP"),
    (0x176, "SYSENTER_EIP"),
    (0xc000_0081, "STAR"),
    (0xc000_0082, "LSTAR"),
    (0xc000_0083, "CSTAR"),
    (0xc000_0084, "SFMASK"),
    (0xc000_0102, "KERNEL_GS_BASE"),
    (0xc000_0103, "TSC_AUX"),
    (0x277, "PAT"),
    (0x48, "SPEC_CTRL"),
    (0x1a0, "MISC_ENABLE"),
    (0x2ff, "MTRR_DEF_TYPE"),
    (0xda0, "XSS"),
    (0x4b56_4d00, "KVM_WALL_CLOCK_NEW"),
    (0x4b56_4d01, "KVM_SYSTEM_TIME_NEW"),
    (0x4b56_4d02, "KVM_ASYNC_PF_EN"),
    (0x4b56_4d03, "KVM_STEAL_TIME"),
    (0x4b56_4d04, "KVM_PV_EOI_EN"),
    (0x4b56_4d05, "KVM_POLL_CONTROL"),
    (0x6e0, "TSC_DEADLINE"),
];
