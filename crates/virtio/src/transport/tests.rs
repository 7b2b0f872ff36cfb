use device_model::Device;
use device_model::pci::PciFunction;
use proptest::prelude::*;
use std::io;
use std::sync::{Arc, Mutex};

use device_backends::{Entropy, FileService, ReplySink, RequestSource, byte_pipe};
use guest_memory::{Bytes, GuestAddress};

use crate::console::{Console, Port, Size};
use crate::fs::Fs;
use crate::rng::Rng;
use crate::testing::{BUFFERS, Bus, Driver, EVENT_INDEX, RAM_LEN, Ring, Shell, VERSION_1};
use crate::{Activated, ActiveQueue, DeviceType, DoorbellAddress, DoorbellObserver, Error, VirtioDevice};

pub(super) struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        Ok(())
    }
}

pub(super) struct Echo;

impl FileService for Echo {
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize {
        let mut bytes = vec![0; request.len().min(reply.capacity()).min(4096)];
        let copied = request.read_at(0, &mut bytes);
        copied
            .and_then(|()| reply.write_at(0, &bytes))
            .map_or(0, |()| bytes.len())
    }

    fn reset(&self) {}
}

pub(super) fn rng(bus: Bus) -> Driver {
    Driver::attach(bus, Rng::new(Arc::new(Zeros)))
}

#[test]
fn features_offered_are_those_decided() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        assert_eq!(driver.shell.features(), VERSION_1 | EVENT_INDEX | 1 << 28);
    }
}

#[test]
fn features_not_offered_or_without_version_1_are_not_ok() {
    for bus in Bus::BOTH {
        for features in [VERSION_1 | 1 << 35, VERSION_1 | 1, EVENT_INDEX, 0] {
            let mut driver = rng(bus);
            driver.shell.set_features(features);
            driver.shell.set_status(1 | 2 | 8);
            assert_eq!(driver.shell.status(), 1 | 2);
            driver.shell.set_status(1 | 2 | 8 | 4);
            assert_eq!(driver.shell.status(), 1 | 2);
        }
    }
}

#[test]
fn features_are_frozen_once_ok() {
    let mut driver = rng(Bus::Pci);
    driver.shell.set_features(VERSION_1);
    driver.shell.set_status(8);
    driver.shell.set_features(u64::MAX);
    driver.shell.write((0x08, 4), 0x24, 0);
    assert_eq!(driver.shell.read((0x0c, 4), 0), 0);
}

#[test]
fn driver_ok_without_its_queue_latches() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        driver.shell.set_features(VERSION_1);
        driver.shell.set_status(8 | 4);
        assert_eq!(driver.shell.status(), 8 | 4 | 0x40);
    }
}

#[test]
fn queue_that_is_enabled_cannot_be_changed() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        driver.shell.set_features(VERSION_1);
        driver.shell.set_status(8);
        driver.shell.set_up_msix(1);
        let ring = Ring::new(&driver.memory, 0, 8);
        driver.shell.set_up_queue(0, &ring);
        driver.shell.write((0x20, 4), 0x80, 0x7000);
        driver.shell.write((0x18, 2), 0x38, 2);
        driver.shell.set_status(8 | 4);
        driver.rings.push(ring);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

#[test]
fn queue_outside_ram_latches_and_reset_recovers() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        driver.shell.set_features(VERSION_1);
        driver.shell.set_status(8);
        driver.shell.write((0x34, 4), 0xa4, 0xffff_ffff);
        driver.shell.write((0x1c, 2), 0x44, 1);
        driver.shell.set_status(8 | 4);
        assert_eq!(driver.shell.status(), 8 | 4 | 0x40);
        driver.set_up(EVENT_INDEX);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

#[test]
fn broken_ring_latches_and_reset_recovers() {
    for bus in Bus::BOTH {
        for features in [0, EVENT_INDEX] {
            let mut driver = Driver::start(bus, Rng::new(Arc::new(Zeros)), features);
            driver.rings[0].offer(0xffff);
            driver.shell.notify(0);
            driver.wait_broken();
            driver.set_up(features);
            assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
        }
    }
}

#[test]
fn used_buffers_interrupt_by_the_vector_of_their_queue() {
    let mut driver = Driver::start(Bus::Pci, Fs::new("tag", Arc::new(Echo), 2).unwrap(), 0);
    driver.request(2, &[b"x"], &[1]);
    driver.request(1, &[b"x"], &[1]);
    assert_eq!(driver.interrupts.vectors(), [2, 1]);
}

#[test]
fn used_event_that_is_far_ahead_suppresses_interrupts() {
    let mut driver = Driver::start(Bus::Pci, Rng::new(Arc::new(Zeros)), EVENT_INDEX);
    driver.rings[0].set_used_event(3);
    for _ in 0..4 {
        driver.rings[0].send(&[], &[1]);
        driver.shell.notify(0);
    }
    for _ in 0..4 {
        driver.wait_without_arming(0);
    }
    driver.interrupts.wait_past(0);
    assert_eq!(driver.interrupts.count(), 1);
}

#[test]
fn vector_that_does_not_exist_reads_back_as_none() {
    let mut driver = rng(Bus::Pci);
    driver.shell.write((0x10, 2), 0, 2);
    assert_eq!(driver.shell.read((0x10, 2), 0), 0xffff);
    driver.shell.write((0x10, 2), 0, 1);
    assert_eq!(driver.shell.read((0x10, 2), 0), 1);
}

#[test]
fn pci_without_msix_shows_and_clears_the_isr() {
    let mut driver = Driver::start(Bus::Pci, Rng::new(Arc::new(Zeros)), 0);
    let Shell::Pci { device, structures } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    device.config_write(structures.msix_capability, 0, 0b1100);
    driver.rings[0].send(&[], &[1]);
    driver.shell.notify(0);
    driver.wait_without_arming(0);
    let Shell::Pci { device, structures } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    let mut isr = [0];
    while isr == [0] {
        device.bar_read(0, structures.isr, &mut isr);
    }
    let mut again = [0xff];
    device.bar_read(0, structures.isr, &mut again);
    assert_eq!((isr, again), ([1], [0]));
    assert_eq!(driver.interrupts.count(), 0);
}

#[test]
fn pci_identity_is_a_modern_device() {
    let mut driver = rng(Bus::Pci);
    let Shell::Pci { device, .. } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    assert_eq!(device.config_read(0x00), 0x1044_1af4);
    assert_eq!(device.config_read(0x08), 0xff00_0001);
    // No interrupt pin.
    assert_eq!(device.config_read(0x3c) & 0xff00, 0);
}

#[test]
fn pci_access_capability_reaches_the_bar() {
    let mut driver = rng(Bus::Pci);
    let Shell::Pci { device, .. } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    let mut at = device.config_read(0x34) as u16 & 0xff;
    while device.config_read(at) >> 24 != 5 {
        at = (device.config_read(at) >> 8) as u16 & 0xff;
    }
    device.config_write(at + 4, 0, 1);
    device.config_write(at + 8, 0x14, 0xf);
    device.config_write(at + 12, 1, 0xf);
    device.config_write(at + 16, 3, 0xf);
    assert_eq!(device.config_read(at + 16), 3);
    device.config_write(at + 4, 5, 1);
    assert_eq!(device.config_read(at + 16), 0);
}

#[test]
fn doorbells_are_where_the_driver_rings() {
    let mut driver = Driver::start(Bus::Pci, Fs::new("tag", Arc::new(Echo), 1).unwrap(), 0);
    let Shell::Pci { device, structures } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    let doorbells = device.doorbells();
    let expected = [0, 1].map(|queue| (0xe000_0000 + structures.notify + queue * 4, queue as u16));
    assert!(doorbells.iter().map(|bell| (bell.gpa, bell.queue)).eq(expected));
    device.config_write(0x04, 0, 0x3);
    assert!(device.doorbells().is_empty());
    driver.rings[1].send(&[b"rung from elsewhere"], &[32]);
    doorbells[1].doorbell.notify();
    assert_eq!(driver.wait(1).1, b"rung from elsewhere");
    driver.rings[1].send(&[b"rung by a hypervisor"], &[32]);
    doorbells[1].doorbell.event().unwrap().signal();
    assert_eq!(driver.wait(1).1, b"rung by a hypervisor");
}

/// Remembers how often it was told, and of which addresses last.
#[derive(Default)]
struct Told(Mutex<Vec<Vec<u64>>>);

impl DoorbellObserver for Told {
    fn doorbells_changed(&self, doorbells: &[DoorbellAddress]) {
        let addresses = doorbells.iter().map(|doorbell| doorbell.gpa).collect();
        self.0.lock().unwrap().push(addresses);
    }
}

#[test]
fn observer_learns_of_doorbells_that_move_and_fall_silent() {
    let mut driver = Driver::start(Bus::Pci, Fs::new("tag", Arc::new(Echo), 1).unwrap(), 0);
    let Shell::Pci { device, structures } = &mut driver.shell else {
        unreachable!("PCI was asked for")
    };
    let told = Arc::new(Told::default());
    let at = |base: u64| [0, 4].map(|offset| base + structures.notify + offset).to_vec();

    device.observe_doorbells(told.clone());
    device.config_write(0x10, 0xe100_0000, 0xf);
    device.config_write(0x04, 0, 0x3);
    device.config_write(0x04, 2, 0x3);
    device.reset();

    let expected = vec![at(0xe000_0000), at(0xe100_0000), vec![], at(0xe100_0000), vec![]];
    let mut told = told.0.lock().unwrap().clone();
    told.dedup();
    assert_eq!(told, expected);
}

#[test]
fn mmio_identity_and_absence_of_shared_memory() {
    let mut driver = rng(Bus::Mmio);
    assert_eq!(driver.shell.read((0, 4), 0x00), 0x7472_6976);
    assert_eq!(driver.shell.read((0, 4), 0x04), 2);
    assert_eq!(driver.shell.read((0, 4), 0x08), 4);
    assert_eq!(driver.shell.read((0, 4), 0xb0), u32::MAX);
}

#[test]
fn mmio_line_is_high_until_all_is_acknowledged_or_reset() {
    let mut driver = Driver::start(Bus::Mmio, Rng::new(Arc::new(Zeros)), 0);
    driver.send(0, &[], &[1]);
    driver.interrupts.wait_past(0);
    driver.shell.write((0, 4), 0x64, 2);
    assert!(driver.interrupts.line_is_high());
    driver.shell.write((0, 4), 0x64, 1);
    assert!(!driver.interrupts.line_is_high());
    driver.send(0, &[], &[1]);
    driver.interrupts.wait_past(1);
    driver.shell.set_status(0);
    assert!(!driver.interrupts.line_is_high());
}

#[test]
fn queue_that_does_not_exist_has_no_size_and_no_doorbell() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, Rng::new(Arc::new(Zeros)), 0);
        for queue in [1, 0x8000, 0xffff] {
            assert_eq!(driver.shell.queue_size(queue), 0);
            driver.shell.notify(queue);
        }
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

#[test]
fn power_on_reset_stops_the_device_and_clears_registers() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, Rng::new(Arc::new(Zeros)), 0);
        driver.shell.reset_device();
        assert_eq!(driver.shell.status(), 0);
    }
}

/// Fails to start once it has begun.
struct Unwilling {
    stops: Arc<std::sync::atomic::AtomicU32>,
}

impl VirtioDevice for Unwilling {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
    fn activate(&mut self, _activated: Activated) -> Result<(), Error> {
        Err(Error::Request("unwilling"))
    }
    fn stop(&mut self) -> Vec<ActiveQueue> {
        self.stops.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Vec::new()
    }
    fn reset(&mut self) {}
    fn save_state(&self) -> saved_state::Unit {
        saved_state::Unit::empty()
    }
    fn restore_state(&mut self, unit: &saved_state::Unit) -> Result<(), saved_state::Error> {
        unit.expect_empty()
    }
}

#[test]
fn device_that_cannot_start_is_stopped_and_shows_it() {
    for bus in Bus::BOTH {
        let stops = Arc::default();
        let mut driver = Driver::start(
            bus,
            Unwilling {
                stops: Arc::clone(&stops),
            },
            0,
        );
        assert_eq!(driver.shell.status(), 0x4f);
        assert_eq!(stops.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}

pub(super) fn any_device(kind: u8) -> Box<dyn VirtioDevice> {
    match kind % 3 {
        0 => Box::new(Rng::new(Arc::new(Zeros))),
        1 => Box::new(Fs::new("tag", Arc::new(Echo), 2).unwrap()),
        _ => {
            let port = |console| Port {
                name: "port".to_owned(),
                stream: Box::new(byte_pipe(64).0),
                console,
            };
            let size = Size { columns: 1, rows: 1 };
            Box::new(Console::new(vec![port(true), port(false)], size).unwrap())
        }
    }
}

/// An access of a hostile driver: the offset is in the BAR or the registers.
#[derive(Clone, Debug)]
enum Access {
    Read(u64, usize),
    Write(u64, u64, usize),
    ConfigRead(u16),
    ConfigWrite(u16, u32, u8),
    Memory(u64, u64),
    Notify(u16),
    Status(u32),
    Restart,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..0x120, 4 => 0_u64..0x8000, 1 => any::<u64>()]
}

fn access() -> impl Strategy<Value = Access> {
    let len = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), 0_usize..=8];
    let value = prop_oneof![0_u64..16, 0..RAM_LEN, any::<u64>()];
    // Rings of the helpers begin at 0x1000 and are 0x8000 apart.
    let place = prop_oneof![0x1000_u64..0x1_0000, 0..RAM_LEN - 8];
    let bits = prop_oneof![0_u64..0x1_0000, any::<u64>(), BUFFERS..BUFFERS + 0x1000];
    prop_oneof![
        2 => (offset(), len()).prop_map(|(offset, len)| Access::Read(offset, len)),
        4 => (offset(), value, len()).prop_map(|(offset, value, len)| Access::Write(offset, value, len)),
        1 => any::<u16>().prop_map(Access::ConfigRead),
        1 => (0_u16..0x110, any::<u32>(), any::<u8>())
            .prop_map(|(register, value, enable)| Access::ConfigWrite(register, value, enable)),
        8 => (place, bits).prop_map(|(gpa, value)| Access::Memory(gpa, value)),
        4 => (0_u16..8).prop_map(Access::Notify),
        1 => (0_u32..256).prop_map(Access::Status),
        1 => Just(Access::Restart),
    ]
}

fn carry_out(driver: &mut Driver, access: &Access) {
    match *access {
        Access::Read(offset, len) => driver.shell.raw_read(offset, &mut [0; 8][..len]),
        Access::Write(offset, value, len) => {
            driver.shell.raw_write(offset, &value.to_le_bytes()[..len]);
        }
        Access::ConfigRead(register) => driver.shell.raw_config_read(register),
        Access::ConfigWrite(register, value, enable) => {
            driver.shell.raw_config_write(register, value, enable);
        }
        Access::Memory(gpa, value) => driver.memory.write_obj(value, GuestAddress(gpa)).unwrap(),
        Access::Notify(queue) => driver.shell.notify(queue),
        Access::Status(status) => driver.shell.set_status(status),
        Access::Restart => driver.shell.restart(&driver.rings),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hostile_driver_never_panics_or_hangs_and_reset_recovers(
        kind in any::<u8>(),
        mmio in any::<bool>(),
        accesses in prop::collection::vec(access(), 0..300),
    ) {
        let bus = if mmio { Bus::Mmio } else { Bus::Pci };
        let mut driver = Driver::attach_boxed(bus, any_device(kind));
        driver.set_up(EVENT_INDEX);
        for access in &accesses {
            carry_out(&mut driver, access);
        }
        driver.power_on();
        driver.set_up(0);
        prop_assert_eq!(driver.shell.status(), 15);
        let answered = kind % 3 == 2 || driver.request(u16::from(kind % 3), &[b"x"], &[1]).len() == 1;
        prop_assert!(answered);
    }
}
