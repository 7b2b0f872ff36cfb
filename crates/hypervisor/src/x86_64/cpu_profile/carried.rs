//! Which CPU state a named profile carries from one backend to another.

use super::Level;
use crate::x86_64::{CpuState, LocalApic, msr};

/// The registers that a guest of a named profile has, in ascending order: every backend has them.
pub(super) const CARRIED: &[std::ops::RangeInclusive<u32>] = &[
    0x0011..=0x0012,           // KVM's clock, legacy numbers
    0x003b..=0x003b,           // IA32_TSC_ADJUST
    0x0174..=0x0176,           // SYSENTER
    0x01a0..=0x01a0,           // IA32_MISC_ENABLE
    0x01d9..=0x01d9,           // IA32_DEBUGCTL
    0x0200..=0x020f,           // MTRRs of variable ranges
    0x0250..=0x0250,           // MTRRs of fixed ranges
    0x0258..=0x0259,           //
    0x0268..=0x026f,           //
    0x0277..=0x0277,           // IA32_PAT
    0x02ff..=0x02ff,           // IA32_MTRR_DEF_TYPE
    0x4b56_4d00..=0x4b56_4d01, // KVM's clock
    0xc000_0081..=0xc000_0084, // SYSCALL
    0xc000_0102..=0xc000_0103, // IA32_KERNEL_GS_BASE, IA32_TSC_AUX
];

/// Registers whose values say something of the host, or change nothing that a guest of a named profile could see:
/// they stay where they are.
const OF_THE_HOST: &[u32] = &[
    0x0000_010a, // IA32_ARCH_CAPABILITIES: constant, and read by no guest that is not shown it
    0x4b56_4d05, // KVM's polling before a halt
    0xc000_0104, // AMD's TSC_RATIO: the scale of a nested guest's counter
    0xc001_0015, // AMD's HWCR: that the counter's frequency is constant
    0xc001_1029, // AMD's DE_CFG: that LFENCE serializes
];

/// Spurious-interrupt vector register: the I/O APICs are told ends of interrupts by software (Intel SDM vol. 3, 11.8.5). KVM
/// lets a guest switch that on.
const DIRECTED_EOI: u32 = 1 << 12;

fn is_carried(index: u32) -> bool {
    CARRIED.iter().any(|range| range.contains(&index))
}

/// The part of `state` that goes with the guest; or the names of what was used and cannot go.
pub(super) fn carried(level: Level, mut state: CpuState) -> Result<CpuState, Vec<String>> {
    let mut refused = Vec::new();
    if state.xcr0 & !level.xcr0() != 0 {
        refused.push(format!("XCR0 {:#x}", state.xcr0));
    }
    state.msrs.retain(|&index, &mut value| {
        let carried = is_carried(index);
        if !carried && value != 0 && !OF_THE_HOST.contains(&index) {
            refused.push(format!("MSR {index:#x} with {value:#x} in it"));
        }
        carried
    });
    let allowed = level.xcr0();
    state.extended.components.0.retain(|&component, bytes| {
        let carried = component < 64 && allowed >> component & 1 != 0;
        if !carried && bytes.iter().any(|&byte| byte != 0) {
            refused.push(format!("XSAVE component {component}"));
        }
        carried
    });
    if state.tsc_deadline != 0 {
        refused.push(format!("MSR {:#x}, the timer's deadline", msr::TSC_DEADLINE));
    }
    if state.lapic.registers[LocalApic::SPURIOUS] & DIRECTED_EOI != 0 {
        refused.push("directed ends of interrupts".to_owned());
    }
    match refused.is_empty() {
        true => Ok(state),
        false => Err(refused),
    }
}
