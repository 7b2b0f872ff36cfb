//! The local APIC's registers.

use super::table::Compare;

/// The register page of a local APIC (Intel SDM vol. 3, 11.4.1): 64 registers of 32 bits, one every 16 bytes.
///
/// In x2APIC mode the ID and ICR registers hold what that mode's MSRs would (Intel SDM vol. 3, 11.12.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalApic {
    /// Register `n` lies at offset `16 * n` of the page.
    pub registers: [u32; 64],
}

impl LocalApic {
    /// Local APIC ID.
    pub const ID: usize = 0x02;
    /// Version.
    pub const VERSION: usize = 0x03;
    /// Task priority.
    pub const TPR: usize = 0x08;
    /// Processor priority; follows from the others.
    pub const PPR: usize = 0x0a;
    /// Logical destination.
    pub const LDR: usize = 0x0d;
    /// Destination format.
    pub const DFR: usize = 0x0e;
    /// Spurious interrupt vector and software enable.
    pub const SPURIOUS: usize = 0x0f;
    /// First of eight: in service.
    pub const ISR: usize = 0x10;
    /// First of eight: trigger mode.
    pub const TMR: usize = 0x18;
    /// First of eight: requested.
    pub const IRR: usize = 0x20;
    /// Local vector table: timer.
    pub const LVT_TIMER: usize = 0x32;
    /// Local vector table: LINT0.
    pub const LVT_LINT0: usize = 0x35;
    /// Local vector table: LINT1.
    pub const LVT_LINT1: usize = 0x36;
    /// Local vector table: errors.
    pub const LVT_ERROR: usize = 0x37;
    /// Timer's initial count.
    pub const TIMER_INITIAL: usize = 0x38;
    /// Timer's current count; follows from time.
    pub const TIMER_CURRENT: usize = 0x39;
    /// Timer's divider.
    pub const TIMER_DIVIDE: usize = 0x3e;

    /// The registers of APIC `id` after reset (Intel SDM vol. 3, 11.4.7.1).
    pub fn reset(id: u8) -> Self {
        const MASKED: u32 = 1 << 16;
        let mut registers = [0; 64];
        registers[Self::ID] = u32::from(id) << 24;
        // Version 0x14 with six entries in the local vector table.
        registers[Self::VERSION] = 0x0005_0014;
        registers[Self::DFR] = 0xffff_ffff;
        registers[Self::SPURIOUS] = 0xff;
        for entry in &mut registers[Self::LVT_TIMER..=Self::LVT_ERROR] {
            *entry = MASKED;
        }
        Self { registers }
    }
}

impl Compare for LocalApic {
    fn compare(&self, other: &Self, path: &str, out: &mut Vec<String>) {
        for (index, (mine, theirs)) in self.registers.iter().zip(&other.registers).enumerate() {
            if mine != theirs {
                out.push(format!("{path}[{:#x}]", index * 16));
            }
        }
    }
}
