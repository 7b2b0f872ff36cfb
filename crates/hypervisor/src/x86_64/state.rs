//! The state table of one vCPU.

use super::table::state_table;
use super::{
    Activity, DebugRegisters, ExtendedState, GeneralRegisters, LocalApic, Msrs, PendingEvents, Segment,
    SegmentAttributes, SystemRegisters, TableRegister, msr,
};

state_table! {
    /// The whole architectural state of one vCPU.
    ///
    /// In the order in which it must be set: the local APIC's mode comes from the system registers, the
    /// deadline means something only in a local APIC whose timer is in that mode, and events come last because
    /// setting other registers can disturb them.
    pub struct CpuState / CpuStateAccess {
        /// Segments, descriptor tables, control registers.
        1 system: SystemRegisters => set_system,
        /// General registers.
        2 general: GeneralRegisters => set_general,
        /// XCR0: which components `XSAVE` manages.
        3 xcr0: u64 => set_xcr0,
        /// x87, SSE, AVX and later.
        4 extended: ExtendedState => set_extended,
        /// Debug registers.
        5 debug: DebugRegisters => set_debug,
        /// Time-stamp counter in ticks. Runs on: two reads differ.
        6 tsc: u64 => set_tsc,
        /// Model-specific registers of [`msr::STATE_MSRS`].
        7 msrs: Msrs => set_msrs,
        /// Local APIC.
        8 lapic: LocalApic => set_lapic,
        /// IA32_TSC_DEADLINE in ticks of the time-stamp counter, 0 where disarmed.
        9 tsc_deadline: u64 => set_tsc_deadline,
        /// Running, halted, waiting.
        10 activity: Activity => set_activity,
        /// Pending exceptions and interrupts.
        11 events: PendingEvents => set_events,
    }
}

/// The flag that always reads as one.
const RFLAGS: u64 = 1 << 1;

impl CpuState {
    /// CR0 with nothing but ET, CD and NW.
    const CR0_RESET: u64 = 0x6000_0010;

    /// The state of vCPU `index` after power-up (Intel SDM vol. 3, table 10-1): real mode at 0xfffffff0. The
    /// first processor runs, every other waits for INIT.
    pub fn reset(index: u8) -> Self {
        let mut system = SystemRegisters {
            cr0: Self::CR0_RESET,
            ..Default::default()
        };
        system.cs = Segment {
            base: 0xffff_0000,
            ..Segment::real_mode(0xf000, true)
        };
        for segment in [
            &mut system.ds,
            &mut system.es,
            &mut system.fs,
            &mut system.gs,
            &mut system.ss,
        ] {
            *segment = Segment::real_mode(0, false);
        }
        system.tr = Segment::busy_tss(0, 0, 0xffff);
        system.ldtr = Segment::ldt(0, 0, 0xffff);
        system.gdtr = TableRegister {
            base: 0,
            limit: 0xffff,
        };
        system.idtr = TableRegister {
            base: 0,
            limit: 0xffff,
        };
        // Enabled at the architectural address; bit 8 marks the bootstrap processor.
        system.apic_base = 0xfee0_0800 | if index == 0 { 1 << 8 } else { 0 };
        let mut general = GeneralRegisters {
            rip: 0xfff0,
            rflags: RFLAGS,
            ..Default::default()
        };
        // The processor's signature: family 6.
        general.gpr[GeneralRegisters::RDX] = 0x600;
        Self {
            system,
            general,
            xcr0: 1,
            extended: ExtendedState::reset(),
            debug: DebugRegisters {
                dr: [0; 4],
                dr6: 0xffff_0ff0,
                dr7: 0x400,
            },
            tsc: 0,
            msrs: Msrs::from([(msr::PAT, 0x0007_0406_0007_0406), (msr::MISC_ENABLE, 1)]),
            lapic: LocalApic::reset(index),
            tsc_deadline: 0,
            activity: if index == 0 {
                Activity::Running
            } else {
                Activity::WaitForInit
            },
            events: PendingEvents::default(),
        }
    }

    /// Makes this the state in which flat 64-bit code starts at privilege level 0 with four-level paging and
    /// SSE on: `rip`, the root of page tables, code and data selectors. General registers are zero, interrupts
    /// off, no local descriptor table; what is not named stays.
    pub fn enter_long_mode(&mut self, rip: u64, page_tables: u64, code: u16, data: u16) {
        /// PG (Intel SDM vol. 3, 2.5).
        const CR0: u64 = 1 << 31;
        /// PAE.
        const CR4: u64 = 1 << 5;
        /// LME, LMA.
        const EFER: u64 = 1 << 8 | 1 << 10;
        self.enter_protected_mode(rip, code, data);
        let system = &mut self.system;
        system.cs = Segment::flat_code64(code);
        system.tr = Segment::busy_tss(0, 0, 0xffff);
        system.ldtr = Segment {
            attributes: SegmentAttributes::UNUSABLE,
            ..Segment::default()
        };
        system.cr0 |= CR0;
        system.cr4 |= CR4;
        (system.cr3, system.efer) = (page_tables, EFER);
    }

    /// Makes this the state in which flat 32-bit code starts at privilege level 0 without paging, with SSE on.
    pub fn enter_protected_mode(&mut self, rip: u64, code: u16, data: u16) {
        /// PE, MP, ET, NE.
        const CR0: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5;
        /// OSFXSR, OSXMMEXCPT.
        const CR4: u64 = 1 << 9 | 1 << 10;
        let system = &mut self.system;
        system.cs = Segment::flat_code32(code);
        for segment in [
            &mut system.ds,
            &mut system.es,
            &mut system.fs,
            &mut system.gs,
            &mut system.ss,
        ] {
            *segment = Segment::flat_data(data);
        }
        (system.cr0, system.cr4, system.efer) = (CR0, CR4, 0);
        self.general = GeneralRegisters {
            rip,
            rflags: RFLAGS,
            ..Default::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_equal_states_is_empty() {
        assert!(CpuState::reset(0).differences(&CpuState::reset(0)).is_empty());
    }

    #[test]
    fn differences_names_each_register_by_its_path() {
        let before = CpuState::reset(0);
        let mut after = before.clone();
        after.system.cr3 = 0x1000;
        after.general.gpr[GeneralRegisters::RCX] = 1;
        after.debug.dr[2] = 7;
        after.lapic.registers[LocalApic::TPR] = 0x20;
        after.msrs.insert(msr::STAR, 5);
        after.events.nmi_pending = true;

        let names = after.differences(&before);

        let expected = [
            "system.cr3",
            "general.gpr[1]",
            "debug.dr[2]",
            "msrs[0xc0000081]",
            "lapic[0x80]",
            "events.nmi_pending",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn element_and_field_numbers_are_unique() {
        let tables = [
            CpuState::ELEMENTS,
            SystemRegisters::FIELDS,
            GeneralRegisters::FIELDS,
            DebugRegisters::FIELDS,
            ExtendedState::FIELDS,
            PendingEvents::FIELDS,
        ];
        for table in tables {
            let numbers: std::collections::BTreeSet<u16> = table.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers.len(), table.len());
        }
    }
}
