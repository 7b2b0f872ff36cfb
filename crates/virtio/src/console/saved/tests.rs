use std::io::{Read, Write};

use proptest::prelude::*;
use saved_state::{Saved, Unit};

use super::super::tests::{
    CHANNEL_RECEIVE, CONTROL_RECEIVE, HVC_TRANSMIT, MULTIPORT, SIZE, Setup, console, message, start,
};
use super::*;
use crate::VirtioDevice;
use crate::testing::{Bus, EVENT_INDEX};

const OTHER_SIZE: Size = Size {
    columns: 132,
    rows: 43,
};

impl Setup {
    /// Goes on behind a new console with new streams.
    fn move_to_new(&mut self) {
        let (device, hvc, channel) = console(1 << 16);
        self.resizer = device.resizer();
        self.driver.move_to(device);
        (self.hvc, self.channel) = (hvc, channel);
    }
}

#[test]
fn open_channel_that_moves_is_open_and_carries_bytes() {
    for bus in Bus::BOTH {
        let mut setup = start(bus, MULTIPORT | EVENT_INDEX, 1 << 16);
        setup.open_channel();
        setup.driver.send(CHANNEL_RECEIVE, &[], &[64]);
        setup.move_to_new();
        setup.channel.write_all(b"to the guest").unwrap();
        assert_eq!(setup.driver.wait(CHANNEL_RECEIVE).1, b"to the guest");
        setup.driver.request(HVC_TRANSMIT, &[b"to the host"], &[]);
        let mut text = [0; 11];
        setup.hvc.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"to the host");
    }
}

#[test]
fn chain_that_waits_for_the_host_is_neither_lost_nor_sent_twice() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 4);
    let text = b"0123456789".repeat(3);
    setup.driver.send(HVC_TRANSMIT, &[&text], &[]);
    let mut first = [0; 6];
    setup.hvc.read_exact(&mut first).unwrap();
    let mut old = setup.hvc.clone();

    setup.move_to_new();

    let mut received = first.to_vec();
    // The old device is gone, so its stream ends.
    old.read_to_end(&mut received).unwrap();
    let mut rest = vec![0; text.len() - received.len()];
    setup.hvc.read_exact(&mut rest).unwrap();
    received.extend(rest);
    assert_eq!(received, text);
    setup.driver.wait(HVC_TRANSMIT);
    setup.driver.request(HVC_TRANSMIT, &[b"x"], &[]);
    let mut next = [0];
    setup.hvc.read_exact(&mut next).unwrap();
    assert_eq!(&next, b"x");
}

#[test]
fn messages_that_wait_for_buffers_move() {
    let mut setup = start(Bus::Mmio, MULTIPORT, 64);
    setup.tell(0, 0, 1);
    setup.tell(0, 3, 1);
    setup.tell(1, 3, 1);

    setup.move_to_new();

    let name = b"crumblecracker.control";
    assert_eq!(setup.hear(), message(0, 1, 0, &[]));
    assert_eq!(setup.hear(), message(1, 1, 0, &[]));
    assert_eq!(setup.hear(), message(0, 4, 1, &[]));
    assert_eq!(setup.hear(), message(0, 5, 0, &[80, 0, 24, 0]));
    let mut rest = [setup.hear(), setup.hear(), setup.hear()];
    rest.sort_unstable();
    let open = [message(0, 6, 1, &[]), message(1, 6, 1, &[])];
    assert_eq!(rest, [open[0].clone(), open[1].clone(), message(1, 7, 1, name)]);
}

#[test]
fn terminal_that_has_another_size_after_the_move_tells_it() {
    let mut setup = start(Bus::Pci, MULTIPORT | EVENT_INDEX, 64);
    setup.tell(0, 0, 1);
    setup.hear();
    setup.hear();
    setup.tell(0, 3, 1);
    let told = [setup.hear(), setup.hear(), setup.hear()];
    assert_eq!(told[1], message(0, 5, 0, &[80, 0, 24, 0]));
    setup.driver.send(CONTROL_RECEIVE, &[], &[64]);

    let (device, _hvc, _channel) = console(64);
    device.resizer().resize(OTHER_SIZE);
    setup.driver.move_to(device);

    assert_eq!(
        setup.driver.wait(CONTROL_RECEIVE).1,
        message(0, 5, 0, &[132, 0, 43, 0])
    );
}

/// Every kind of message, and every field other than at power-on.
fn busy(ports: &[HostPort]) -> State {
    let mut state = State::new(ports.len());
    state.ports[0] = PortState {
        ready: true,
        guest_open: true,
        shown_open: true,
        sent: 7,
    };
    state.shown_size = Some(SIZE);
    let waiting = [
        ToDriver::PortAdd { port: 1 },
        ToDriver::ConsolePort { port: 0 },
        ToDriver::Resize { port: 0, size: SIZE },
        ToDriver::PortOpen { port: 1, open: true },
        ToDriver::PortName {
            port: 1,
            name: ports[1].name.clone(),
        },
    ];
    state.control.waiting.extend(waiting);
    state
}

fn busy_unit() -> Unit {
    let (device, ..) = console(64);
    Unit::new(SCHEMA, &SavedConsole::of(&busy(&device.ports)))
}

fn restored(unit: &Unit) -> Result<Unit, Error> {
    let (mut device, ..) = console(64);
    device.restore_state(unit).map(|()| device.save_state())
}

#[test]
fn state_saved_and_restored_is_equal() {
    let (mut device, ..) = console(64);
    device.restore_state(&busy_unit()).unwrap();
    let expected = busy(&device.ports).control.waiting;
    assert_eq!(device.state.control.waiting, expected);
    assert_eq!(device.save_state(), busy_unit());
}

#[test]
fn state_of_the_first_layout_restores() {
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };
    assert_eq!(restored(&golden).unwrap(), busy_unit());
}

#[test]
fn restore_what_no_guest_can_bring_about_is_refused() {
    let changes: [fn(&mut SavedConsole); 11] = [
        |saved| saved.ports.truncate(1),
        |saved| saved.waiting[0].port = 2,
        |saved| saved.waiting[0].event = 2,
        |saved| saved.waiting[0].open = Some(true),
        |saved| saved.waiting[1].port = 1,
        |saved| saved.waiting[2].port = 1,
        |saved| saved.waiting[2].size = None,
        |saved| saved.waiting[3].open = None,
        |saved| saved.waiting[4].port = 0,
        |saved| saved.waiting[4].size = Some(SavedSize::of(SIZE)),
        |saved| {
            let add = || SavedMessage {
                event: 1,
                port: 0,
                open: None,
                size: None,
            };
            saved.waiting = (0..=MAX_WAITING).map(|_| add()).collect();
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut saved = SavedConsole::from_bytes(&busy_unit().bytes).unwrap();
        change(&mut saved);
        assert!(restored(&Unit::new(SCHEMA, &saved)).is_err(), "{n}");
    }
}

#[test]
fn progress_past_the_end_of_a_chain_completes_it() {
    let (mut device, mut hvc, _channel) = console(64);
    let mut state = SavedConsole::from_bytes(&device.save_state().bytes).unwrap();
    state.ports[0].sent = u64::MAX >> 1;
    device.restore_state(&Unit::new(SCHEMA, &state)).unwrap();
    let mut driver = crate::testing::Driver::start(Bus::Pci, device, MULTIPORT);
    driver.request(HVC_TRANSMIT, &[b"skipped"], &[]);
    driver.request(HVC_TRANSMIT, &[b"next"], &[]);
    let mut text = [0; 4];
    hvc.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"next");
}

proptest! {
    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful(
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
        any: Vec<u8>,
    ) {
        let mut unit = busy_unit();
        for (at, value) in changes {
            *at.get_mut(&mut unit.bytes) = value;
        }
        let again = restored(&unit);
        prop_assert!(again.is_err() || again.unwrap() == unit);
        let foreign = Unit { schema: 1, bytes: any };
        prop_assert!(restored(&foreign).is_err());
    }
}
