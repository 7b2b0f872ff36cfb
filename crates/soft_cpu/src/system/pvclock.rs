//! KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst).
//!
//! The time-stamp counter counts nanoseconds, so the clock is the counter and a constant: a structure is written once, and
//! again only when software moves the counter.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cpu::Cpu;
use crate::exec::Exec;

use hypervisor::x86_64::find_leaf;

pub(super) const WALL_CLOCK_LEGACY: u32 = 0x11;
pub(super) const SYSTEM_TIME_LEGACY: u32 = 0x12;
pub(super) const WALL_CLOCK: u32 = 0x4b56_4d00;
pub(super) const SYSTEM_TIME: u32 = 0x4b56_4d01;

/// The leaf of KVM's features, and the one before, where a hypervisor says who it is.
const FEATURES: u32 = 0x4000_0001;
/// The system time is on.
const ENABLED: u64 = 1;
/// A tick of 1 GHz is (1 << SHIFT) * MULTIPLIER / 2^32 nanoseconds.
const SHIFT: u8 = 1;
const MULTIPLIER: u32 = 0x8000_0000;
/// Readings of all vCPUs are in one order.
const TSC_STABLE: u8 = 1;
const STRUCTURE: usize = 32;

impl Cpu {
    /// Whether CPUID announces a feature of KVM's.
    pub(super) fn pv_feature(&self, bit: u32) -> bool {
        find_leaf(&self.cpuid, FEATURES, 0).is_some_and(|leaf| leaf.eax >> bit & 1 != 0)
    }
}

impl Exec<'_> {
    /// Writes the clock where registers were set from outside since.
    pub(crate) fn refresh_clock(&mut self) {
        if std::mem::take(&mut self.cpu.msrs.clock_due) {
            self.write_system_time();
        }
    }

    /// `pvclock_vcpu_time_info`, where the guest wants it.
    pub(super) fn write_system_time(&mut self) {
        let place = self.cpu.msrs.system_time;
        if place & ENABLED == 0 {
            return;
        }
        let mut bytes = [0; STRUCTURE];
        let (counter, clock) = self.cpu.apic.tsc().clock_at();
        bytes[8..16].copy_from_slice(&counter.to_le_bytes());
        bytes[16..24].copy_from_slice(&clock.to_le_bytes());
        bytes[24..28].copy_from_slice(&MULTIPLIER.to_le_bytes());
        (bytes[28], bytes[29]) = (SHIFT, TSC_STABLE);
        self.publish(place & !ENABLED, &bytes);
    }

    /// `pvclock_wall_clock`: when the clock was 0.
    pub(super) fn write_wall_clock(&mut self) {
        let clock = self.cpu.apic.tsc().clock();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let zero = now.saturating_sub(clock);
        let (seconds, nanoseconds) = ((zero / 1_000_000_000) as u32, (zero % 1_000_000_000) as u32);
        let mut bytes = [0; 12];
        bytes[4..8].copy_from_slice(&seconds.to_le_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_le_bytes());
        self.publish(self.cpu.msrs.wall_clock, &bytes);
    }

    /// Writes a structure that begins with its version: odd while the rest is written. An address outside RAM gets
    /// nothing.
    fn publish(&mut self, gpa: u64, bytes: &[u8]) {
        let ram = self.memory.ram();
        let Some(old) = ram.load(gpa, 4) else { return };
        let writing = old as u32 | 1;
        ram.store(gpa, 4, writing.into());
        for (word, at) in bytes[4..].chunks_exact(4).zip((gpa + 4..).step_by(4)) {
            let word = word
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte));
            // What lies outside RAM gets nothing.
            ram.store(at, 4, word);
        }
        ram.store(gpa, 4, writing.wrapping_add(1).into());
        self.stored(gpa, 1);
        self.stored(gpa + bytes.len() as u64 - 1, 1);
    }
}
