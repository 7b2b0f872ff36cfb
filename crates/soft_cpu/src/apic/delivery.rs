//! Interrupts between local APICs, from devices, and the guest's accesses to the registers.

use std::sync::{Arc, PoisonError, RwLock};

use guest_memory::WriteObserver;
use hypervisor::x86_64::LocalApic;
use hypervisor::{GuestIo, Msi};

use super::registers::{
    BASE_ENABLED, BASE_X2APIC, EOI, ERROR_STATUS, ICR_HIGH, ICR_LOW, LVT_CMCI, Registers, SELF_IPI,
};
use super::{Apic, State};
use crate::attention::{Attention, EVENT};
use crate::exclusive::Exclusive;
use crate::memory::{PAGE_OFFSET, PHYSICAL_BITS};

/// Model-specific registers of this part.
const MSR_APIC_BASE: u32 = 0x1b;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
const MSR_X2APIC: u32 = 0x800;

/// Delivery modes (11.6.1).
const FIXED: u32 = 0;
const LOWEST_PRIORITY: u32 = 1;
const NMI: u32 = 4;
const INIT: u32 = 5;
const STARTUP: u32 = 6;

/// An interrupt on its way to some processors.
#[derive(Clone, Copy, Debug)]
struct Message {
    vector: u8,
    mode: u32,
    level: bool,
    destination: u32,
    logical: bool,
    /// The destination is as x2APIC has it: 32 bits.
    wide: bool,
}

/// All local APICs of a VM, by number.
#[derive(Debug, Default)]
pub(crate) struct Interconnect {
    apics: RwLock<Vec<Arc<Apic>>>,
    exclusive: Exclusive,
}

impl Interconnect {
    pub(crate) fn add(&self, apic: Arc<Apic>) {
        self.apics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(apic);
    }

    /// Which of the vCPUs is alone with guest memory.
    pub(crate) fn exclusive(&self) -> &Exclusive {
        &self.exclusive
    }

    /// The attention of every vCPU but `id`.
    pub(crate) fn others(&self, id: u32) -> Vec<Arc<Attention>> {
        let apics = self.apics.read().unwrap_or_else(PoisonError::into_inner);
        let others = apics.iter().filter(|apic| apic.id != id);
        others.map(|apic| apic.attention.clone()).collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Apic>> {
        self.apics.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Delivers a message-signalled interrupt (11.11).
    pub(crate) fn signal(&self, msi: Msi) {
        self.send(Message {
            vector: msi.data as u8,
            mode: msi.data >> 8 & 7,
            level: msi.data >> 15 & 1 != 0,
            destination: (msi.address >> 12) as u32 & 0xff,
            logical: msi.address >> 2 & 1 != 0,
            wide: false,
        });
    }

    fn send(&self, message: Message) {
        let apics = self.apics.read().unwrap_or_else(PoisonError::into_inner);
        let mut targets = apics.iter().filter(|apic| apic.is_addressed(&message));
        if message.mode == LOWEST_PRIORITY {
            if let Some(first) = targets.next() {
                first.accept(&message);
            }
            return;
        }
        targets.for_each(|apic| apic.accept(&message));
    }
}

impl WriteObserver for Interconnect {
    fn page_written(&self, gpa: u64) {
        let apics = self.apics.read().unwrap_or_else(PoisonError::into_inner);
        apics.iter().for_each(|apic| apic.attention.code_changed(gpa));
    }
}

impl Apic {
    /// The attention of every other vCPU.
    pub(crate) fn other_attentions(&self) -> Vec<Arc<Attention>> {
        self.interconnect()
            .map_or_else(Vec::new, |others| others.others(self.id))
    }

    /// What connects it with the others of its VM.
    pub(crate) fn interconnect(&self) -> Option<Arc<Interconnect>> {
        self.others.upgrade()
    }

    fn is_addressed(&self, message: &Message) -> bool {
        let state = self.state();
        let everybody = if message.wide { 0xffff_ffff } else { 0xff };
        if message.destination == everybody {
            return true;
        }
        if !message.logical {
            let x2apic = state.registers.x2apic();
            let id = if x2apic {
                self.id
            } else {
                state.registers.get(LocalApic::ID) >> 24
            };
            return message.destination == id;
        }
        if state.registers.x2apic() {
            let mine = Registers::x2apic_logical_id(self.id);
            return mine >> 16 == message.destination >> 16 && mine & message.destination & 0xffff != 0;
        }
        let mine = state.registers.get(LocalApic::LDR) >> 24;
        if state.registers.get(LocalApic::DFR) >> 28 == 0xf {
            return mine & message.destination & 0xff != 0;
        }
        // Cluster model (11.6.2.2).
        let cluster = message.destination >> 4 & 0xf;
        (cluster == 0xf || cluster == mine >> 4) && mine & message.destination & 0xf != 0
    }

    fn accept(&self, message: &Message) {
        match message.mode {
            FIXED | LOWEST_PRIORITY => self.request(message.vector, message.level),
            NMI => self.signal(|signals| signals.nmi = true),
            INIT => self.signal(|signals| (signals.init, signals.startup) = (true, None)),
            STARTUP => self.signal(|signals| signals.startup = Some(message.vector)),
            // SMI, ExtINT: nothing in this machine sends them.
            _ => {}
        }
    }

    /// The offset of `gpa` in the register page, where that is where it lies and the mode has one.
    pub(crate) fn page_offset(&self, gpa: u64) -> Option<u64> {
        let state = self.state();
        let base = state.registers.base;
        let here =
            base & BASE_ENABLED != 0 && base & BASE_X2APIC == 0 && gpa & !PAGE_OFFSET == base & !PAGE_OFFSET;
        here.then_some(gpa & PAGE_OFFSET)
    }

    /// A load from the register page: registers are 32 bits wide, at multiples of 16 (11.4.1).
    pub(crate) fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        let word = self.read_register((offset / 16) as usize).to_le_bytes();
        for (byte, at) in data.iter_mut().zip(offset as usize % 16..) {
            *byte = word.get(at).copied().unwrap_or(0);
        }
    }

    /// A store to the register page. Only whole registers can be stored.
    pub(crate) fn mmio_write(&self, offset: u64, data: &[u8], io: &dyn GuestIo) {
        if let (0, Ok(word)) = (offset % 16, data.try_into()) {
            self.write_register((offset / 16) as usize, u32::from_le_bytes(word), io);
        }
    }

    fn read_register(&self, register: usize) -> u32 {
        let state = self.state();
        match register {
            LocalApic::TIMER_CURRENT => self.current_count(&state),
            0x40.. => 0,
            _ => state.registers.read(register),
        }
    }

    fn write_register(&self, register: usize, value: u32, io: &dyn GuestIo) {
        let mut state = self.state();
        match register {
            EOI => {
                let ended = state.registers.end_service();
                self.look_again(&state);
                drop(state);
                if let Some(vector) = ended {
                    io.eoi(vector);
                }
            }
            LocalApic::TPR => {
                state.registers.write(register, value);
                self.look_again(&state);
            }
            LocalApic::TIMER_INITIAL => {
                state.registers.set(register, value);
                self.start_counting(&mut state, value);
            }
            LocalApic::LVT_TIMER => {
                let before = state.registers.get(register);
                state.registers.write(register, value);
                self.local_timer_changed(&mut state, before);
            }
            ICR_LOW => {
                state.registers.write(register, value);
                let destination = if state.registers.x2apic() {
                    state.registers.get(ICR_HIGH)
                } else {
                    state.registers.get(ICR_HIGH) >> 24
                };
                let wide = state.registers.x2apic();
                drop(state);
                self.send_ipi(value, destination, wide);
            }
            0x40.. => {}
            _ => state.registers.write(register, value),
        }
    }

    /// Has the vCPU look for interrupts again after its priority may have fallen.
    fn look_again(&self, state: &State) {
        if state.registers.deliverable().is_some() {
            self.attention.post(EVENT);
        }
    }

    /// A store to the interrupt command register (11.6.1).
    fn send_ipi(&self, command: u32, destination: u32, wide: bool) {
        let message = Message {
            vector: command as u8,
            mode: command >> 8 & 7,
            level: false,
            destination,
            logical: command >> 11 & 1 != 0,
            wide,
        };
        // INIT level de-assert: only synchronises the ids of processors long gone.
        if message.mode == INIT && command & (1 << 14 | 1 << 15) == 1 << 15 {
            return;
        }
        let Some(others) = self.others.upgrade() else {
            return;
        };
        match command >> 18 & 3 {
            0 => others.send(message),
            1 => self.accept(&message),
            shorthand => {
                for apic in others.all() {
                    if shorthand == 2 || apic.id != self.id {
                        apic.accept(&message);
                    }
                }
            }
        }
    }

    /// A read of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register; `None` is #GP.
    pub(crate) fn msr_read(&self, index: u32) -> Option<u64> {
        match index {
            MSR_APIC_BASE => return Some(self.base()),
            MSR_TSC_DEADLINE => return Some(self.tsc_deadline()),
            _ => {}
        }
        let register = x2apic_register(index)?;
        if !self.state().registers.x2apic() {
            return None;
        }
        match register {
            LocalApic::ID => Some(self.id.into()),
            LocalApic::LDR => Some(Registers::x2apic_logical_id(self.id).into()),
            ICR_LOW => {
                let state = self.state();
                Some(u64::from(state.registers.get(ICR_HIGH)) << 32 | u64::from(state.registers.get(ICR_LOW)))
            }
            LocalApic::DFR | ICR_HIGH | EOI | SELF_IPI => None,
            _ if !exists(register) => None,
            _ => Some(self.read_register(register).into()),
        }
    }

    /// A store to one of them; `false` is #GP.
    pub(crate) fn msr_write(&self, index: u32, value: u64, io: &dyn GuestIo) -> bool {
        match index {
            MSR_APIC_BASE => return self.write_base(value),
            MSR_TSC_DEADLINE => {
                self.set_tsc_deadline(value);
                return true;
            }
            _ => {}
        }
        let Some(register) = x2apic_register(index).filter(|_| self.state().registers.x2apic()) else {
            return false;
        };
        match register {
            ICR_LOW => {
                self.state().registers.set(ICR_HIGH, (value >> 32) as u32);
                self.write_register(ICR_LOW, value as u32, io);
            }
            SELF_IPI if value <= 0xff => self.request(value as u8, false),
            EOI | ERROR_STATUS if value != 0 => return false,
            LocalApic::ID | LocalApic::VERSION | LocalApic::PPR | LocalApic::LDR | LocalApic::DFR => {
                return false;
            }
            LocalApic::ISR..ERROR_STATUS | ICR_HIGH | LocalApic::TIMER_CURRENT => return false,
            _ if !exists(register) || value >> 32 != 0 => return false,
            _ => self.write_register(register, value as u32, io),
        }
        true
    }

    /// The transitions that IA32_APIC_BASE allows (11.12.5).
    fn write_base(&self, value: u64) -> bool {
        const RESERVED: u64 = 0xff | 1 << 9;
        let mut state = self.state();
        let before = state.registers.base;
        let mode = |base: u64| base & (BASE_ENABLED | BASE_X2APIC);
        let allowed = match (mode(before), mode(value)) {
            (_, BASE_X2APIC) => false,
            // From x2APIC only off; to x2APIC only from xAPIC.
            (old, new) if old == BASE_ENABLED | BASE_X2APIC => new != BASE_ENABLED,
            (0, new) => new != BASE_ENABLED | BASE_X2APIC,
            _ => true,
        };
        if !allowed || value & RESERVED != 0 || value >> PHYSICAL_BITS != 0 {
            return false;
        }
        state.registers.base = value;
        if state.registers.x2apic() && mode(before) == BASE_ENABLED {
            state.registers.set(LocalApic::ID, self.id);
            state
                .registers
                .set(LocalApic::LDR, Registers::x2apic_logical_id(self.id));
        }
        true
    }
}

/// The register behind an MSR of the x2APIC range.
fn x2apic_register(index: u32) -> Option<usize> {
    let register = index.wrapping_sub(MSR_X2APIC) as usize;
    (register < 0x40).then_some(register)
}

/// Which registers there are besides the ranges above (11.12.1.2).
fn exists(register: usize) -> bool {
    matches!(
        register,
        LocalApic::ID
            | LocalApic::VERSION
            | LocalApic::TPR
            | LocalApic::PPR
            | EOI
            | LocalApic::LDR
            | LocalApic::SPURIOUS
            | LocalApic::ISR..=ERROR_STATUS
            | LVT_CMCI
            | ICR_LOW
            | LocalApic::LVT_TIMER..=LocalApic::TIMER_CURRENT
            | LocalApic::TIMER_DIVIDE
            | SELF_IPI
    )
}
