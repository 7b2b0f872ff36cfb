use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use device_backends::{Entropy, FileService, ReplySink, RequestSource};
use proptest::prelude::*;
use saved_state::{Saved, Unit};

use super::super::tests::{Echo, Zeros, any_device, rng};
use super::*;
use crate::fs::Fs;
use crate::rng::Rng;
use crate::testing::{Bus, Driver, EVENT_INDEX, Shell, VERSION_1};
use crate::{Activated, ActiveQueue, DeviceType, VirtioDevice};

const NEEDS_RESET: u32 = 0x40;

fn fs() -> Fs {
    Fs::new("tag", Arc::new(Echo), 2).unwrap()
}

/// `unit`, changed.
fn with_core(bus: Bus, unit: &Unit, change: fn(&mut SavedCore)) -> Unit {
    match bus {
        Bus::Pci => {
            let mut saved = SavedPci::from_bytes(&unit.bytes).unwrap();
            change(&mut saved.core);
            Unit::new(SCHEMA, &saved)
        }
        Bus::Mmio => {
            let mut saved = SavedMmio::from_bytes(&unit.bytes).unwrap();
            change(&mut saved.core);
            Unit::new(SCHEMA, &saved)
        }
    }
}

fn new_rng() -> Rng {
    Rng::new(Arc::new(Zeros))
}

fn expect_work_goes_on(bus: Bus, features: u64) {
    let mut driver = Driver::start(bus, fs(), features);
    for round in 0..20_u8 {
        assert_eq!(driver.request(1, &[&[round, 1]], &[2]), [round, 1]);
        driver.move_to(fs());
        assert_eq!(driver.request(2, &[&[round, 2]], &[2]), [round, 2]);
        assert_eq!(driver.request(1, &[&[round, 3]], &[2]), [round, 3]);
    }
}

#[test]
fn device_that_moves_goes_on_on_both_buses_with_and_without_event_index() {
    for bus in Bus::BOTH {
        expect_work_goes_on(bus, 0);
        expect_work_goes_on(bus, EVENT_INDEX);
    }
}

#[test]
fn requests_in_flight_at_the_move_are_all_answered_once() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, fs(), EVENT_INDEX);
        for round in 0..20_u8 {
            for n in 0..50_u8 {
                driver.rings[1].send(&[&[round, n]], &[2]);
            }
            driver.shell.notify(1);
            driver.move_to(fs());
            let mut answers: Vec<_> = (0..50).map(|_| driver.wait(1).1).collect();
            answers.sort_unstable();
            assert!((0..50).map(|n| vec![round, n]).eq(answers));
        }
    }
}

#[test]
fn pulse_on_the_same_device_goes_on() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, new_rng(), EVENT_INDEX);
        for _ in 0..20 {
            driver.save();
            driver.shell.device().resume();
            assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
        }
    }
}

#[test]
fn request_that_comes_while_paused_is_served_after_it() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, new_rng(), EVENT_INDEX);
        let before = driver.save();
        driver.send(0, &[], &[4]);
        assert_eq!((driver.save(), driver.rings[0].completion()), (before, None));
        driver.shell.device().resume();
        assert_eq!(driver.wait(0).1, [0; 4]);
    }
}

#[test]
fn driver_that_is_half_way_goes_on_from_there() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        driver.shell.set_features(VERSION_1);
        driver.shell.set_status(1 | 2 | 8);
        driver.shell.set_up_msix(1);
        let ring = crate::testing::Ring::new(&driver.memory, 0, 8);
        driver.shell.set_up_queue(0, &ring);
        driver.rings.push(ring);
        driver.move_to(new_rng());
        assert_eq!(driver.shell.status(), 1 | 2 | 8);
        driver.shell.set_status(1 | 2 | 8 | 4);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

#[test]
fn device_that_nobody_touched_moves() {
    for bus in Bus::BOTH {
        let mut driver = rng(bus);
        driver.move_to(new_rng());
        driver.set_up(EVENT_INDEX);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

/// An answer whose interrupt waits: behind a mask on PCI, for its acknowledgement on MMIO.
fn busy(bus: Bus) -> Driver {
    let mut driver = Driver::start(bus, new_rng(), 0);
    driver.shell.mask(0, true);
    driver.send(0, &[], &[4]);
    driver.wait_without_arming(0);
    driver
}

#[test]
fn interrupt_that_waits_behind_a_mask_comes_after_the_move() {
    let mut driver = busy(Bus::Pci);
    driver.move_to(new_rng());
    assert_eq!(driver.interrupts.count(), 0);
    driver.shell.mask(0, false);
    assert_eq!(driver.interrupts.vectors(), [0]);
}

#[test]
fn line_is_driven_only_once_the_device_is_resumed() {
    let mut driver = busy(Bus::Mmio);
    let unit = driver.save();
    driver.restore(Box::new(new_rng()), &unit).unwrap();
    assert!(!driver.interrupts.line_is_high());
    driver.shell.device().resume();
    assert!(driver.interrupts.line_is_high());
    driver.shell.acknowledge();
    assert!(!driver.interrupts.line_is_high());
}

#[test]
fn isr_status_moves() {
    let mut driver = Driver::start(Bus::Pci, new_rng(), 0);
    let msix_off = |shell: &mut Shell| {
        let Shell::Pci { device, structures } = shell else {
            unreachable!("PCI was asked for")
        };
        device_model::pci::PciFunction::config_write(&mut **device, structures.msix_capability, 0, 0b1100);
        structures.isr
    };
    let isr = msix_off(&mut driver.shell);
    driver.send(0, &[], &[4]);
    driver.wait_without_arming(0);
    driver.move_to(new_rng());
    let mut status = [[0xff]; 2];
    driver.shell.raw_read(isr, &mut status[0]);
    driver.shell.raw_read(isr, &mut status[1]);
    assert_eq!(status, [[1], [0]]);
}

#[test]
fn broken_device_comes_back_broken_and_reset_recovers() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, new_rng(), EVENT_INDEX);
        driver.rings[0].offer(0xffff);
        driver.shell.notify(0);
        driver.wait_broken();
        driver.move_to(new_rng());
        assert_eq!(driver.shell.status(), 15 | NEEDS_RESET);
        driver.move_to(new_rng());
        driver.set_up(EVENT_INDEX);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

/// Counts its starts, and needs a reset after each.
#[derive(Default)]
struct Breaking {
    starts: Arc<AtomicU32>,
    queues: Vec<ActiveQueue>,
}

impl VirtioDevice for Breaking {
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
    fn activate(&mut self, activated: Activated) -> Result<(), crate::Error> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        self.queues = activated.queues;
        activated.interrupt.broken(&crate::Error::Request("for the test"));
        Ok(())
    }
    fn stop(&mut self) -> Vec<ActiveQueue> {
        std::mem::take(&mut self.queues)
    }
    fn reset(&mut self) {}
    fn save_state(&self) -> Unit {
        Unit::empty()
    }
    fn restore_state(&mut self, unit: &Unit) -> Result<(), Error> {
        unit.expect_empty()
    }
}

#[test]
fn broken_device_is_not_started_until_it_is_reset() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, Breaking::default(), 0);
        let new = Breaking::default();
        let starts = new.starts.clone();
        driver.move_to(new);
        assert_eq!(starts.load(Ordering::SeqCst), 0);
        driver.set_up(0);
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn rings_that_are_not_in_ram_after_the_move_are_told_to_the_driver() {
    for bus in Bus::BOTH {
        let mut driver = Driver::start(bus, new_rng(), 0);
        driver.request(0, &[], &[4]);
        let unit = with_core(bus, &driver.save(), |core| {
            core.queues[0].descriptors = 0x7000_0000
        });
        driver.restore(Box::new(new_rng()), &unit).unwrap();
        driver.shell.device().resume();
        assert_eq!(driver.shell.status(), 15 | NEEDS_RESET);
        driver.set_up(0);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

/// Panics with a request in its hands, the first time.
#[derive(Default)]
struct Panicking {
    has: AtomicBool,
}

impl Panicking {
    fn wait_panicked(&self) {
        while !self.has.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    fn panic_once(&self) {
        let again = self.has.swap(true, Ordering::SeqCst);
        assert!(again, "for the test");
    }
}

impl Entropy for Panicking {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.panic_once();
        Zeros.fill(bytes)
    }
}

impl FileService for Panicking {
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize {
        self.panic_once();
        Echo.handle(request, reply)
    }

    fn reset(&self) {}
}

fn expect_lost_request_is_told(
    bus: Bus,
    queue: u16,
    service: &Panicking,
    device: impl VirtioDevice + 'static,
    new: impl VirtioDevice + 'static,
) {
    let mut driver = Driver::start(bus, device, 0);
    driver.send(queue, &[b"x"], &[1]);
    service.wait_panicked();
    driver.save();
    assert_eq!(driver.shell.status() & NEEDS_RESET, NEEDS_RESET);
    driver.move_to(new);
    assert_eq!(driver.shell.status(), 15 | NEEDS_RESET);
    driver.set_up(0);
    assert_eq!(driver.request(queue, &[b"x"], &[1]).len(), 1);
}

#[test]
fn request_lost_by_a_thread_that_panicked_is_told_to_the_driver() {
    for bus in Bus::BOTH {
        let service = Arc::new(Panicking::default());
        expect_lost_request_is_told(bus, 0, &service, Rng::new(service.clone()), new_rng());
        let service = Arc::new(Panicking::default());
        let device = Fs::new("tag", service.clone(), 2).unwrap();
        expect_lost_request_is_told(bus, 1, &service, device, fs());
    }
}

/// Holds a request until it is let go.
#[derive(Default)]
struct Slow {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Slow {
    fn wait_entered(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !state.0).unwrap());
    }

    fn let_go(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl FileService for Slow {
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
        Echo.handle(request, reply)
    }

    fn reset(&self) {}
}

#[test]
fn pause_waits_for_a_request_in_the_hands_of_the_service() {
    for bus in Bus::BOTH {
        let service = Arc::new(Slow::default());
        let mut driver = Driver::start(bus, Fs::new("tag", service.clone(), 2).unwrap(), EVENT_INDEX);
        driver.send(1, &[b"slow"], &[4]);
        service.wait_entered();
        let other = std::thread::spawn(move || service.let_go());
        driver.save();
        other.join().unwrap();
        assert_eq!(driver.rings[1].completion(), Some((0, b"slow".to_vec())));
        driver.move_to(fs());
        assert_eq!(driver.request(1, &[b"next"], &[4]), b"next");
    }
}

#[test]
fn states_of_the_first_layout_restore() {
    let golden: [(_, &[u8]); 2] = [
        (Bus::Pci, include_bytes!("../saved-pci-1.bin")),
        (Bus::Mmio, include_bytes!("../saved-mmio-1.bin")),
    ];
    for (bus, bytes) in golden {
        let mut driver = busy(bus);
        let unit = driver.save();
        let golden = Unit {
            schema: 1,
            bytes: bytes.to_vec(),
        };
        driver.restore(Box::new(new_rng()), &golden).unwrap();
        assert_eq!(driver.shell.device().save(), unit);
        driver.shell.device().resume();
        driver.shell.mask(0, false);
        assert_eq!(driver.request(0, &[], &[4]), [0; 4]);
    }
}

#[test]
fn restore_of_another_device_or_another_number_of_queues_is_refused() {
    for bus in Bus::BOTH {
        let unit = Driver::start(bus, fs(), 0).save();
        let fewer = Fs::new("tag", Arc::new(Echo), 1).unwrap();
        assert!(rng(bus).restore(Box::new(fewer), &unit).is_err());
        assert!(rng(bus).restore(Box::new(new_rng()), &unit).is_err());
        let other = Driver::attach(bus, Fs::new("tag", Arc::new(Echo), 1).unwrap()).save();
        assert!(rng(bus).restore(any_device(2), &other).is_err());
    }
}

#[test]
fn restore_pci_what_no_guest_can_bring_about_is_refused() {
    let changes: [fn(&mut SavedPci); 5] = [
        |saved| saved.config.bytes[0] ^= 1,
        |saved| saved.config_vector = 2,
        |saved| saved.queue_vectors[0] = 2,
        |saved| saved.queue_vectors.push(0),
        |saved| saved.isr = 4,
    ];
    for change in changes {
        let mut driver = busy(Bus::Pci);
        let mut saved = SavedPci::from_bytes(&driver.save().bytes).unwrap();
        change(&mut saved);
        let unit = Unit::new(SCHEMA, &saved);
        assert!(driver.restore(Box::new(new_rng()), &unit).is_err());
    }
}

#[test]
fn restore_mmio_interrupt_that_does_not_exist_is_refused() {
    let mut driver = busy(Bus::Mmio);
    let mut saved = SavedMmio::from_bytes(&driver.save().bytes).unwrap();
    saved.interrupt_status = 4;
    let unit = Unit::new(SCHEMA, &saved);
    assert!(driver.restore(Box::new(new_rng()), &unit).is_err());
}

#[test]
fn restore_core_that_no_guest_can_bring_about_is_refused() {
    let changes: [fn(&mut SavedCore); 16] = [
        |core| core.device_type = 26,
        |core| core.driver_features |= 1 << 35,
        |core| core.driver_features = 0,
        |core| core.status |= 0x20,
        |core| core.status &= !8,
        |core| core.status &= !4,
        |core| core.status = NEEDS_RESET as u8,
        |core| core.active = false,
        |core| core.queues.clear(),
        |core| core.queues[0].size = 0,
        |core| core.queues[0].size = 3,
        |core| core.queues[0].size = 16,
        |core| core.queues[0].next_used = 0,
        |core| core.queues[0].enabled = false,
        |core| core.device_schema = 2,
        |core| core.device_state.push(0),
    ];
    for bus in Bus::BOTH {
        for (n, change) in changes.into_iter().enumerate() {
            let mut driver = busy(bus);
            let unit = with_core(bus, &driver.save(), change);
            let refused = driver.restore(Box::new(new_rng()), &unit).is_err();
            assert!(refused, "{n} on {bus:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful_and_reset_recovers(
        kind in any::<u8>(),
        mmio in any::<bool>(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
        foreign: Vec<u8>,
    ) {
        let bus = if mmio { Bus::Mmio } else { Bus::Pci };
        let mut driver = Driver::attach_boxed(bus, any_device(kind));
        driver.set_up(EVENT_INDEX);
        let mut unit = driver.save();
        for (at, value) in changes {
            *at.get_mut(&mut unit.bytes) = value;
        }
        let foreign = Unit { schema: 1, bytes: foreign };
        prop_assert!(driver.restore(any_device(kind), &foreign).is_err());
        if driver.restore(any_device(kind), &unit).is_ok() {
            prop_assert_eq!(driver.shell.device().save(), unit);
            driver.shell.device().resume();
            driver.shell.notify(0);
            driver.shell.notify(1);
            driver.power_on();
            driver.set_up(0);
            prop_assert_eq!(driver.shell.status(), 15);
        }
    }
}
