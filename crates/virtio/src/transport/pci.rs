//! Virtio over PCI, modern devices only (4.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use device_model::pci::{BarKind, BarWindow, ConfigSpace, Identity, Msix, MsixLayout, PciFunction};
use device_model::{Device, MsiSink};
use guest_memory::GuestMemory;
use saved_state::{Unit, require};

use super::core::{Core, Ring};
use super::notify::InterruptSink;
use super::saved::{self, SavedPci};
use super::{DoorbellAddress, DoorbellObserver};
use crate::{DeviceType, Error, VirtioDevice};

/// 4.1.2.1.
const VENDOR: u16 = 0x1af4;
const FIRST_MODERN_DEVICE: u16 = 0x1040;
/// Modern devices have a revision, and a subsystem id of 0x40 or more.
const REVISION: u8 = 1;
const SUBSYSTEM: u16 = 0x1100;

/// Everything lies in one BAR, each structure in pages of its own.
const BAR: u8 = 0;
const BAR_LEN: u64 = 0x8000;
const COMMON_OFFSET: u64 = 0x0000;
const COMMON_LEN: u64 = 0x40;
const ISR_OFFSET: u64 = 0x1000;
const ISR_LEN: u64 = 4;
const DEVICE_OFFSET: u64 = 0x2000;
const DEVICE_LEN: u64 = 0x1000;
const NOTIFY_OFFSET: u64 = 0x3000;
const NOTIFY_LEN: u64 = 0x1000;
const MSIX_TABLE_OFFSET: u32 = 0x4000;
const MSIX_PBA_OFFSET: u32 = 0x5000;

/// Distance between the doorbells of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;
/// What fits into the doorbell page and the MSI-X page.
const MAX_QUEUES: usize = 255;

/// 4.1.4: types of the vendor-specific capability.
const CAPABILITY_VENDOR: u8 = 0x09;
const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;
const CAP_PCI_ACCESS: u8 = 5;

/// 4.1.5.1.2: no vector.
const NO_VECTOR: u16 = 0xffff;

/// 4.1.4.5.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// One virtio device as a PCI function with MSI-X. It has no interrupt pin: a driver without MSI-X must poll.
pub struct VirtioPci {
    name: String,
    config: ConfigSpace,
    core: Core,
    interrupts: Arc<PciInterrupts>,
    /// Where the capability that reaches the BAR through configuration space lies (4.1.4.9).
    access_capability: u16,
    doorbell_observer: Option<Arc<dyn DoorbellObserver>>,
}

impl VirtioPci {
    /// Makes the function. `msi` takes its interrupts.
    ///
    /// # Errors
    /// A device with more than 255 queues.
    pub fn new(
        name: impl Into<String>,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        msi: Arc<dyn MsiSink>,
    ) -> Result<Self, Error> {
        let queues = device.queue_sizes().len();
        if queues > MAX_QUEUES {
            return Err(Error::Count {
                what: "virtqueues",
                count: queues,
                min: 0,
                max: MAX_QUEUES,
            });
        }
        let mut config = ConfigSpace::new(identity(device.device_type()));
        config.add_bar(BAR, BarKind::Memory32, BAR_LEN)?;
        let access_capability = add_capabilities(&mut config)?;
        let layout = MsixLayout {
            table_bar: BAR,
            table_offset: MSIX_TABLE_OFFSET,
            pba_bar: BAR,
            pba_offset: MSIX_PBA_OFFSET,
        };
        // One vector for each queue and one for the configuration.
        let msix = Msix::new(&mut config, queues as u16 + 1, layout, msi)?;
        let interrupts = Arc::new(PciInterrupts {
            msix,
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        });
        Ok(Self {
            name: name.into(),
            config,
            core: Core::new(device, memory, interrupts.clone()),
            interrupts,
            access_capability,
            doorbell_observer: None,
        })
    }

    /// Tells `observer` from now on where the doorbells are that have somebody to answer them.
    pub fn observe_doorbells(&mut self, observer: Arc<dyn DoorbellObserver>) {
        self.doorbell_observer = Some(observer);
        self.tell_doorbells();
    }

    fn tell_doorbells(&self) {
        if let Some(observer) = &self.doorbell_observer {
            let mut doorbells = self.doorbells();
            doorbells.retain(|address| address.doorbell.event().is_some());
            observer.doorbells_changed(&doorbells);
        }
    }

    /// The doorbells where they are now; none while the BAR does not decode.
    pub fn doorbells(&self) -> Vec<DoorbellAddress> {
        let window = self.config.bars().into_iter().find(|window| window.bar == BAR);
        let base = window.map(|window| window.gpa + NOTIFY_OFFSET);
        let queues = 0..self.core.queue_count();
        let rings = base.into_iter().flat_map(|base| {
            queues.clone().filter_map(move |queue| {
                Some(DoorbellAddress {
                    gpa: base + u64::from(queue) * u64::from(NOTIFY_MULTIPLIER),
                    value: None,
                    queue,
                    doorbell: self.core.doorbell(queue)?.clone(),
                })
            })
        });
        rings.collect()
    }

    /// Resets the virtio device (4.1.4.3, `device_status` 0) but not the PCI function.
    fn reset_device(&mut self) {
        self.core.reset();
        self.interrupts.reset();
        self.tell_doorbells();
    }

    fn common_read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (0x00, 4) => self.core.device_feature_select.into(),
            (0x04, 4) => self.core.device_features().into(),
            (0x08, 4) => self.core.driver_feature_select.into(),
            (0x0c, 4) => self.core.driver_features().into(),
            (0x10, 2) => self.interrupts.config_vector.load(Ordering::Acquire).into(),
            (0x12, 2) => self.core.queue_count().into(),
            (0x14, 1) => self.core.status().into(),
            (0x15, 1) => u64::from(self.core.config_generation()) & 0xff,
            (0x16, 2) => self.core.queue_select.into(),
            (0x18, 2) => self.core.queue_size().into(),
            (0x1a, 2) => {
                let vector = self.interrupts.queue_vector(self.core.queue_select);
                vector
                    .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
                    .into()
            }
            (0x1c, 2) => self.core.queue_enabled().into(),
            // Each queue's doorbell lies at its index.
            (0x1e, 2) => self.core.queue_select.into(),
            (0x20..=0x37, 4 | 8) => address_register(offset).map_or(0, |(ring, upper)| {
                let address = self.core.queue_address(ring);
                if upper { address >> 32 } else { address }
            }),
            _ => 0,
        };
        copy_out(value, data);
    }

    fn common_write(&mut self, offset: u64, data: &[u8]) {
        let value = copy_in(data);
        // Values are as wide as the access, so none of the casts below loses bits.
        match (offset, data.len()) {
            (0x00, 4) => self.core.device_feature_select = value as u32,
            (0x08, 4) => self.core.driver_feature_select = value as u32,
            (0x0c, 4) => self.core.set_driver_features(value as u32),
            (0x10, 2) => self
                .interrupts
                .set_vector(&self.interrupts.config_vector, value as u16),
            (0x14, 1) if value == 0 => self.reset_device(),
            (0x14, 1) => {
                self.core.set_status(value as u8);
                self.tell_doorbells();
            }
            (0x16, 2) => self.core.queue_select = value as u16,
            (0x18, 2) => self.core.set_queue_size(value as u16),
            (0x1a, 2) => {
                if let Some(vector) = self.interrupts.queue_vector(self.core.queue_select) {
                    self.interrupts.set_vector(vector, value as u16);
                }
            }
            (0x1c, 2) if value == 1 => self.core.enable_queue(),
            (0x20..=0x37, len @ (4 | 8)) => {
                if let Some((ring, upper)) = address_register(offset) {
                    self.core.set_queue_address(ring, upper, value as u32);
                    if len == 8 && !upper {
                        self.core.set_queue_address(ring, true, (value >> 32) as u32);
                    }
                }
            }
            _ => {}
        }
    }

    /// What the capability for access through configuration space points to, if a driver set it up.
    fn pci_access(&self) -> Option<(u64, usize)> {
        let bar = self.config.read(self.access_capability + 4) as u8;
        let offset = self.config.read(self.access_capability + 8);
        let len = self.config.read(self.access_capability + 12);
        let possible = bar == BAR && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        possible.then_some((offset.into(), len as usize))
    }

    fn is_pci_access_data(&self, register: u16) -> bool {
        register & !3 == self.access_capability + 16
    }
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.reset_device();
        self.config.reset();
        self.interrupts.msix.reset();
    }

    fn pause(&mut self) {
        self.core.pause();
    }

    fn resume(&mut self) {
        self.core.resume();
        self.tell_doorbells();
    }

    fn save(&self) -> Unit {
        let interrupts = &self.interrupts;
        let load = |vector: &AtomicU16| vector.load(Ordering::Acquire);
        let saved = SavedPci {
            config: self.config.save(),
            msix: interrupts.msix.save(),
            config_vector: load(&interrupts.config_vector),
            queue_vectors: interrupts.queue_vectors.iter().map(load).collect(),
            isr: interrupts.isr.load(Ordering::Acquire),
            core: self.core.save(),
        };
        Unit::new(saved::SCHEMA, &saved)
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        let saved = unit.decode::<SavedPci>(saved::SCHEMA)?;
        self.config.restore(&saved.config)?;
        self.interrupts.restore(&saved, &self.config)?;
        self.core.restore(saved.core)
    }

    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&mut self, register: u16) -> u32 {
        if self.is_pci_access_data(register)
            && let Some((offset, len)) = self.pci_access()
        {
            let mut data = [0; 4];
            self.bar_read(BAR, offset, &mut data[..len]);
            return u32::from_le_bytes(data);
        }
        self.config.read(register)
    }

    fn config_write(&mut self, register: u16, value: u32, byte_enable: u8) {
        if self.is_pci_access_data(register) {
            if let Some((offset, len)) = self.pci_access() {
                self.bar_write(BAR, offset, &value.to_le_bytes()[..len]);
            }
            return;
        }
        let before = self.config.bars();
        self.config.write(register, value, byte_enable);
        self.interrupts.msix.config_written(&self.config);
        if self.config.bars() != before {
            self.tell_doorbells();
        }
    }

    fn bars(&self) -> Vec<BarWindow> {
        self.config.bars()
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.interrupts.msix.bar_read(bar, offset, data) {
            return;
        }
        data.fill(0);
        if inside(offset, data, COMMON_OFFSET, COMMON_LEN) {
            self.common_read(offset - COMMON_OFFSET, data);
        } else if inside(offset, data, ISR_OFFSET, ISR_LEN) {
            if offset == ISR_OFFSET {
                copy_out(self.interrupts.isr.swap(0, Ordering::AcqRel).into(), data);
            }
        } else if inside(offset, data, DEVICE_OFFSET, DEVICE_LEN) {
            self.core.read_config(offset - DEVICE_OFFSET, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if self.interrupts.msix.bar_write(bar, offset, data) {
            return;
        }
        if inside(offset, data, NOTIFY_OFFSET, NOTIFY_LEN) {
            let queue = (offset - NOTIFY_OFFSET) / u64::from(NOTIFY_MULTIPLIER);
            if let Some(doorbell) = self.core.doorbell(queue as u16) {
                doorbell.notify();
            }
        } else if inside(offset, data, COMMON_OFFSET, COMMON_LEN) {
            self.common_write(offset - COMMON_OFFSET, data);
        } else if inside(offset, data, DEVICE_OFFSET, DEVICE_LEN) {
            self.core.write_config(offset - DEVICE_OFFSET, data);
        }
    }
}

/// The vectors and the ISR status, which device threads use too.
struct PciInterrupts {
    msix: Msix,
    isr: AtomicU8,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
}

impl PciInterrupts {
    fn queue_vector(&self, queue: u16) -> Option<&AtomicU16> {
        self.queue_vectors.get(usize::from(queue))
    }

    /// Maps an event to a vector; one that does not exist reads back as none (4.1.5.1.2.1).
    fn set_vector(&self, register: &AtomicU16, vector: u16) {
        let known = vector < self.msix.vectors();
        register.store(if known { vector } else { NO_VECTOR }, Ordering::Release);
    }

    /// 4.1.5.3 and 4.1.5.4: the ISR status is for drivers without MSI-X only.
    fn signal(&self, vector: &AtomicU16, isr: u8) {
        if self.msix.is_enabled() {
            self.msix.signal(vector.load(Ordering::Acquire));
        } else {
            self.isr.fetch_or(isr, Ordering::AcqRel);
        }
    }

    fn restore(&self, saved: &SavedPci, config: &ConfigSpace) -> Result<(), saved_state::Error> {
        self.msix.restore(&saved.msix, config)?;
        require(saved.isr & !(ISR_QUEUE | ISR_CONFIG) == 0, "the ISR status")?;
        self.isr.store(saved.isr, Ordering::Release);
        let count = saved.queue_vectors.len() == self.queue_vectors.len();
        require(count, "the number of queue vectors")?;
        let vectors = saved.queue_vectors.iter().chain([&saved.config_vector]);
        let registers = self.queue_vectors.iter().chain([&self.config_vector]);
        for (register, &vector) in registers.zip(vectors) {
            let known = vector < self.msix.vectors() || vector == NO_VECTOR;
            require(known, "an MSI-X vector")?;
            register.store(vector, Ordering::Release);
        }
        Ok(())
    }

    fn reset(&self) {
        self.isr.store(0, Ordering::Release);
        for vector in self.queue_vectors.iter().chain([&self.config_vector]) {
            vector.store(NO_VECTOR, Ordering::Release);
        }
    }
}

impl InterruptSink for PciInterrupts {
    fn used_buffers(&self, queue: u16) {
        if let Some(vector) = self.queue_vector(queue) {
            self.signal(vector, ISR_QUEUE);
        }
    }

    fn config_changed(&self) {
        self.signal(&self.config_vector, ISR_CONFIG);
    }
}

fn identity(device_type: DeviceType) -> Identity {
    Identity {
        vendor: VENDOR,
        device: FIRST_MODERN_DEVICE + device_type as u16,
        revision: REVISION,
        // PCI Code and ID Assignment, 1.2, 1.8 and 1.14.
        class: match device_type {
            DeviceType::Console => 0x07_80_00,
            DeviceType::FileSystem => 0x01_80_00,
            DeviceType::Entropy => 0xff_00_00,
        },
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
    }
}

/// Adds the capabilities of 4.1.4; returns where the last one, for access through configuration space, is.
fn add_capabilities(config: &mut ConfigSpace) -> Result<u16, Error> {
    let structures = [
        (CAP_COMMON, COMMON_OFFSET, COMMON_LEN),
        (CAP_ISR, ISR_OFFSET, ISR_LEN),
        (CAP_DEVICE, DEVICE_OFFSET, DEVICE_LEN),
    ];
    for (kind, offset, len) in structures {
        config.add_capability(CAPABILITY_VENDOR, &capability(kind, offset, len, &[]), &[])?;
    }
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    let notify = capability(CAP_NOTIFY, NOTIFY_OFFSET, NOTIFY_LEN, &multiplier);
    config.add_capability(CAPABILITY_VENDOR, &notify, &[])?;
    let access = capability(CAP_PCI_ACCESS, 0, 0, &[0; 4]);
    let mut writable = vec![0; access.len()];
    // The driver sets BAR, offset and length; the data is an access.
    writable[2] = 0xff;
    writable[6..14].fill(0xff);
    Ok(config.add_capability(CAPABILITY_VENDOR, &access, &writable)?)
}

/// `struct virtio_pci_cap` without its first two bytes.
fn capability(kind: u8, offset: u64, len: u64, tail: &[u8]) -> Vec<u8> {
    let total = 16 + tail.len();
    let mut body = vec![total as u8, kind, BAR, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((len as u32).to_le_bytes());
    body.extend(tail);
    body
}

fn address_register(offset: u64) -> Option<(Ring, bool)> {
    let ring = match offset & !7 {
        0x20 => Ring::Descriptors,
        0x28 => Ring::Driver,
        0x30 => Ring::Device,
        _ => return None,
    };
    offset.is_multiple_of(4).then_some((ring, offset & 4 != 0))
}

fn inside(offset: u64, data: &[u8], start: u64, len: u64) -> bool {
    let end = offset.checked_add(data.len() as u64);
    offset >= start && end.is_some_and(|end| end <= start + len)
}

fn copy_out(value: u64, data: &mut [u8]) {
    for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = value;
    }
}

fn copy_in(data: &[u8]) -> u64 {
    data.iter()
        .take(8)
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
