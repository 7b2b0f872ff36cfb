use std::sync::{Condvar, Mutex};

use device_backends::{ReplySink, RequestSource};

use super::*;
use crate::testing::{Bus, Driver, EVENT_INDEX, INDIRECT_DESCRIPTORS};

/// Answers a request with its own bytes in reverse. `wait` holds its request until `go` has come; `forget`
/// has no reply.
#[derive(Default)]
struct Mirror {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Vec<u8>>,
    resets: u32,
    go: bool,
}

impl FileService for Mirror {
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize {
        let mut bytes = vec![0; request.len()];
        request.read_at(0, &mut bytes).unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.requests.push(bytes.clone());
        seen.go |= bytes == b"go";
        self.changed.notify_all();
        if bytes == b"wait" {
            drop(self.changed.wait_while(seen, |seen| !seen.go).unwrap());
        }
        if bytes == b"forget" {
            return 0;
        }
        bytes.reverse();
        reply.write_at(0, &bytes).map_or(usize::MAX, |()| bytes.len())
    }

    fn reset(&self) {
        self.seen.lock().unwrap().resets += 1;
    }
}

fn start(bus: Bus, features: u64) -> (Arc<Mirror>, Driver) {
    let service = Arc::new(Mirror::default());
    let device = Fs::new("root", service.clone(), 2).unwrap();
    (service, Driver::start(bus, device, features))
}

fn expect_replies(bus: Bus, features: u64) {
    let (_, mut driver) = start(bus, features);
    for queue in [1, 2, 1] {
        assert_eq!(driver.request(queue, &[b"he", b"llo"], &[2, 30]), b"olleh");
    }
}

#[test]
fn requests_are_answered_on_both_buses_with_and_without_event_index() {
    for bus in Bus::BOTH {
        expect_replies(bus, 0);
        expect_replies(bus, EVENT_INDEX);
    }
}

#[test]
fn requests_in_indirect_tables_are_answered() {
    let (_, mut driver) = start(Bus::Pci, INDIRECT_DESCRIPTORS | EVENT_INDEX);
    driver.rings[1].send_indirect(&[b"in", b"direct"], &[16]);
    driver.shell.notify(1);
    assert_eq!(driver.wait(1).1, b"tceridni");
}

#[test]
fn forget_on_the_high_priority_queue_completes_without_reply() {
    let (service, mut driver) = start(Bus::Pci, EVENT_INDEX);
    assert_eq!(driver.request(0, &[b"forget"], &[]), b"");
    assert_eq!(service.seen.lock().unwrap().requests, [b"forget"]);
}

#[test]
fn slow_request_does_not_hold_up_its_queue() {
    let (_, mut driver) = start(Bus::Pci, EVENT_INDEX);
    let slow = driver.send(1, &[b"wait"], &[16]);
    let fast = driver.send(1, &[b"go"], &[16]);
    let mut heads = [driver.wait(1).0, driver.wait(1).0];
    heads.sort_unstable();
    assert_eq!(heads, [slow, fast]);
}

#[test]
fn many_requests_in_flight_are_all_answered_once() {
    let (_, mut driver) = start(Bus::Mmio, EVENT_INDEX);
    for round in 0..20_u8 {
        for n in 0..50_u8 {
            driver.rings[1].send(&[&[round, n]], &[2]);
        }
        driver.shell.notify(1);
        let mut answers: Vec<_> = (0..50).map(|_| driver.wait(1).1).collect();
        answers.sort_unstable();
        assert!((0..50).map(|n| vec![n, round]).eq(answers));
    }
}

#[test]
fn reply_that_claims_too_much_is_cut_to_the_space() {
    let (_, mut driver) = start(Bus::Pci, 0);
    assert_eq!(driver.request(1, &[b"too long"], &[4]).len(), 4);
}

#[test]
fn reset_stops_serving_and_tells_the_service() {
    let (service, mut driver) = start(Bus::Pci, EVENT_INDEX);
    driver.request(1, &[b"abc"], &[8]);
    driver.shell.set_status(0);
    assert_eq!(service.seen.lock().unwrap().resets, 1);
    driver.rings[1].send(&[b"nobody looks"], &[8]);
    driver.shell.notify(1);
    driver.set_up(0);
    assert_eq!(driver.request(1, &[b"again"], &[8]), b"niaga");
    assert_eq!(service.seen.lock().unwrap().requests.len(), 2);
}

#[test]
fn driver_that_leaves_out_a_queue_is_told_to_reset() {
    let service = Arc::new(Mirror::default());
    let mut driver = Driver::attach(Bus::Pci, Fs::new("root", service, 1).unwrap());
    driver.shell.set_features(crate::testing::VERSION_1);
    driver.shell.set_status(1 | 2 | 8 | 4);
    assert_eq!(driver.shell.status(), 0x4f);
}

#[test]
fn config_shows_tag_and_queues_and_nothing_past_them() {
    for bus in Bus::BOTH {
        let (_, mut driver) = start(bus, 0);
        assert_eq!(&driver.shell.config::<8>(0), b"root\0\0\0\0");
        assert_eq!(driver.shell.config(36), 2_u32.to_le_bytes());
        assert_eq!(driver.shell.config(38), [0; 4]);
        assert_eq!(driver.shell.config(0x800), [0; 8]);
    }
}

#[test]
fn new_impossible_tag_or_queues_is_refused() {
    let service = Arc::new(Mirror::default());
    for (tag, queues) in [("", 1), ("a\0b", 1), (&"x".repeat(37), 1), ("ok", 0), ("ok", 65)] {
        assert!(Fs::new(tag, service.clone(), queues).is_err());
    }
    assert!(Fs::new(&"x".repeat(36), service, 64).is_ok());
}
