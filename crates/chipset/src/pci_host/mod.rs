//! The PCI host bridge and its root bus.
//!
//! Configuration space is reached through ports 0xcf8 to 0xcff and through ECAM. The memory windows are
//! dispatched to whatever BARs decode at the moment: what functions decode is looked up after each
//! configuration write and kept, and no lock of the bridge is held while a function is called, so vCPUs reach
//! different functions at the same time.
//!
//! There is one bus with one function in each of its 32 slots, and no INTx: functions interrupt by message.

mod bridge;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use device_model::pci::{BarWindow, PciFunction};
use device_model::{ConcurrentDevice, MmioRange, PortRange, SharedDevice, lock};
use saved_state::{Unit, require};

use crate::Error;
use bridge::Bridge;
use registers::*;
use saved::SavedPciHost;

/// Slots of the bus.
const SLOTS: u8 = 32;

/// Where the bridge sits in the guest's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciHostConfig {
    /// First address of ECAM, 1 MiB long and aligned: bus 0 only.
    pub ecam_gpa: u64,
    /// Windows for BARs, below and above 4 GiB.
    pub windows: Vec<MmioRange>,
}

impl PciHostConfig {
    /// Where ECAM lies.
    pub fn ecam(&self) -> MmioRange {
        MmioRange {
            gpa: self.ecam_gpa,
            len: ECAM_BUS_LEN,
        }
    }
}

/// The host bridge.
pub struct PciHost {
    config: PciHostConfig,
    /// What is in slot 0.
    bridge: Arc<Mutex<Bridge>>,
    slots: [Option<SharedDevice>; SLOTS as usize],
    address: AtomicU32,
    /// What decodes now. Taken for writing only with the lock of the function that changed.
    decoded: RwLock<Vec<Decoded>>,
}

/// A BAR that decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decoded {
    slot: u8,
    window: BarWindow,
}

/// A configuration cycle: one aligned register of the function in one slot.
#[derive(Clone, Copy)]
struct Cycle {
    slot: u8,
    register: u16,
}

impl PciHost {
    /// A bridge with only itself, as 00:00.0, on the bus.
    pub fn new(config: PciHostConfig) -> Self {
        let mut slots: [Option<SharedDevice>; SLOTS as usize] = [const { None }; _];
        let bridge = bridge::bridge();
        slots[0] = Some(bridge.clone());
        Self {
            config,
            bridge,
            slots,
            address: AtomicU32::new(0),
            decoded: RwLock::default(),
        }
    }

    /// Puts `device` on the bus as function 0 of device `number`, 1 to 31. The device is called with its own
    /// lock held, so it and its threads take that lock only for the device itself.
    ///
    /// # Errors
    /// [`Error::PciSlot`] where that number is past 31 or taken, [`Error::NotPci`] for a device without a PCI
    /// function.
    pub fn add(&mut self, number: u8, device: SharedDevice) -> Result<(), Error> {
        let mut guard = lock(&device);
        if guard.pci().is_none() {
            let device = guard.name().to_owned();
            return Err(Error::NotPci { device });
        }
        drop(guard);
        match self.slots.get_mut(usize::from(number)) {
            Some(slot @ None) => *slot = Some(device),
            _ => return Err(Error::PciSlot { number }),
        }
        self.refresh_slot(number);
        Ok(())
    }

    /// Looks up anew what every function decodes: after functions were reset or restored past the bridge.
    pub fn refresh(&self) {
        for slot in 0..SLOTS {
            self.refresh_slot(slot);
        }
    }

    fn refresh_slot(&self, slot: u8) {
        self.with_function(slot, |function| self.take_over(slot, function));
    }

    /// Takes over what `function` in `slot` decodes. Its lock is held, so changes arrive in order.
    fn take_over(&self, slot: u8, function: &mut dyn PciFunction) {
        let now: Vec<Decoded> = function
            .bars()
            .into_iter()
            .map(|window| Decoded { slot, window })
            .collect();
        let is_same = {
            let decoded = self.decoded();
            let before = decoded.iter().filter(|decoded| decoded.slot == slot);
            before.eq(now.iter())
        };
        if !is_same {
            let mut decoded = self.decoded_mut();
            decoded.retain(|decoded| decoded.slot != slot);
            decoded.extend(now);
        }
    }

    fn with_function<T>(&self, slot: u8, act: impl FnOnce(&mut dyn PciFunction) -> T) -> Option<T> {
        let device = self.slots.get(usize::from(slot))?.as_ref()?;
        let mut device = lock(device);
        device.pci().map(act)
    }

    /// A register of a function that is not there reads as all ones.
    fn config_read(&self, cycle: Cycle) -> u32 {
        self.with_function(cycle.slot, |function| function.config_read(cycle.register))
            .unwrap_or(u32::MAX)
    }

    fn config_write(&self, cycle: Cycle, value: u32, byte_enable: u8) {
        self.with_function(cycle.slot, |function| {
            function.config_write(cycle.register, value, byte_enable);
            self.take_over(cycle.slot, function);
        });
    }

    /// What CONFIG_ADDRESS selects, unless it is switched off or names another bus or function.
    fn selected(&self) -> Option<Cycle> {
        let address = self.address.load(Ordering::Relaxed);
        let on_bus_0 = address & ADDRESS_ENABLE != 0 && address >> 16 & 0xff == 0 && address >> 8 & 7 == 0;
        on_bus_0.then_some(Cycle {
            slot: (address >> 11 & 0x1f) as u8,
            register: (address & 0xfc) as u16,
        })
    }

    /// The register at `offset` in ECAM, unless that is in another function than 0.
    fn ecam_cycle(offset: u64) -> Option<Cycle> {
        let on_bus_0 = offset < ECAM_BUS_LEN && offset >> 12 & 7 == 0;
        on_bus_0.then_some(Cycle {
            slot: (offset >> 15 & 0x1f) as u8,
            register: (offset & 0xffc) as u16,
        })
    }

    /// The function, BAR and offset that decode all of an access.
    fn decode(&self, gpa: u64, len: usize) -> Option<(u8, u8, u64)> {
        let decoded = self.decoded();
        decoded.iter().find_map(|Decoded { slot, window }| {
            let offset = gpa.checked_sub(window.gpa)?;
            let end = offset.checked_add(len as u64)?;
            (end <= window.len).then_some((*slot, window.bar, offset))
        })
    }

    fn ecam_offset(&self, gpa: u64) -> Option<u64> {
        gpa.checked_sub(self.config.ecam_gpa)
            .filter(|offset| *offset < ECAM_BUS_LEN)
    }

    fn bridge(&self) -> MutexGuard<'_, Bridge> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoded(&self) -> RwLockReadGuard<'_, Vec<Decoded>> {
        self.decoded.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn decoded_mut(&self) -> RwLockWriteGuard<'_, Vec<Decoded>> {
        self.decoded.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits an access of `len` bytes that begins at byte `offset` at register boundaries: for each register its
/// offset, the first of its bytes touched, and which part of the data that is.
fn registers_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let first = (at % 4) as usize;
        let count = (4 - first).min(len - done);
        let part = done..done + count;
        done += count;
        (count > 0).then_some((at - first as u64, first, part))
    })
}

/// Value and byte enables of a register for a store of `data` that begins at its byte `first`.
fn merge(first: usize, data: &[u8]) -> (u32, u8) {
    let mut value = [0; 4];
    let mut byte_enable = 0;
    for (n, byte) in data.iter().enumerate().take(4 - first) {
        value[first + n] = *byte;
        byte_enable |= 1 << (first + n);
    }
    (u32::from_le_bytes(value), byte_enable)
}

impl ConcurrentDevice for PciHost {
    fn name(&self) -> &str {
        "pci"
    }

    /// Resets the bridge and all functions.
    fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
        for device in self.slots.iter().flatten() {
            lock(device).reset();
        }
        self.refresh();
    }

    /// Of functions, only the bridge's own is part of it.
    fn save(&self) -> Unit {
        let saved = SavedPciHost {
            address: self.address.load(Ordering::Relaxed),
            bridge: self.bridge().config.save(),
        };
        Unit::new(saved::SCHEMA, &saved)
    }

    /// Called after all functions on the bus were restored.
    fn restore(&self, unit: &Unit) -> Result<(), saved_state::Error> {
        let SavedPciHost { address, bridge } = unit.decode(saved::SCHEMA)?;
        require(address & !ADDRESS_MASK == 0, "CONFIG_ADDRESS")?;
        self.bridge().config.restore(&bridge)?;
        self.address.store(address, Ordering::Relaxed);
        self.refresh();
        Ok(())
    }

    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange {
            first: CONFIG_ADDRESS,
            last: CONFIG_LAST,
        }]
    }

    fn mmio_ranges(&self) -> Vec<MmioRange> {
        let mut ranges = vec![self.config.ecam()];
        ranges.extend(&self.config.windows);
        ranges
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        if port == CONFIG_ADDRESS && data.len() == 4 {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        } else if let Some((first, cycle)) = port.checked_sub(CONFIG_DATA).zip(self.selected()) {
            let value = self.config_read(cycle).to_le_bytes();
            for (byte, value) in data.iter_mut().zip(value.iter().skip(first.into())) {
                *byte = *value;
            }
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        if let (CONFIG_ADDRESS, Ok(bytes)) = (port, <[u8; 4]>::try_from(data)) {
            let address = u32::from_le_bytes(bytes) & ADDRESS_MASK;
            self.address.store(address, Ordering::Relaxed);
        } else if let Some((first, cycle)) = port.checked_sub(CONFIG_DATA).zip(self.selected()) {
            let (value, byte_enable) = merge(usize::from(first % 4), data);
            self.config_write(cycle, value, byte_enable);
        }
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        if let Some(offset) = self.ecam_offset(gpa) {
            for (register, first, part) in registers_of(offset, data.len()) {
                if let Some(cycle) = Self::ecam_cycle(register) {
                    let value = self.config_read(cycle).to_le_bytes();
                    let count = part.len();
                    data[part].copy_from_slice(&value[first..first + count]);
                }
            }
        } else if let Some((slot, bar, offset)) = self.decode(gpa, data.len()) {
            self.with_function(slot, |function| function.bar_read(bar, offset, data));
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if let Some(offset) = self.ecam_offset(gpa) {
            for (register, first, part) in registers_of(offset, data.len()) {
                if let Some(cycle) = Self::ecam_cycle(register) {
                    let (value, byte_enable) = merge(first, &data[part]);
                    self.config_write(cycle, value, byte_enable);
                }
            }
        } else if let Some((slot, bar, offset)) = self.decode(gpa, data.len()) {
            self.with_function(slot, |function| function.bar_write(bar, offset, data));
        }
    }
}
