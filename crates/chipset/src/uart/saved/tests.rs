use std::io::{Read, Write};

use device_model::Device;
use proptest::prelude::*;
use saved_state::{Saved, Unit};

use super::super::tests::Port;
use super::*;
use crate::testing::{changes, refused_or_faithful};

/// Both FIFOs filled, the interrupt high, and every register other than at power-on.
fn busy() -> Port {
    let mut port = Port::new(2);
    port.write(LCR, LCR_8N1 | LCR_DLAB);
    port.write(DATA, 1);
    port.write(IER, 2);
    port.write(LCR, LCR_8N1);
    port.write(IIR, FCR_ENABLE | 0x80);
    port.write(IER, IER_RECEIVED | IER_LINE_STATUS);
    port.write(SCR, 0xa5);
    for byte in b"output" {
        port.write(DATA, *byte);
    }
    port.write(MCR, MCR_LOOP | MCR_OUT2);
    for byte in b"sixteen and more" {
        port.write(DATA, *byte);
    }
    port.write(DATA, b'!');
    port.write(MCR, MCR_OUT2);
    port.host.write_all(b"in").unwrap();
    port
}

fn save(port: &Port) -> Unit {
    let mut uart = port.uart.lock().unwrap();
    uart.pause();
    uart.save()
}

/// A new port that goes on with `unit`.
fn moved(unit: &Unit) -> Port {
    let port = Port::new(64);
    port.uart.lock().unwrap().pause();
    port.uart.lock().unwrap().restore(unit).unwrap();
    assert_eq!(port.uart.lock().unwrap().save(), *unit);
    assert!(!port.line_is_high());
    port.uart.lock().unwrap().resume();
    port
}

fn restored(unit: &Unit) -> Result<Unit, Error> {
    let port = Port::new(64);
    let mut uart = port.uart.lock().unwrap();
    uart.pause();
    uart.restore(unit)?;
    Ok(uart.save())
}

#[test]
fn busy_port_goes_on_where_it_was() {
    let mut old = busy();
    let mut port = moved(&save(&old));
    assert!(port.line_is_high());

    let mut written = [0; 2];
    old.host.read_exact(&mut written).unwrap();
    let mut rest = [0; 4];
    port.host.read_exact(&mut rest).unwrap();
    let text: Vec<u8> = (0..16).map(|_| port.read(DATA)).collect();

    assert_eq!((&written, &rest), (b"ou", b"tput"));
    assert_eq!(text, b"sixteen and more");
    assert_eq!(port.read(LSR) & LSR_OVERRUN, LSR_OVERRUN);
    assert_eq!((port.read(SCR), port.read(MCR)), (0xa5, MCR_OUT2));
    assert!(!port.line_is_high());
}

#[test]
fn paused_port_leaves_the_stream_alone_until_it_is_resumed() {
    let mut port = Port::new(2);
    port.write(IIR, FCR_ENABLE);
    port.write(IER, IER_RECEIVED);
    for byte in b"output" {
        port.write(DATA, *byte);
    }
    let before = save(&port);

    port.host.write_all(b"x").unwrap();
    let mut taken = [0; 2];
    port.host.read_exact(&mut taken).unwrap();
    port.uart.lock().unwrap().pump();

    assert_eq!((save(&port), port.line_is_high()), (before, false));
    port.uart.lock().unwrap().resume();
    assert!(port.line_is_high());
    let mut rest = [0; 4];
    port.host.read_exact(&mut rest).unwrap();
    assert_eq!((&taken, &rest, port.read(DATA)), (b"ou", b"tput", b'x'));
}

#[test]
fn port_saved_before_any_access_is_as_new() {
    let port = moved(&save(&Port::new(64)));
    assert_eq!(port.read(LSR), LSR_HOLDING_EMPTY | LSR_TRANSMITTER_EMPTY);
    assert!(!port.line_is_high());
}

#[test]
fn state_of_the_first_layout_restores() {
    let golden = Unit {
        schema: 1,
        bytes: include_bytes!("../saved-1.bin").to_vec(),
    };
    assert_eq!(restored(&golden).unwrap(), save(&busy()));
}

#[test]
fn restore_what_no_guest_can_bring_about_is_refused() {
    let changes: [fn(&mut SavedUart); 6] = [
        |saved| saved.ier = 0x10,
        |saved| saved.mcr = 0x20,
        |saved| saved.trigger = 2,
        |saved| saved.received = vec![0; 17],
        |saved| saved.to_send = vec![0; 17],
        // One character is all that waits without FIFOs.
        |saved| saved.fifo_on = false,
    ];
    for change in changes {
        let mut saved = SavedUart::from_bytes(&save(&busy()).bytes).unwrap();
        change(&mut saved);
        assert!(restored(&Unit::new(SCHEMA, &saved)).is_err());
    }
}

#[test]
fn restore_layout_from_the_future_is_refused() {
    let unit = Unit {
        schema: SCHEMA + 1,
        ..save(&busy())
    };
    assert!(restored(&unit).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn restore_of_changed_bytes_is_refused_or_faithful(
        changes in changes(),
        any: Vec<u8>,
    ) {
        refused_or_faithful(save(&busy()), changes, any, restored)?;
    }
}
