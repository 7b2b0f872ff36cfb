//! The state table: every element of a CPU's state, numbered and named.
//!
//! Reading, setting, comparing and, with snapshots, saving and restoring go through the same list, so that
//! an element cannot be forgotten in one of them.

use super::{DebugRegisters, GeneralRegisters, Msr, PendingEvents, RunState, Segment, SystemRegisters};

/// The whole architectural state of one CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuState {
    /// General registers.
    pub general: GeneralRegisters,
    /// Segments, tables, control registers.
    pub system: SystemRegisters,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// Extended control register 0: which XSAVE components are enabled.
    pub xcr0: u64,
    /// x87, SSE and extended state in the standard (not compacted) XSAVE format (Intel SDM vol. 1, 13.4).
    pub xsave: Vec<u8>,
    /// Model-specific registers of [`super::SAVED_MSRS`] that the backend has, in that order.
    pub msrs: Vec<Msr>,
    /// Local APIC registers, one a 16-byte slot (Intel SDM vol. 3, table 11-1), slots 0 to 63.
    pub local_apic: Vec<u32>,
    /// Events between two instructions.
    pub events: PendingEvents,
    /// Whether it executes.
    pub run_state: RunState,
}

/// One row of the state table.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// Number in records; never used again for something else.
    pub number: u16,
    /// Name in errors and comparisons.
    pub name: &'static str,
    same: fn(&CpuState, &CpuState) -> bool,
}

/// The state table.
pub fn elements() -> &'static [Element] {
    const fn row(number: u16, name: &'static str, same: fn(&CpuState, &CpuState) -> bool) -> Element {
        Element { number, name, same }
    }
    const TABLE: &[Element] = &[
        row(1, "general registers", |a, b| a.general == b.general),
        row(2, "system registers", |a, b| a.system == b.system),
        row(3, "debug registers", |a, b| a.debug == b.debug),
        row(4, "XCR0", |a, b| a.xcr0 == b.xcr0),
        row(5, "XSAVE area", |a, b| a.xsave == b.xsave),
        row(6, "model-specific registers", |a, b| a.msrs == b.msrs),
        row(7, "local APIC", |a, b| a.local_apic == b.local_apic),
        row(8, "pending events", |a, b| a.events == b.events),
        row(9, "run state", |a, b| a.run_state == b.run_state),
    ];
    TABLE
}

impl CpuState {
    /// The names of the elements in which two states differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        elements()
            .iter()
            .filter(|element| !(element.same)(self, other))
            .map(|element| element.name)
            .collect()
    }

    /// Makes this the state in which flat 64-bit code starts at privilege level 0 with paging on: `rip`, the
    /// root of page tables, code and data selectors. Flags are clear, interrupts off; what is not named stays.
    pub fn enter_long_mode(&mut self, rip: u64, page_tables: u64, code: u16, data: u16) {
        /// Protection enable, extension type, numeric error, paging (Intel SDM vol. 3, 2.5).
        const CR0: u64 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 31;
        /// Physical address extension.
        const CR4: u64 = 1 << 5;
        /// Long mode enabled and active.
        const EFER: u64 = 1 << 8 | 1 << 10;
        /// The flag that always reads as one.
        const RFLAGS: u64 = 1 << 1;
        let system = &mut self.system;
        system.segments = [Segment::data(data); 6];
        system.segments[SystemRegisters::CS] = Segment::code64(code);
        system.tr = Segment::task_state();
        system.ldtr = Segment::unusable();
        (system.cr0, system.cr3, system.cr4, system.efer) = (CR0, page_tables, CR4, EFER);
        self.general = GeneralRegisters {
            rip,
            rflags: RFLAGS,
            ..GeneralRegisters::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_names_exactly_what_differs() {
        let one = CpuState::default();
        let mut other = one.clone();
        assert!(one.differences(&other).is_empty());
        other.general.rip = 1;
        other.xcr0 = 3;
        assert_eq!(one.differences(&other), ["general registers", "XCR0"]);
    }

    #[test]
    fn elements_have_distinct_numbers() {
        let mut numbers: Vec<_> = elements().iter().map(|element| element.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), elements().len());
    }
}
