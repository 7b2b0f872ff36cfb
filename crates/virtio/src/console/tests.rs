use std::io::{Read, Write};

use device_backends::{HostEnd, byte_pipe};
use proptest::prelude::*;

use super::*;
use crate::testing::{Bus, Driver, EVENT_INDEX};

pub(super) const MULTIPORT: u64 = protocol::F_MULTIPORT;
pub(super) const SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// Queues of the device under test.
const HVC_RECEIVE: u16 = 0;
pub(super) const HVC_TRANSMIT: u16 = 1;
pub(super) const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;
pub(super) const CHANNEL_RECEIVE: u16 = 4;
const CHANNEL_TRANSMIT: u16 = 5;

pub(super) struct Setup {
    pub(super) driver: Driver,
    pub(super) hvc: HostEnd,
    pub(super) channel: HostEnd,
    pub(super) resizer: Resizer,
}

/// A terminal and a channel, each with a stream of `capacity` bytes.
pub(super) fn console(capacity: usize) -> (Console, HostEnd, HostEnd) {
    let (terminal, hvc) = byte_pipe(capacity);
    let (plain, channel) = byte_pipe(capacity);
    let ports = vec![
        Port {
            name: String::new(),
            stream: Box::new(terminal),
            console: true,
        },
        Port {
            name: "crumblecracker.control".to_owned(),
            stream: Box::new(plain),
            console: false,
        },
    ];
    (Console::new(ports, SIZE).unwrap(), hvc, channel)
}

pub(super) fn start(bus: Bus, features: u64, capacity: usize) -> Setup {
    let (device, hvc, channel) = console(capacity);
    let resizer = device.resizer();
    Setup {
        driver: Driver::start(bus, device, features),
        hvc,
        channel,
        resizer,
    }
}

/// A control message as the wire has it.
pub(super) fn message(port: u32, event: u16, value: u16, tail: &[u8]) -> Vec<u8> {
    let mut bytes = port.to_le_bytes().to_vec();
    bytes.extend(event.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(tail);
    bytes
}

impl Setup {
    pub(super) fn tell(&mut self, port: u32, event: u16, value: u16) {
        self.driver
            .request(CONTROL_TRANSMIT, &[&message(port, event, value, &[])], &[]);
    }

    pub(super) fn hear(&mut self) -> Vec<u8> {
        self.driver.request(CONTROL_RECEIVE, &[], &[64])
    }

    /// What Linux does until the channel is open on both sides.
    pub(super) fn open_channel(&mut self) {
        self.announce_channel();
        self.tell(1, 6, 1);
    }

    /// What it does until a program can open the channel.
    fn announce_channel(&mut self) {
        self.tell(0, 0, 1);
        assert_eq!(self.hear(), message(0, 1, 0, &[]));
        assert_eq!(self.hear(), message(1, 1, 0, &[]));
        self.tell(1, 3, 1);
        assert_eq!(self.hear(), message(1, 7, 1, b"crumblecracker.control"));
        assert_eq!(self.hear(), message(1, 6, 1, &[]));
    }
}

fn read(host: &mut HostEnd, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    host.read_exact(&mut bytes).unwrap();
    bytes
}

fn expect_handshake_and_data(bus: Bus, features: u64) {
    let mut setup = start(bus, features | MULTIPORT, 1 << 16);
    setup.open_channel();
    setup
        .driver
        .request(CHANNEL_TRANSMIT, &[b"to ", b"the host"], &[]);
    assert_eq!(read(&mut setup.channel, 11), b"to the host");
    setup.channel.write_all(b"to the guest").unwrap();
    assert_eq!(
        setup.driver.request(CHANNEL_RECEIVE, &[], &[4, 60]),
        b"to the guest"
    );
}

#[test]
fn channel_opens_and_carries_bytes_on_both_buses_with_and_without_event_index() {
    for bus in Bus::BOTH {
        expect_handshake_and_data(bus, 0);
        expect_handshake_and_data(bus, EVENT_INDEX);
    }
}

#[test]
fn console_port_is_announced_as_one_with_its_size() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 64);
    setup.tell(0, 0, 1);
    setup.hear();
    setup.hear();
    setup.tell(0, 3, 1);
    assert_eq!(setup.hear(), message(0, 4, 1, &[]));
    assert_eq!(setup.hear(), message(0, 5, 0, &[80, 0, 24, 0]));
    assert_eq!(setup.hear(), message(0, 6, 1, &[]));
    setup.resizer.resize(Size {
        columns: 132,
        rows: 43,
    });
    assert_eq!(setup.hear(), message(0, 5, 0, &[132, 0, 43, 0]));
    assert_eq!(setup.driver.shell.config(0), [132, 0, 43, 0, 2, 0, 0, 0]);
}

#[test]
fn sizes_that_nobody_heard_are_not_told() {
    let mut outbox = control::Outbox::default();
    let resize = |port, rows| protocol::ToDriver::Resize {
        port,
        size: Size { columns: 80, rows },
    };
    for message in [resize(0, 1), resize(1, 1), resize(0, 2), resize(0, 3)] {
        outbox.push(message);
    }
    let memory = crate::testing::ram();
    let mut ring = crate::testing::Ring::new(&memory, CONTROL_RECEIVE, 8);
    for _ in 0..3 {
        ring.send(&[], &[16]);
    }
    let queue = crate::queue::Queue::new(memory, ring.position, false).unwrap();
    let silent = crate::Interrupt::new(Arc::new(Silent), Arc::default());
    let mut queue = ActiveQueue::new(CONTROL_RECEIVE, queue, Arc::default(), silent);
    assert!(outbox.send(&mut queue).unwrap());
    let told: Vec<_> = std::iter::from_fn(|| ring.completion())
        .map(|used| used.1)
        .collect();
    assert_eq!(
        told,
        [message(1, 5, 0, &[80, 0, 1, 0]), message(0, 5, 0, &[80, 0, 3, 0])]
    );
}

#[test]
fn early_output_arrives_before_any_port_is_open() {
    let mut setup = start(Bus::Pci, MULTIPORT, 64);
    setup.driver.request(HVC_TRANSMIT, &[b"early"], &[]);
    assert_eq!(read(&mut setup.hvc, 5), b"early");
}

#[test]
fn driver_that_knows_one_port_gets_its_bytes_at_once() {
    let mut setup = start(Bus::Mmio, 0, 64);
    setup.hvc.write_all(b"typed").unwrap();
    assert_eq!(setup.driver.request(HVC_RECEIVE, &[], &[64]), b"typed");
}

#[test]
fn resize_with_one_port_changes_the_configuration() {
    let mut setup = start(Bus::Pci, protocol::F_SIZE, 64);
    let before = setup.driver.shell.generation();
    setup.resizer.resize(Size { columns: 1, rows: 2 });
    // The request behind it shows that the thread has seen the size.
    setup.driver.request(HVC_TRANSMIT, &[b"x"], &[]);
    setup.driver.request(HVC_TRANSMIT, &[b"x"], &[]);
    assert_ne!(setup.driver.shell.generation(), before);
    let config_vector = setup.driver.rings.len() as u32;
    assert!(setup.driver.interrupts.vectors().contains(&config_vector));
}

#[test]
fn bytes_for_a_closed_port_wait_until_it_opens() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 64);
    setup.channel.write_all(b"wait").unwrap();
    setup.driver.send(CHANNEL_RECEIVE, &[], &[64]);
    setup.announce_channel();
    let early = setup.driver.rings[usize::from(CHANNEL_RECEIVE)].completion();
    setup.tell(1, 6, 1);
    assert_eq!(early, None);
    assert_eq!(setup.driver.wait(CHANNEL_RECEIVE).1, b"wait");
}

#[test]
fn full_stream_holds_the_guest_and_loses_nothing() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 10);
    let text: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    for piece in text.chunks(5_000) {
        setup.driver.send(CHANNEL_TRANSMIT, &[piece], &[]);
    }
    assert_eq!(read(&mut setup.channel, 20_000), text);
    let heads: Vec<_> = (0..4).map(|_| setup.driver.wait(CHANNEL_TRANSMIT).0).collect();
    assert_eq!(heads, [0, 1, 2, 3]);
}

#[test]
fn guest_without_buffers_holds_the_host_and_loses_nothing() {
    let mut setup = start(Bus::Mmio, MULTIPORT | EVENT_INDEX, 10);
    setup.open_channel();
    let text: Vec<u8> = (0..5_000_u32).map(|n| (n % 251) as u8).collect();
    let mut host = setup.channel.clone();
    let sent = text.clone();
    let writer = std::thread::spawn(move || host.write_all(&sent));
    let mut received = Vec::new();
    while received.len() < text.len() {
        received.extend(setup.driver.request(CHANNEL_RECEIVE, &[], &[7, 100]));
    }
    writer.join().unwrap().unwrap();
    assert_eq!(received, text);
}

struct Silent;

impl crate::transport::InterruptSink for Silent {
    fn used_buffers(&self, _queue: u16) {}
    fn config_changed(&self) {}
}

#[test]
fn stop_in_the_middle_of_a_chain_goes_on_there() {
    let (mut device, mut hvc, _channel) = console(4);
    let memory = crate::testing::ram();
    let mut ring = crate::testing::Ring::new(&memory, HVC_TRANSMIT, 8);
    let sink = crate::Interrupt::new(Arc::new(Silent), Arc::default());
    ring.send(&[b"0123456789"], &[]);
    let queue = crate::queue::Queue::new(memory, ring.position, false).unwrap();
    let queue = ActiveQueue::new(HVC_TRANSMIT, queue, Arc::default(), sink.clone());
    let activated = |queues| Activated {
        queues,
        features: MULTIPORT,
        interrupt: sink.clone(),
    };
    device.activate(activated(vec![queue])).unwrap();
    assert_eq!(read(&mut hvc, 4), b"0123");
    let queues = device.stop();
    assert_eq!(queues[0].queue.position().next_available, 0);
    device.activate(activated(queues)).unwrap();
    assert_eq!(read(&mut hvc, 6), b"456789");
    let queues = device.stop();
    assert_eq!(queues[0].queue.position().next_available, 1);
    assert_eq!(ring.completion(), Some((0, Vec::new())));
}

#[test]
fn host_side_that_closes_is_shown() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 64);
    setup.open_channel();
    setup.channel.shutdown();
    assert_eq!(setup.hear(), message(1, 6, 0, &[]));
    setup.driver.request(CHANNEL_TRANSMIT, &[b"swallowed"], &[]);
}

#[test]
fn unknown_ports_and_events_are_without_effect() {
    let mut setup = start(Bus::Pci, MULTIPORT, 64);
    for (port, event) in [(2, 3), (u32::MAX, 6), (0x1_0000, 3), (0, 77), (0, 5)] {
        setup.tell(port, event, 1);
    }
    setup.open_channel();
}

#[test]
fn driver_that_asks_without_taking_answers_is_held() {
    let mut setup = start(Bus::Pci, MULTIPORT, 64);
    for _ in 0..31 {
        setup.tell(0, 0, 1);
    }
    // 62 messages wait; two more and no further question is taken until answers are.
    setup.tell(0, 0, 1);
    setup
        .driver
        .send(CONTROL_TRANSMIT, &[&message(0, 0, 1, &[])], &[]);
    for _ in 0..66 {
        setup.hear();
    }
    setup.driver.wait(CONTROL_TRANSMIT);
}

#[test]
fn malformed_control_message_latches_and_reset_recovers() {
    for bus in Bus::BOTH {
        let mut setup = start(bus, MULTIPORT, 64);
        setup.driver.send(CONTROL_TRANSMIT, &[b"short"], &[]);
        setup.driver.wait_broken();
        setup.driver.set_up(MULTIPORT | EVENT_INDEX);
        setup.open_channel();
    }
}

#[test]
fn reset_forgets_ports_and_shows_them_anew() {
    let mut setup = start(Bus::Pci, MULTIPORT, 64);
    setup.open_channel();
    setup.driver.set_up(MULTIPORT);
    setup.channel.write_all(b"later").unwrap();
    setup.driver.send(CHANNEL_RECEIVE, &[], &[64]);
    setup.open_channel();
    assert_eq!(setup.driver.wait(CHANNEL_RECEIVE).1, b"later");
}

#[test]
fn new_no_port_or_too_many_is_refused() {
    let port = || Port {
        name: String::new(),
        stream: Box::new(byte_pipe(1).0),
        console: false,
    };
    assert!(Console::new(vec![], SIZE).is_err());
    assert!(Console::new((0..32).map(|_| port()).collect(), SIZE).is_err());
    let most = Console::new((0..31).map(|_| port()).collect(), SIZE).unwrap();
    assert_eq!(most.queue_sizes().len(), 64);
}

proptest! {
    #[test]
    fn any_control_message_parses(bytes in any::<[u8; 8]>()) {
        let known = matches!(bytes[4..6], [0 | 3 | 6, 0]);
        let unknown = matches!(protocol::FromDriver::parse(bytes), protocol::FromDriver::Unknown { .. });
        prop_assert_eq!(known, !unknown);
    }
}
