use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::testing::{Bus, Driver, EVENT_INDEX};

/// Counts up, so that no byte can be lost or come twice unseen.
#[derive(Default)]
struct Counting {
    next: std::sync::Mutex<u8>,
    fails: AtomicBool,
}

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        let mut next = self.next.lock().unwrap();
        for byte in bytes {
            *byte = *next;
            *next = next.wrapping_add(1);
        }
        Ok(())
    }
}

fn expect_requests_filled(bus: Bus, features: u64) {
    let mut driver = Driver::start(bus, Rng::new(Arc::new(Counting::default())), features);
    for round in 0..20_u8 {
        let answer = driver.request(0, &[], &[3, 1]);
        assert_eq!(answer, [0, 1, 2, 3].map(|n| round * 4 + n));
    }
}

#[test]
fn requests_are_filled_on_both_buses_with_and_without_event_index() {
    for bus in Bus::BOTH {
        expect_requests_filled(bus, 0);
        expect_requests_filled(bus, EVENT_INDEX);
    }
}

#[test]
fn request_for_more_than_the_cap_yields_the_cap() {
    let mut driver = Driver::start(Bus::Pci, Rng::new(Arc::new(Counting::default())), 0);
    let answer = driver.request(0, &[], &[50_000, 50_000]);
    assert_eq!(answer.len(), protocol::MAX_BYTES);
}

#[test]
fn failing_source_latches_until_reset() {
    let source = Arc::new(Counting::default());
    source.fails.store(true, Ordering::SeqCst);
    let mut driver = Driver::start(Bus::Mmio, Rng::new(source.clone()), 0);
    driver.send(0, &[], &[4]);
    driver.wait_broken();
    source.fails.store(false, Ordering::SeqCst);
    driver.set_up(EVENT_INDEX);
    assert_eq!(driver.request(0, &[], &[2]), [0, 1]);
}
