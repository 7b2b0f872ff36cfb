//! The register page and what its registers mean together.

use hypervisor::x86_64::LocalApic;

/// IA32_APIC_BASE: this processor starts the system; x2APIC mode; on at all; the page's address.
const BASE_BOOTSTRAP: u64 = 1 << 8;
pub(super) const BASE_X2APIC: u64 = 1 << 10;
pub(super) const BASE_ENABLED: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0xfee0_0000;
/// Spurious-interrupt vector register: software has switched the APIC on.
const SOFTWARE_ENABLED: u32 = 1 << 8;

/// Registers that [`LocalApic`] has no name for, by number.
pub(super) const EOI: usize = 0x0b;
pub(super) const ERROR_STATUS: usize = 0x28;
pub(super) const LVT_CMCI: usize = 0x2f;
pub(super) const ICR_LOW: usize = 0x30;
pub(super) const ICR_HIGH: usize = 0x31;
pub(super) const SELF_IPI: usize = 0x3f;

/// Delivery status of a local vector or the ICR: never pending here.
const DELIVERY_STATUS: u32 = 1 << 12;
/// Mask bit of a local vector.
pub(super) const MASKED: u32 = 1 << 16;

/// The page and the base register.
#[derive(Debug)]
pub(super) struct Registers {
    pub(super) page: LocalApic,
    pub(super) base: u64,
}

impl Registers {
    pub(super) fn reset(id: u32) -> Self {
        let bootstrap = if id == 0 { BASE_BOOTSTRAP } else { 0 };
        // Ids above 255 exist only in x2APIC mode, which reads them from elsewhere.
        Self {
            page: LocalApic::reset(id as u8),
            base: BASE_ADDRESS | BASE_ENABLED | bootstrap,
        }
    }

    pub(super) fn get(&self, register: usize) -> u32 {
        self.page.registers[register]
    }

    pub(super) fn set(&mut self, register: usize, value: u32) {
        self.page.registers[register] = value;
    }

    pub(super) fn x2apic(&self) -> bool {
        self.base & (BASE_X2APIC | BASE_ENABLED) == BASE_X2APIC | BASE_ENABLED
    }

    pub(super) fn enabled(&self) -> bool {
        self.base & BASE_ENABLED != 0
    }

    fn software_enabled(&self) -> bool {
        self.enabled() && self.get(LocalApic::SPURIOUS) & SOFTWARE_ENABLED != 0
    }

    fn bit(&self, first: usize, vector: u8) -> bool {
        self.get(first + usize::from(vector / 32)) >> (vector % 32) & 1 != 0
    }

    fn set_bit(&mut self, first: usize, vector: u8, on: bool) {
        let word = &mut self.page.registers[first + usize::from(vector / 32)];
        *word = *word & !(1 << (vector % 32)) | u32::from(on) << (vector % 32);
    }

    /// The highest vector of a 256-bit register.
    fn highest(&self, first: usize) -> Option<u8> {
        (0..8_u8).rev().find_map(|word| {
            let bits = self.get(first + usize::from(word));
            (bits != 0).then(|| word * 32 + (31 - bits.leading_zeros() as u8))
        })
    }

    /// Makes `vector` wait; says whether it does.
    pub(super) fn request(&mut self, vector: u8, level: bool) -> bool {
        // Vectors 0 to 15 are illegal (11.5.2).
        if !self.software_enabled() || vector < 16 {
            return false;
        }
        self.set_bit(LocalApic::IRR, vector, true);
        self.set_bit(LocalApic::TMR, vector, level);
        true
    }

    /// PPR (11.8.3.1).
    pub(super) fn processor_priority(&self) -> u32 {
        let task = self.get(LocalApic::TPR) & 0xff;
        let service = self
            .highest(LocalApic::ISR)
            .map_or(0, |vector| u32::from(vector) & 0xf0);
        if task & 0xf0 >= service { task } else { service }
    }

    /// The interrupt that the processor is to take, where one is above its priority.
    pub(super) fn deliverable(&self) -> Option<u8> {
        if !self.software_enabled() {
            return None;
        }
        let vector = self.highest(LocalApic::IRR)?;
        (u32::from(vector) >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    pub(super) fn start_service(&mut self, vector: u8) {
        self.set_bit(LocalApic::IRR, vector, false);
        self.set_bit(LocalApic::ISR, vector, true);
    }

    /// Ends the interrupt in service; gives its vector where it was level-triggered.
    pub(super) fn end_service(&mut self) -> Option<u8> {
        let vector = self.highest(LocalApic::ISR)?;
        self.set_bit(LocalApic::ISR, vector, false);
        self.bit(LocalApic::TMR, vector).then_some(vector)
    }

    /// What a guest reads from a register that is nothing but stored.
    pub(super) fn read(&self, register: usize) -> u32 {
        match register {
            LocalApic::PPR => self.processor_priority(),
            EOI | SELF_IPI => 0,
            _ => self.get(register),
        }
    }

    /// Stores what a guest writes to a register that does nothing else; others stay as they are.
    pub(super) fn write(&mut self, register: usize, value: u32) {
        let x2apic = self.x2apic();
        let value = match register {
            LocalApic::ID if !x2apic => value & 0xff00_0000,
            LocalApic::TPR => value & 0xff,
            LocalApic::LDR if !x2apic => value & 0xff00_0000,
            LocalApic::DFR if !x2apic => value | 0x0fff_ffff,
            LocalApic::SPURIOUS => {
                if value & SOFTWARE_ENABLED == 0 {
                    self.mask_local_vectors();
                }
                value & 0x1ff
            }
            // Errors are read after a store; none are ever noted here.
            ERROR_STATUS => 0,
            LVT_CMCI | LocalApic::LVT_TIMER..=LocalApic::LVT_ERROR => self.local_vector(register, value),
            LocalApic::TIMER_DIVIDE => value & 0xb,
            ICR_LOW => value & !DELIVERY_STATUS,
            ICR_HIGH => value,
            _ => return,
        };
        self.set(register, value);
    }

    /// While software has the APIC off, local vectors stay masked (11.4.7.2).
    fn local_vector(&self, register: usize, value: u32) -> u32 {
        let bits = match register {
            LocalApic::LVT_TIMER => 0x7_00ff,
            LocalApic::LVT_LINT0 | LocalApic::LVT_LINT1 => 0x1_a7ff,
            LocalApic::LVT_ERROR => 0x1_00ff,
            _ => 0x1_07ff,
        };
        let off = self.get(LocalApic::SPURIOUS) & SOFTWARE_ENABLED == 0;
        value & bits | if off { MASKED } else { 0 }
    }

    fn mask_local_vectors(&mut self) {
        for register in LocalApic::LVT_TIMER..=LocalApic::LVT_ERROR {
            self.page.registers[register] |= MASKED;
        }
    }

    /// Logical id in x2APIC mode (11.12.10.2).
    pub(super) fn x2apic_logical_id(id: u32) -> u32 {
        id >> 4 << 16 | 1 << (id & 0xf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> Registers {
        let mut registers = Registers::reset(0);
        registers.write(LocalApic::SPURIOUS, 0x1ff);
        registers
    }

    #[test]
    fn deliverable_only_above_task_priority_and_what_is_in_service() {
        let mut registers = enabled();
        registers.request(0x51, false);
        registers.write(LocalApic::TPR, 0x50);
        assert_eq!(registers.deliverable(), None);
        registers.write(LocalApic::TPR, 0x4f);
        assert_eq!(registers.deliverable(), Some(0x51));
        registers.start_service(0x51);
        registers.request(0x5f, false);
        assert_eq!(registers.deliverable(), None);
        registers.request(0x60, false);
        assert_eq!(registers.deliverable(), Some(0x60));
    }

    #[test]
    fn end_service_names_only_level_triggered_vectors() {
        let mut registers = enabled();
        registers.request(0x40, true);
        registers.start_service(0x40);
        registers.request(0x70, false);
        registers.start_service(0x70);
        assert_eq!(registers.end_service(), None);
        assert_eq!(registers.end_service(), Some(0x40));
        assert_eq!(registers.end_service(), None);
    }

    #[test]
    fn request_while_software_disabled_is_dropped() {
        assert!(!Registers::reset(0).request(0x40, false));
    }
}
