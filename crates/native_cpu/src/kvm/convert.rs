//! KVM's register structures to architectural terms and back.

use hypervisor::x86_64::{
    GeneralRegisters, LocalApic, PendingEvents, PendingException, PendingInterrupt, Segment,
    SegmentAttributes, SystemRegisters, TableRegister,
};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_PAYLOAD, KVM_VCPUEVENT_VALID_SHADOW,
    KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, kvm_dtable, kvm_lapic_state, kvm_regs, kvm_segment,
    kvm_sregs, kvm_vcpu_events,
};

pub(super) fn general_from(regs: &kvm_regs) -> GeneralRegisters {
    let r = regs;
    let low = [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi];
    let high = [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
    let mut gpr = [0; 16];
    gpr[..8].copy_from_slice(&low);
    gpr[8..].copy_from_slice(&high);
    GeneralRegisters {
        gpr,
        rip: r.rip,
        rflags: r.rflags,
    }
}

#[rustfmt::skip]
pub(super) fn general_to(general: &GeneralRegisters) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = general.gpr;
    let GeneralRegisters { rip, rflags, .. } = *general;
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

fn segment_from(segment: &kvm_segment) -> Segment {
    let bits = u32::from(segment.type_ & 0xf)
        | u32::from(segment.s) << 4
        | u32::from(segment.dpl) << 5
        | u32::from(segment.present) << 7
        | u32::from(segment.avl) << 12
        | u32::from(segment.l) << 13
        | u32::from(segment.db) << 14
        | u32::from(segment.g) << 15
        | u32::from(segment.unusable) << 16;
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: SegmentAttributes::from_bits_retain(bits),
    }
}

fn segment_to(segment: &Segment) -> kvm_segment {
    let bits = segment.attributes.bits();
    let field = |low: u32, width: u32| (bits >> low & ((1 << width) - 1)) as u8;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: field(0, 4),
        s: field(4, 1),
        dpl: field(5, 2),
        present: field(7, 1),
        avl: field(12, 1),
        l: field(13, 1),
        db: field(14, 1),
        g: field(15, 1),
        unusable: field(16, 1),
        padding: 0,
    }
}

fn table_from(table: &kvm_dtable) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

fn table_to(table: TableRegister) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        ..Default::default()
    }
}

pub(super) fn system_from(sregs: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        cs: segment_from(&sregs.cs),
        ds: segment_from(&sregs.ds),
        es: segment_from(&sregs.es),
        fs: segment_from(&sregs.fs),
        gs: segment_from(&sregs.gs),
        ss: segment_from(&sregs.ss),
        tr: segment_from(&sregs.tr),
        ldtr: segment_from(&sregs.ldt),
        gdtr: table_from(&sregs.gdt),
        idtr: table_from(&sregs.idt),
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        cr8: sregs.cr8,
        efer: sregs.efer,
        apic_base: sregs.apic_base,
    }
}

/// The interrupt bitmap stays empty: what is pending belongs to the events.
pub(super) fn system_to(system: &SystemRegisters) -> kvm_sregs {
    kvm_sregs {
        cs: segment_to(&system.cs),
        ds: segment_to(&system.ds),
        es: segment_to(&system.es),
        fs: segment_to(&system.fs),
        gs: segment_to(&system.gs),
        ss: segment_to(&system.ss),
        tr: segment_to(&system.tr),
        ldt: segment_to(&system.ldtr),
        gdt: table_to(system.gdtr),
        idt: table_to(system.idtr),
        cr0: system.cr0,
        cr2: system.cr2,
        cr3: system.cr3,
        cr4: system.cr4,
        cr8: system.cr8,
        efer: system.efer,
        apic_base: system.apic_base,
        interrupt_bitmap: [0; 4],
    }
}

/// A mode of the local APIC's timer (Intel SDM vol. 3, 11.5.4).
const ONE_SHOT: u32 = 0;

pub(super) fn lapic_from(page: &kvm_lapic_state) -> LocalApic {
    let mut registers = [0; 64];
    for (register, slot) in registers.iter_mut().zip(page.regs.as_chunks::<16>().0) {
        *register = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]].map(|byte| byte as u8));
    }
    // An interrupt of a timer that counted down and is not requested yet is in no register. KVM has it come at once where
    // it sets such a count; for others there must be something left to count, though it be one that was taken already.
    let mode = registers[LocalApic::LVT_TIMER] >> 17 & 3;
    if mode == ONE_SHOT && registers[LocalApic::TIMER_INITIAL] != 0 {
        let current = &mut registers[LocalApic::TIMER_CURRENT];
        *current = (*current).max(1);
    }
    LocalApic { registers }
}

pub(super) fn lapic_to(lapic: &LocalApic) -> kvm_lapic_state {
    let mut page = kvm_lapic_state::default();
    for (slot, register) in page.regs.as_chunks_mut::<16>().0.iter_mut().zip(lapic.registers) {
        for (byte, value) in slot.iter_mut().zip(register.to_le_bytes()) {
            *byte = value as _;
        }
    }
    page
}

pub(super) fn events_from(events: &kvm_vcpu_events) -> PendingEvents {
    let exception = &events.exception;
    let present = exception.injected != 0 || exception.pending != 0;
    let shadow = u32::from(events.interrupt.shadow);
    PendingEvents {
        exception: present.then(|| PendingException {
            vector: exception.nr,
            error_code: (exception.has_error_code != 0).then_some(exception.error_code),
            payload: (events.exception_has_payload != 0).then_some(events.exception_payload),
            injected: exception.injected != 0,
        }),
        interrupt: (events.interrupt.injected != 0).then_some(PendingInterrupt {
            vector: events.interrupt.nr,
            software: events.interrupt.soft != 0,
        }),
        // AMD has one shadow for both causes, and KVM then reports both; no processor has both at once.
        shadow_sti: shadow & KVM_X86_SHADOW_INT_STI != 0 && shadow & KVM_X86_SHADOW_INT_MOV_SS == 0,
        shadow_mov_ss: shadow & KVM_X86_SHADOW_INT_MOV_SS != 0,
        nmi_injected: events.nmi.injected != 0,
        nmi_pending: events.nmi.pending != 0,
        nmi_masked: events.nmi.masked != 0,
    }
}

/// `before` is what KVM has now. Its payload flag tells whether it takes exceptions that are pending and not
/// yet injected; the other parts of it (SMM, triple fault) stay as they are.
pub(super) fn events_to(value: &PendingEvents, before: &kvm_vcpu_events) -> kvm_vcpu_events {
    let payloads = before.flags & KVM_VCPUEVENT_VALID_PAYLOAD;
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | payloads,
        ..Default::default()
    };
    if let Some(exception) = value.exception {
        let injected = exception.injected || payloads == 0;
        events.exception.injected = injected.into();
        events.exception.pending = (!injected).into();
        events.exception.nr = exception.vector;
        events.exception.has_error_code = exception.error_code.is_some().into();
        events.exception.error_code = exception.error_code.unwrap_or(0);
        events.exception_has_payload = (exception.payload.is_some() && !injected).into();
        events.exception_payload = exception.payload.unwrap_or(0);
    }
    if let Some(interrupt) = value.interrupt {
        events.interrupt.injected = 1;
        events.interrupt.nr = interrupt.vector;
        events.interrupt.soft = interrupt.software.into();
    }
    let shadow_bit = |set: bool, bit: u32| if set { bit as u8 } else { 0 };
    events.interrupt.shadow = shadow_bit(value.shadow_sti, KVM_X86_SHADOW_INT_STI)
        | shadow_bit(value.shadow_mov_ss, KVM_X86_SHADOW_INT_MOV_SS);
    events.nmi.injected = value.nmi_injected.into();
    events.nmi.pending = value.nmi_pending.into();
    events.nmi.masked = value.nmi_masked.into();
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_to_kvm_and_back_keeps_every_bit() {
        for segment in [
            Segment::flat_code64(8),
            Segment::flat_data(16),
            Segment::real_mode(0x1234, true),
        ] {
            assert_eq!(segment_from(&segment_to(&segment)), segment);
        }
        let unusable = Segment {
            attributes: SegmentAttributes::UNUSABLE | SegmentAttributes::DPL,
            ..Default::default()
        };
        assert_eq!(segment_from(&segment_to(&unusable)), unusable);
    }

    #[test]
    fn lapic_from_kvm_has_something_left_of_a_timer_that_was_set() {
        let mut lapic = LocalApic::reset(0);
        lapic.registers[LocalApic::TIMER_INITIAL] = 1000;
        let read = |lapic: &LocalApic| lapic_from(&lapic_to(lapic)).registers[LocalApic::TIMER_CURRENT];

        assert_eq!(read(&lapic), 1);
        lapic.registers[LocalApic::TIMER_CURRENT] = 500;
        assert_eq!(read(&lapic), 500);
        lapic.registers[LocalApic::TIMER_CURRENT] = 0;
        lapic.registers[LocalApic::LVT_TIMER] |= 1 << 17;
        assert_eq!(read(&lapic), 0);
        assert_eq!(read(&LocalApic::reset(0)), 0);
    }

    #[test]
    fn events_to_kvm_and_back_keeps_a_pending_page_fault() {
        let exception = PendingException {
            vector: 14,
            error_code: Some(2),
            payload: Some(0x1000),
            injected: false,
        };
        let value = PendingEvents {
            exception: Some(exception),
            shadow_sti: true,
            ..Default::default()
        };
        let before = kvm_vcpu_events {
            flags: KVM_VCPUEVENT_VALID_PAYLOAD,
            ..Default::default()
        };

        assert_eq!(events_from(&events_to(&value, &before)), value);
    }

    #[test]
    fn lapic_to_kvm_and_back_keeps_every_register() {
        let mut lapic = LocalApic::reset(3);
        lapic.registers[LocalApic::LDR] = 0xff80_7f01;

        assert_eq!(lapic_from(&lapic_to(&lapic)), lapic);
    }
}
