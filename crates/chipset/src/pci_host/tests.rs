use std::sync::{Arc, Mutex, OnceLock, Weak};

use device_model::Device;
use device_model::pci::{BarKind, ConfigSpace, Identity};
use proptest::prelude::*;

use super::*;

const ECAM: u64 = 0xe000_0000;
pub(super) const WINDOW: u64 = 0xc000_0000;

/// A function with a BAR of memory.
pub(super) struct Memory {
    config: ConfigSpace,
    bytes: Vec<u8>,
    /// Reaches another function during an access where set.
    peer: OnceLock<(Weak<PciHost>, u64)>,
}

impl Memory {
    pub(super) fn new() -> Arc<Mutex<Self>> {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            ..Identity::default()
        });
        config.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
        config
            .add_bar(2, BarKind::Memory64 { prefetchable: false }, 0x4000)
            .unwrap();
        Arc::new(Mutex::new(Self {
            config,
            bytes: vec![0; 0x4000],
            peer: OnceLock::new(),
        }))
    }
}

impl Device for Memory {
    fn name(&self) -> &str {
        "memory"
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn save(&self) -> Unit {
        Unit::new(1, &self.config.save())
    }
    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        self.config.restore(&unit.decode(1)?)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Memory {
    fn config_read(&mut self, register: u16) -> u32 {
        self.config.read(register)
    }
    fn config_write(&mut self, register: u16, value: u32, byte_enable: u8) {
        self.config.write(register, value, byte_enable);
    }
    fn bars(&self) -> Vec<BarWindow> {
        self.config.bars()
    }
    fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
        if let Some((host, gpa)) = self.peer.get() {
            host.upgrade().unwrap().mmio_read(*gpa, data);
            return;
        }
        let offset = offset as usize;
        data.copy_from_slice(&self.bytes[offset..offset + data.len()]);
    }
    fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
        let offset = offset as usize;
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }
}

struct NotPci;

impl Device for NotPci {
    fn name(&self) -> &str {
        "not-pci"
    }
    fn reset(&mut self) {}
    fn save(&self) -> Unit {
        Unit::empty()
    }
    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.expect_empty()
    }
}

pub(super) fn empty() -> PciHost {
    PciHost::new(PciHostConfig {
        ecam_gpa: ECAM,
        windows: vec![MmioRange {
            gpa: WINDOW,
            len: 0x1000_0000,
        }],
    })
}

fn with_memory() -> PciHost {
    let mut host = empty();
    host.add(3, Memory::new()).unwrap();
    host
}

pub(super) fn select(host: &PciHost, slot: u32, register: u32) {
    let address = ADDRESS_ENABLE | slot << 11 | register;
    host.port_write(CONFIG_ADDRESS, &address.to_le_bytes());
}

pub(super) fn read(host: &PciHost, slot: u32, register: u32) -> u32 {
    select(host, slot, register);
    let mut data = [0xff; 4];
    host.port_read(CONFIG_DATA, &mut data);
    u32::from_le_bytes(data)
}

pub(super) fn write(host: &PciHost, slot: u32, register: u32, value: u32) {
    select(host, slot, register);
    host.port_write(CONFIG_DATA, &value.to_le_bytes());
}

pub(super) fn place(host: &PciHost, slot: u32, gpa: u32) {
    write(host, slot, 0x10, gpa);
    write(host, slot, 0x04, 2);
}

fn load(host: &PciHost, gpa: u64) -> u32 {
    let mut data = [0xff; 4];
    host.mmio_read(gpa, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn scan_finds_the_bridge_and_what_was_added() {
    let host = with_memory();
    let found: Vec<_> = (0..32).filter(|slot| read(&host, *slot, 0) != u32::MAX).collect();
    assert_eq!(found, [0, 3]);
    assert_eq!(read(&host, 0, 0x08) >> 16, 0x0600);
    assert_eq!(read(&host, 3, 0), 0x5678_1234);
}

#[test]
fn ports_and_ecam_show_the_same_registers() {
    let host = with_memory();
    write(&host, 3, 0x3c, 0x0b);
    assert_eq!(load(&host, ECAM + (3 << 15) + 0x3c), 0x0b);
    host.mmio_write(ECAM + (3 << 15) + 0x3c, &[0x0c]);
    assert_eq!(read(&host, 3, 0x3c), 0x0c);
    assert_eq!(load(&host, ECAM + (3 << 15) + 0x100), 0);
    assert_eq!(load(&host, ECAM + (4 << 15)), u32::MAX);
    assert_eq!(load(&host, ECAM + (3 << 15) + (1 << 12)), u32::MAX);
}

#[test]
fn narrow_and_unaligned_configuration_accesses_take_their_bytes() {
    let host = with_memory();
    select(&host, 3, 0);
    let mut word = [0; 2];
    host.port_read(CONFIG_DATA + 2, &mut word);
    assert_eq!(word, [0x78, 0x56]);
    let mut across = [0; 4];
    host.mmio_read(ECAM + (3 << 15) + 2, &mut across);
    assert_eq!(across, [0x78, 0x56, 0, 0]);
    let mut past = [0xff; 4];
    host.port_read(CONFIG_DATA + 3, &mut past);
    assert_eq!(past, [0x56, 0xff, 0xff, 0xff]);
}

#[test]
fn config_address_reads_back_and_ignores_narrow_writes() {
    let host = empty();
    host.port_write(CONFIG_ADDRESS, &0x8000_1803u32.to_le_bytes());
    host.port_write(CONFIG_ADDRESS + 3, &[1]);
    host.port_write(CONFIG_ADDRESS, &[6]);
    let mut data = [0; 4];
    host.port_read(CONFIG_ADDRESS, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x8000_1800);
}

#[test]
fn other_buses_and_functions_read_as_ones() {
    let host = with_memory();
    for address in [0x0000_1800u32, 0x8001_1800, 0x8000_1900] {
        host.port_write(CONFIG_ADDRESS, &address.to_le_bytes());
        let mut data = [0xff; 4];
        host.port_read(CONFIG_DATA, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
    }
}

#[test]
fn bar_decodes_where_the_guest_puts_it() {
    let host = with_memory();
    assert_eq!(load(&host, WINDOW), u32::MAX);
    place(&host, 3, WINDOW as u32);
    host.mmio_write(WINDOW + 8, &[1, 2, 3, 4]);
    assert_eq!(load(&host, WINDOW + 8), 0x0403_0201);
    place(&host, 3, WINDOW as u32 + 0x10_0000);
    assert_eq!(load(&host, WINDOW + 8), u32::MAX);
    assert_eq!(load(&host, WINDOW + 0x10_0008), 0x0403_0201);
    write(&host, 3, 0x04, 0);
    assert_eq!(load(&host, WINDOW + 0x10_0008), u32::MAX);
}

#[test]
fn access_that_leaves_the_bar_is_not_decoded() {
    let host = with_memory();
    place(&host, 3, WINDOW as u32);
    assert_eq!(load(&host, WINDOW + 0xffe), u32::MAX);
    assert_eq!(load(&host, WINDOW + 0xffc), 0);
}

#[test]
fn function_may_reach_another_function_during_its_access() {
    let mut host = empty();
    let first = Memory::new();
    host.add(1, first.clone()).unwrap();
    host.add(2, Memory::new()).unwrap();
    let host = Arc::new(host);
    place(&host, 1, WINDOW as u32);
    place(&host, 2, WINDOW as u32 + 0x1000);
    host.mmio_write(WINDOW + 0x1000, &[7, 0, 0, 0]);
    let peer = (Arc::downgrade(&host), WINDOW + 0x1000);
    assert!(first.lock().unwrap().peer.set(peer).is_ok());
    assert_eq!(load(&host, WINDOW), 7);
}

#[test]
fn reset_stops_decoding() {
    let host = with_memory();
    place(&host, 3, WINDOW as u32);
    host.reset();
    assert_eq!(load(&host, WINDOW), u32::MAX);
    assert_eq!(read(&host, 3, 0x10), 0);
}

#[test]
fn add_to_a_bad_or_taken_slot_or_without_function_is_refused() {
    let mut host = with_memory();
    for number in [0, 3, 32, 255] {
        let refused = host.add(number, Memory::new());
        assert!(matches!(refused, Err(Error::PciSlot { number: n }) if n == number));
    }
    let refused = host.add(4, Arc::new(Mutex::new(NotPci)));
    assert!(matches!(refused, Err(Error::NotPci { .. })));
}

proptest! {
    #[test]
    fn any_accesses_keep_the_decoded_map_true(
        accesses in prop::collection::vec((0u8..6, any::<u32>(), any::<[u8; 8]>(), 0usize..=8), 0..200),
    ) {
        let host = with_memory();
        for (kind, place, mut data, len) in accesses {
            let port = CONFIG_ADDRESS + (place % 8) as u16;
            let width = len.min(4);
            let ecam = ECAM + (3 << 15) + u64::from(place % 0x1010);
            let window = WINDOW + u64::from(place % 0x1000_0000);
            match kind {
                0 => host.port_write(port, &data[..width]),
                1 => host.port_read(port, &mut data[..width]),
                2 => host.mmio_write(ecam, &data[..len]),
                3 => host.mmio_read(ecam, &mut data[..len]),
                4 => host.mmio_write(window, &data[..len]),
                _ => write(&host, 3, place % 0x40, u32::from_le_bytes([data[0], data[1], data[2], data[3]])),
            }
            let before = host.decoded().clone();
            host.refresh();
            prop_assert_eq!(&before, &*host.decoded());
        }
    }
}
