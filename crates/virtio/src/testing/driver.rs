//! A driver that finds its way by what the device says, as Linux does, and waits for interrupts only.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use device_model::pci::PciFunction;
use device_model::{Device, InterruptLine, LineTarget, MmioDevice, MsiMessage, MsiSink};
use guest_memory::GuestMemory;
use saved_state::Unit;

use super::{Ring, VERSION_1, ram};
use crate::VirtioDevice;
use crate::mmio::VirtioMmio;
use crate::pci::VirtioPci;

const MMIO_GPA: u64 = 0xd000_0000;
const BAR_GPA: u32 = 0xe000_0000;

/// Far longer than any test needs; only a device that hangs takes it.
const HANG: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Pci,
    Mmio,
}

impl Bus {
    pub(crate) const BOTH: [Self; 2] = [Self::Pci, Self::Mmio];
}

/// Counts interrupts and says which vectors came.
#[derive(Default)]
pub(crate) struct Interrupts {
    state: Mutex<(u64, Vec<u32>)>,
    line: std::sync::atomic::AtomicBool,
    changed: Condvar,
}

impl Interrupts {
    fn add(&self, vector: u32) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state.1.push(vector);
        self.changed.notify_all();
    }

    pub(crate) fn count(&self) -> u64 {
        self.state.lock().unwrap().0
    }

    pub(crate) fn vectors(&self) -> Vec<u32> {
        self.state.lock().unwrap().1.clone()
    }

    /// The level of the line that was driven last.
    pub(crate) fn line_is_high(&self) -> bool {
        self.line.load(std::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn wait_past(&self, count: u64) {
        let state = self.state.lock().unwrap();
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(state, HANG, |state| state.0 == count)
            .unwrap();
        assert!(!timeout.timed_out(), "no interrupt came");
    }
}

impl MsiSink for Interrupts {
    fn signal(&self, message: MsiMessage) {
        self.add(message.data);
    }
}

impl LineTarget for Interrupts {
    fn set_level(&self, line: u32, high: bool) {
        self.line.store(high, std::sync::atomic::Ordering::SeqCst);
        if high {
            self.add(line);
        }
    }
}

/// Registers of either transport.
pub(crate) enum Shell {
    Pci {
        device: Box<VirtioPci>,
        structures: Structures,
    },
    Mmio(Box<VirtioMmio>),
}

/// Offsets in BAR 0, found in the capabilities.
#[derive(Default)]
pub(crate) struct Structures {
    pub(crate) common: u64,
    pub(crate) notify: u64,
    pub(crate) multiplier: u64,
    pub(crate) isr: u64,
    pub(crate) device: u64,
    pub(crate) msix_table: u64,
    pub(crate) msix_capability: u16,
}

impl Shell {
    pub(crate) fn new(
        bus: Bus,
        device: Box<dyn VirtioDevice>,
        memory: &GuestMemory,
        interrupts: &Arc<Interrupts>,
    ) -> Self {
        match bus {
            Bus::Pci => {
                let mut device =
                    Box::new(VirtioPci::new("test", device, memory.clone(), interrupts.clone()).unwrap());
                place_bar(&mut device);
                let structures = find_structures(&mut device);
                Self::Pci { device, structures }
            }
            Bus::Mmio => {
                let line = InterruptLine::new(interrupts.clone(), 5);
                Self::Mmio(Box::new(VirtioMmio::new(
                    "test",
                    device,
                    memory.clone(),
                    MMIO_GPA,
                    line,
                )))
            }
        }
    }

    /// Reads register `pci` of the common structure or `mmio`.
    pub(crate) fn read(&mut self, pci: (u64, usize), mmio: u64) -> u32 {
        let mut bytes = [0; 4];
        match self {
            Self::Pci { device, structures } => {
                device.bar_read(0, structures.common + pci.0, &mut bytes[..pci.1]);
            }
            Self::Mmio(device) => device.mmio_read(MMIO_GPA + mmio, &mut bytes),
        }
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&mut self, pci: (u64, usize), mmio: u64, value: u32) {
        let bytes = value.to_le_bytes();
        match self {
            Self::Pci { device, structures } => {
                device.bar_write(0, structures.common + pci.0, &bytes[..pci.1]);
            }
            Self::Mmio(device) => device.mmio_write(MMIO_GPA + mmio, &bytes),
        }
    }

    pub(crate) fn status(&mut self) -> u32 {
        self.read((0x14, 1), 0x70)
    }

    pub(crate) fn set_status(&mut self, status: u32) {
        self.write((0x14, 1), 0x70, status);
    }

    pub(crate) fn generation(&mut self) -> u32 {
        self.read((0x15, 1), 0xfc)
    }

    pub(crate) fn features(&mut self) -> u64 {
        let halves = [0, 1].map(|select| {
            self.write((0x00, 4), 0x14, select);
            u64::from(self.read((0x04, 4), 0x10))
        });
        halves[1] << 32 | halves[0]
    }

    pub(crate) fn set_features(&mut self, features: u64) {
        for select in [0, 1] {
            self.write((0x08, 4), 0x24, select);
            self.write((0x0c, 4), 0x20, (features >> (32 * select)) as u32);
        }
    }

    pub(crate) fn select(&mut self, queue: u16) {
        self.write((0x16, 2), 0x30, queue.into());
    }

    pub(crate) fn queue_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        self.read((0x18, 2), 0x34) as u16
    }

    pub(crate) fn set_up_queue(&mut self, index: u16, ring: &Ring) {
        self.select(index);
        self.write_queue(ring);
        if let Self::Pci { .. } = self {
            self.set_up_vector(index);
        }
        self.write((0x1c, 2), 0x44, 1);
    }

    /// Size and addresses of the selected queue.
    fn write_queue(&mut self, ring: &Ring) {
        let position = ring.position;
        self.write((0x18, 2), 0x38, position.size.into());
        let addresses = [
            (position.descriptors, 0x20, 0x80),
            (position.driver, 0x28, 0x90),
            (position.device, 0x30, 0xa0),
        ];
        for (address, pci, mmio) in addresses {
            self.write((pci, 4), mmio, address as u32);
            self.write((pci + 4, 4), mmio + 4, (address >> 32) as u32);
        }
    }

    pub(crate) fn notify(&mut self, queue: u16) {
        match self {
            Self::Pci { device, structures } => {
                let mut offset = [0; 2];
                let select = structures.common + 0x16;
                device.bar_write(0, select, &queue.to_le_bytes());
                device.bar_read(0, structures.common + 0x1e, &mut offset);
                let doorbell = u64::from(u16::from_le_bytes(offset)) * structures.multiplier;
                device.bar_write(0, structures.notify + doorbell, &queue.to_le_bytes());
            }
            Self::Mmio(device) => {
                device.mmio_write(MMIO_GPA + 0x50, &u32::from(queue).to_le_bytes());
            }
        }
    }

    pub(crate) fn config<const LEN: usize>(&mut self, offset: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        match self {
            Self::Pci { device, structures } => {
                device.bar_read(0, structures.device + offset, &mut bytes);
            }
            Self::Mmio(device) => device.mmio_read(MMIO_GPA + 0x100 + offset, &mut bytes),
        }
        bytes
    }

    /// What an interrupt handler does first: on MMIO it acknowledges.
    pub(crate) fn acknowledge(&mut self) {
        if let Self::Mmio(device) = self {
            let mut status = [0; 4];
            device.mmio_read(MMIO_GPA + 0x60, &mut status);
            device.mmio_write(MMIO_GPA + 0x64, &status);
        }
    }

    /// The device as machines see it.
    pub(crate) fn device(&mut self) -> &mut dyn Device {
        match self {
            Self::Pci { device, .. } => &mut **device,
            Self::Mmio(device) => &mut **device,
        }
    }

    pub(crate) fn reset_device(&mut self) {
        self.device().reset();
    }

    /// Whether interrupts of `vector` wait, on PCI.
    pub(crate) fn mask(&mut self, vector: u64, masked: bool) {
        if let Self::Pci { device, structures } = self {
            let control = structures.msix_table + vector * 16 + 12;
            device.bar_write(0, control, &u32::from(masked).to_le_bytes());
        }
    }

    pub(crate) fn place_bar(&mut self) {
        if let Self::Pci { device, .. } = self {
            place_bar(device);
        }
    }

    /// Reset, and up again on the same rings whatever they hold.
    pub(crate) fn restart(&mut self, rings: &[Ring]) {
        self.set_status(0);
        self.set_features(VERSION_1 | super::EVENT_INDEX);
        self.set_status(1 | 2 | 8);
        for (index, ring) in (0..).zip(rings) {
            self.select(index);
            self.write_queue(ring);
            self.write((0x1c, 2), 0x44, 1);
        }
        self.set_status(1 | 2 | 8 | 4);
    }

    pub(crate) fn raw_read(&mut self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Pci { device, .. } => device.bar_read(0, offset, data),
            Self::Mmio(device) => device.mmio_read(MMIO_GPA.wrapping_add(offset), data),
        }
    }

    pub(crate) fn raw_write(&mut self, offset: u64, data: &[u8]) {
        match self {
            Self::Pci { device, .. } => device.bar_write(0, offset, data),
            Self::Mmio(device) => device.mmio_write(MMIO_GPA.wrapping_add(offset), data),
        }
    }

    pub(crate) fn raw_config_read(&mut self, register: u16) {
        if let Self::Pci { device, .. } = self {
            device.config_read(register);
        }
    }

    pub(crate) fn raw_config_write(&mut self, register: u16, value: u32, byte_enable: u8) {
        if let Self::Pci { device, .. } = self {
            device.config_write(register, value, byte_enable);
        }
    }

    /// MSI-X on, and the configuration's events on the last vector.
    pub(crate) fn set_up_msix(&mut self, queues: u16) {
        let Self::Pci { device, structures } = self else {
            return;
        };
        for vector in 0..=u64::from(queues) {
            let entry = structures.msix_table + vector * 16;
            device.bar_write(0, entry, &0xfee0_0000_u32.to_le_bytes());
            device.bar_write(0, entry + 4, &0_u32.to_le_bytes());
            device.bar_write(0, entry + 8, &(vector as u32).to_le_bytes());
            device.bar_write(0, entry + 12, &0_u32.to_le_bytes());
        }
        device.config_write(structures.msix_capability, 0x8000_0000, 0b1100);
        device.bar_write(0, structures.common + 0x10, &queues.to_le_bytes());
    }

    fn set_up_vector(&mut self, queue: u16) {
        self.write((0x1a, 2), 0, queue.into());
        assert_eq!(self.read((0x1a, 2), 0), u32::from(queue));
    }
}

fn place_bar(device: &mut VirtioPci) {
    device.config_write(0x10, BAR_GPA, 0xf);
    device.config_write(0x04, 0b110, 0x3);
}

/// Walks the list of capabilities (4.1.4).
fn find_structures(device: &mut VirtioPci) -> Structures {
    let mut found = Structures::default();
    let mut next = device.config_read(0x34) as u8;
    while next != 0 {
        let at = u16::from(next);
        let header = device.config_read(at);
        let offset = u64::from(device.config_read(at + 8));
        match (header as u8, (header >> 24) as u8) {
            (0x11, _) => {
                found.msix_capability = at;
                found.msix_table = u64::from(device.config_read(at + 4) & !7);
            }
            (0x09, 1) => found.common = offset,
            (0x09, 2) => {
                found.notify = offset;
                found.multiplier = device.config_read(at + 16).into();
            }
            (0x09, 3) => found.isr = offset,
            (0x09, 4) => found.device = offset,
            _ => {}
        }
        next = (header >> 8) as u8;
    }
    found
}

/// A driver of one device: its rings and its interrupts.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemory,
    pub(crate) shell: Shell,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) rings: Vec<Ring>,
}

impl Driver {
    /// Brings a device up to DRIVER_OK with `features` of those it offers, and all its queues.
    pub(crate) fn start(bus: Bus, device: impl VirtioDevice + 'static, features: u64) -> Self {
        let mut driver = Self::attach(bus, device);
        driver.set_up(features);
        driver
    }

    /// A driver that has not touched its device.
    pub(crate) fn attach(bus: Bus, device: impl VirtioDevice + 'static) -> Self {
        Self::attach_boxed(bus, Box::new(device))
    }

    pub(crate) fn attach_boxed(bus: Bus, device: Box<dyn VirtioDevice>) -> Self {
        let memory = ram();
        let interrupts = Arc::new(Interrupts::default());
        Self {
            shell: Shell::new(bus, device, &memory, &interrupts),
            memory,
            interrupts,
            rings: Vec::new(),
        }
    }

    /// 3.1.1, after a reset.
    pub(crate) fn set_up(&mut self, features: u64) {
        self.shell.set_status(0);
        assert_eq!(self.shell.status(), 0);
        self.shell.set_status(1 | 2);
        let features = features | VERSION_1;
        assert_eq!(self.shell.features() & features, features, "not offered");
        self.shell.set_features(features);
        self.shell.set_status(1 | 2 | 8);
        assert_eq!(self.shell.status(), 1 | 2 | 8);
        let sizes = (0..).map(|queue| self.shell.queue_size(queue));
        let sizes: Vec<_> = sizes.take_while(|size| *size != 0).collect();
        self.shell.set_up_msix(sizes.len() as u16);
        let mut rings = Vec::new();
        for (index, size) in (0..).zip(sizes) {
            let ring = Ring::new(&self.memory, index, size);
            for offset in (0..0x8000).step_by(8) {
                let gpa = guest_memory::GuestAddress(ring.position.descriptors + offset);
                guest_memory::Bytes::write_obj(&*self.memory, 0_u64, gpa).unwrap();
            }
            self.shell.set_up_queue(index, &ring);
            rings.push(ring);
        }
        self.rings = rings;
        self.shell.set_status(1 | 2 | 8 | 4);
    }

    pub(crate) fn send(&mut self, queue: u16, request: &[&[u8]], answer: &[usize]) -> u16 {
        let head = self.rings[usize::from(queue)].send(request, answer);
        self.shell.notify(queue);
        head
    }

    /// Waits for the next completion of `queue` by interrupt.
    pub(crate) fn wait(&mut self, queue: u16) -> (u16, Vec<u8>) {
        loop {
            let seen = self.interrupts.count();
            self.shell.acknowledge();
            let ring = &mut self.rings[usize::from(queue)];
            ring.arm();
            // The device must see the event before this looks again (2.7.7.1).
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if let Some(completion) = ring.completion() {
                return completion;
            }
            self.interrupts.wait_past(seen);
        }
    }

    /// Waits for the next completion of `queue` by looking, without a word about interrupts.
    pub(crate) fn wait_without_arming(&mut self, queue: u16) -> (u16, Vec<u8>) {
        loop {
            if let Some(completion) = self.rings[usize::from(queue)].completion() {
                return completion;
            }
            std::thread::yield_now();
        }
    }

    /// The state of the device, which is paused from then on.
    pub(crate) fn save(&mut self) -> Unit {
        let device = self.shell.device();
        device.pause();
        device.save()
    }

    /// Goes on with `device`, behind a new transport with new interrupts, where the old device was.
    pub(crate) fn move_to(&mut self, device: impl VirtioDevice + 'static) {
        let unit = self.save();
        self.restore(Box::new(device), &unit).unwrap();
        assert_eq!(self.shell.device().save(), unit);
        self.shell.device().resume();
    }

    /// Puts `unit` into `device`, which is paused from then on.
    pub(crate) fn restore(
        &mut self,
        device: Box<dyn VirtioDevice>,
        unit: &Unit,
    ) -> Result<(), saved_state::Error> {
        let bus = match self.shell {
            Shell::Pci { .. } => Bus::Pci,
            Shell::Mmio(_) => Bus::Mmio,
        };
        self.interrupts = Arc::new(Interrupts::default());
        self.shell = Shell::new(bus, device, &self.memory, &self.interrupts);
        self.shell.device().pause();
        self.shell.device().restore(unit)
    }

    /// Power-on, and the firmware's part of it.
    pub(crate) fn power_on(&mut self) {
        self.shell.reset_device();
        self.shell.place_bar();
    }

    /// Sends and waits: the answer.
    pub(crate) fn request(&mut self, queue: u16, request: &[&[u8]], answer: &[usize]) -> Vec<u8> {
        let head = self.send(queue, request, answer);
        let (completed, answer) = self.wait(queue);
        assert_eq!(completed, head);
        answer
    }

    /// Waits until the device shows DEVICE_NEEDS_RESET.
    pub(crate) fn wait_broken(&mut self) {
        loop {
            let seen = self.interrupts.count();
            self.shell.acknowledge();
            if self.shell.status() & 0x40 != 0 {
                return;
            }
            self.interrupts.wait_past(seen);
        }
    }
}
