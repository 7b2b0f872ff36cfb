//! Virtio over MMIO, version 2 (4.2).

use std::sync::{Arc, Mutex, PoisonError};

use device_model::{Device, InterruptLine, MmioDevice, MmioRange};
use guest_memory::GuestMemory;
use saved_state::{Unit, require};
use virtio_bindings::virtio_mmio::*;

use super::DoorbellAddress;
use super::core::{Core, Ring};
use super::notify::InterruptSink;
use super::saved::{self, SavedMmio};
use crate::VirtioDevice;

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "CCvm", little endian: who made the device.
const VENDOR: u32 = 0x6d76_4343;
/// Bytes of address space one device takes.
pub const REGISTERS_LEN: u64 = 0x1000;
const CONFIG_OFFSET: u64 = 0x100;

/// InterruptStatus bits.
const INTERRUPT_USED: u32 = VIRTIO_MMIO_INT_VRING;
const INTERRUPT_CONFIG: u32 = VIRTIO_MMIO_INT_CONFIG;

/// One virtio device behind memory-mapped registers and a level-triggered interrupt line.
pub struct VirtioMmio {
    name: String,
    gpa: u64,
    core: Core,
    interrupts: Arc<MmioInterrupts>,
}

impl VirtioMmio {
    /// Makes the device, with its registers at `gpa` to `gpa + REGISTERS_LEN`.
    pub fn new(
        name: impl Into<String>,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        gpa: u64,
        line: InterruptLine,
    ) -> Self {
        let interrupts = Arc::new(MmioInterrupts {
            line,
            status: Mutex::new(0),
        });
        Self {
            name: name.into(),
            gpa,
            core: Core::new(device, memory, interrupts.clone()),
            interrupts,
        }
    }

    /// The doorbells: one address for all queues, which tells them apart by value.
    pub fn doorbells(&self) -> Vec<DoorbellAddress> {
        let queues = 0..self.core.queue_count();
        let rings = queues.filter_map(|queue| {
            Some(DoorbellAddress {
                gpa: self.gpa + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY),
                value: Some(queue.into()),
                queue,
                doorbell: self.core.doorbell(queue)?.clone(),
            })
        });
        rings.collect()
    }

    fn reset_device(&mut self) {
        self.core.reset();
        self.interrupts.clear(u32::MAX);
    }

    fn register_read(&mut self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.core.device().device_type() as u32,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => self.core.device_features(),
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.core.queue_max_size().into(),
            VIRTIO_MMIO_QUEUE_READY => self.core.queue_enabled().into(),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupts.status(),
            VIRTIO_MMIO_STATUS => self.core.status().into(),
            // No shared memory region exists: its length reads as all ones.
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            VIRTIO_MMIO_SHM_BASE_LOW | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => self.core.config_generation(),
            _ => 0,
        }
    }

    fn register_write(&mut self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.core.device_feature_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.core.set_driver_features(value),
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.core.driver_feature_select = value,
            // A queue that cannot exist selects none.
            VIRTIO_MMIO_QUEUE_SEL => self.core.queue_select = u16::try_from(value).unwrap_or(u16::MAX),
            VIRTIO_MMIO_QUEUE_NUM => self.core.set_queue_size(u16::try_from(value).unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_READY if value == 1 => self.core.enable_queue(),
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                let queue = u16::try_from(value).ok();
                if let Some(doorbell) = queue.and_then(|queue| self.core.doorbell(queue)) {
                    doorbell.notify();
                }
            }
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupts.clear(value),
            VIRTIO_MMIO_STATUS if value & 0xff == 0 => self.reset_device(),
            VIRTIO_MMIO_STATUS => self.core.set_status(value as u8),
            VIRTIO_MMIO_QUEUE_DESC_LOW => self.core.set_queue_address(Ring::Descriptors, false, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => self.core.set_queue_address(Ring::Descriptors, true, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => self.core.set_queue_address(Ring::Driver, false, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => self.core.set_queue_address(Ring::Driver, true, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => self.core.set_queue_address(Ring::Device, false, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => self.core.set_queue_address(Ring::Device, true, value),
            _ => {}
        }
    }
}

impl Device for VirtioMmio {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.reset_device();
    }

    fn pause(&mut self) {
        self.core.pause();
    }

    fn resume(&mut self) {
        // A restored device has not driven its wire yet.
        self.interrupts.drive();
        self.core.resume();
    }

    fn save(&self) -> Unit {
        let saved = SavedMmio {
            interrupt_status: self.interrupts.status(),
            core: self.core.save(),
        };
        Unit::new(saved::SCHEMA, &saved)
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        let saved = unit.decode::<SavedMmio>(saved::SCHEMA)?;
        self.interrupts.restore(saved.interrupt_status)?;
        self.core.restore(saved.core)
    }

    fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
        Some(self)
    }
}

impl MmioDevice for VirtioMmio {
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        vec![MmioRange {
            gpa: self.gpa,
            len: REGISTERS_LEN,
        }]
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        data.fill(0);
        match gpa.wrapping_sub(self.gpa) {
            offset @ CONFIG_OFFSET..REGISTERS_LEN => self.core.read_config(offset - CONFIG_OFFSET, data),
            // 4.2.2.2: registers are read and written as aligned 32 bits.
            offset @ 0..CONFIG_OFFSET if data.len() == 4 => {
                data.copy_from_slice(&self.register_read(offset as u32).to_le_bytes());
            }
            _ => {}
        }
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        match gpa.wrapping_sub(self.gpa) {
            offset @ CONFIG_OFFSET..REGISTERS_LEN => self.core.write_config(offset - CONFIG_OFFSET, data),
            offset @ 0..CONFIG_OFFSET => {
                if let Ok(bytes) = data.try_into() {
                    self.register_write(offset as u32, u32::from_le_bytes(bytes));
                }
            }
            _ => {}
        }
    }
}

/// InterruptStatus and the wire. The lock makes the wire follow the register in order.
struct MmioInterrupts {
    line: InterruptLine,
    status: Mutex<u32>,
}

impl MmioInterrupts {
    fn status(&self) -> u32 {
        *self.lock()
    }

    fn raise(&self, bits: u32) {
        let mut status = self.lock();
        *status |= bits;
        self.line.set_level(true);
    }

    fn clear(&self, bits: u32) {
        let mut status = self.lock();
        *status &= !bits;
        self.line.set_level(*status != 0);
    }

    /// Brings the wire to where the register says.
    fn drive(&self) {
        self.clear(0);
    }

    /// Takes over the register; the wire stays as it is.
    fn restore(&self, status: u32) -> Result<(), saved_state::Error> {
        let possible = status & !(INTERRUPT_USED | INTERRUPT_CONFIG) == 0;
        require(possible, "an MMIO interrupt status")?;
        *self.lock() = status;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u32> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterruptSink for MmioInterrupts {
    fn used_buffers(&self, _queue: u16) {
        self.raise(INTERRUPT_USED);
    }

    fn config_changed(&self) {
        self.raise(INTERRUPT_CONFIG);
    }
}
