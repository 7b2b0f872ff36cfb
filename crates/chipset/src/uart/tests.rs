use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use device_backends::{HostEnd, byte_pipe};
use device_model::LineTarget;
use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Wire {
    high: AtomicBool,
    rises: AtomicUsize,
}

impl LineTarget for Wire {
    fn set_level(&self, line: u32, high: bool) {
        assert_eq!(line, 4);
        if high && !self.high.swap(high, Ordering::SeqCst) {
            self.rises.fetch_add(1, Ordering::SeqCst);
        }
        self.high.store(high, Ordering::SeqCst);
    }
}

pub(super) struct Port {
    pub(super) uart: Arc<Mutex<Uart>>,
    pub(super) host: HostEnd,
    wire: Arc<Wire>,
}

impl Port {
    pub(super) fn line_is_high(&self) -> bool {
        self.wire.high.load(Ordering::SeqCst)
    }

    pub(super) fn new(capacity: usize) -> Self {
        let (device, host) = byte_pipe(capacity);
        let wire = Arc::new(Wire::default());
        let line = InterruptLine::new(wire.clone(), 4);
        let uart = Uart::new("uart0", 0x3f8, line, Arc::new(device)).unwrap();
        Self { uart, host, wire }
    }

    pub(super) fn read(&self, register: u16) -> u8 {
        let mut data = [0xff];
        self.uart.lock().unwrap().port_read(0x3f8 + register, &mut data);
        data[0]
    }

    pub(super) fn write(&self, register: u16, value: u8) {
        self.uart.lock().unwrap().port_write(0x3f8 + register, &[value]);
    }

    /// Waits until the thread has brought line status to `bits`.
    pub(super) fn wait_status(&self, bits: u8) {
        while self.read(LSR) & bits != bits {
            std::thread::yield_now();
        }
    }
}

#[test]
fn transmit_reaches_the_stream_at_once() {
    let mut port = Port::new(64);
    for byte in b"hello" {
        assert_eq!(port.read(LSR), LSR_HOLDING_EMPTY | LSR_TRANSMITTER_EMPTY);
        port.write(DATA, *byte);
    }
    let mut text = [0; 5];
    port.host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn transmit_into_full_stream_waits_and_interrupts_when_taken() {
    let mut port = Port::new(2);
    port.write(IIR, FCR_ENABLE);
    for byte in b"abcd" {
        port.write(DATA, *byte);
    }
    port.write(IER, IER_HOLDING_EMPTY);
    assert_eq!((port.read(LSR), port.line_is_high()), (0, false));
    let mut text = [0; 4];
    port.host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"abcd");
    port.wait_status(LSR_HOLDING_EMPTY);
    assert!(port.line_is_high());
    assert_eq!(port.read(IIR), IIR_HOLDING_EMPTY | IIR_FIFO);
    assert!(!port.line_is_high());
}

#[test]
fn holding_empty_interrupt_is_raised_by_enabling_and_by_each_write() {
    let port = Port::new(64);
    port.write(IER, IER_HOLDING_EMPTY);
    assert_eq!(port.read(IIR), IIR_HOLDING_EMPTY);
    assert_eq!((port.read(IIR), port.line_is_high()), (IIR_NONE, false));
    port.write(DATA, b'x');
    assert!(port.line_is_high());
    // The check a driver makes for chips that do not raise it again.
    port.write(IER, 0);
    assert!(!port.line_is_high());
    port.write(IER, IER_HOLDING_EMPTY);
    assert_eq!(port.read(IIR), IIR_HOLDING_EMPTY);
    assert_eq!(port.wire.rises.load(Ordering::SeqCst), 3);
}

#[test]
fn input_interrupts_and_is_taken_as_the_guest_reads() {
    let mut port = Port::new(64);
    port.write(IIR, FCR_ENABLE | 0xc0);
    port.write(IER, IER_RECEIVED);
    let text = b"twenty characters in";
    port.host.write_all(text).unwrap();
    port.wait_status(LSR_DATA_READY);
    assert!(port.line_is_high());
    assert!(matches!(port.read(IIR) & 0xf, IIR_RECEIVED | IIR_TIMEOUT));
    let read: Vec<u8> = text.iter().map(|_| port.read(DATA)).collect();
    assert_eq!(read, text);
    assert_eq!((port.read(LSR) & LSR_DATA_READY, port.line_is_high()), (0, false));
    assert_eq!(port.read(IIR), IIR_NONE | IIR_FIFO);
}

#[test]
fn input_below_trigger_level_counts_as_timed_out() {
    let mut port = Port::new(64);
    port.write(IIR, FCR_ENABLE | 0x80);
    port.write(IER, IER_RECEIVED);
    port.host.write_all(b"x").unwrap();
    port.wait_status(LSR_DATA_READY);
    assert_eq!(port.read(IIR), IIR_TIMEOUT | IIR_FIFO);
}

#[test]
fn loop_back_returns_characters_and_modem_lines() {
    let port = Port::new(64);
    port.write(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
    assert_eq!(port.read(MSR), MSR_DCD | MSR_CTS);
    port.write(DATA, b'a');
    port.write(DATA, b'b');
    assert_eq!(
        port.read(LSR) & (LSR_DATA_READY | LSR_OVERRUN),
        LSR_DATA_READY | LSR_OVERRUN
    );
    assert_eq!(port.read(LSR) & LSR_OVERRUN, 0);
    assert_eq!(port.read(DATA), b'a');
}

#[test]
fn identification_as_16550a_succeeds() {
    let port = Port::new(64);
    port.write(IER, 0xff);
    assert_eq!(port.read(IER), IER_ALL);
    port.write(IER, 0);
    port.write(SCR, 0xa5);
    assert_eq!(port.read(SCR), 0xa5);
    // FIFO present, and not the 64-byte one of a 16750.
    port.write(LCR, LCR_DLAB);
    port.write(IIR, FCR_ENABLE | 0x20);
    assert_eq!(port.read(IIR), IIR_NONE | IIR_FIFO);
    port.write(DATA, 1);
    port.write(IER, 0);
    assert_eq!((port.read(DATA), port.read(IER)), (1, 0));
    port.write(LCR, LCR_8N1);
    assert_eq!(port.read(LSR), LSR_HOLDING_EMPTY | LSR_TRANSMITTER_EMPTY);
}

#[test]
fn closed_stream_swallows_output() {
    let port = Port::new(1);
    port.host.shutdown();
    for _ in 0..100 {
        port.write(DATA, b'x');
        assert_eq!(port.read(LSR) & LSR_HOLDING_EMPTY, LSR_HOLDING_EMPTY);
    }
}

#[test]
fn reset_drops_everything_and_lowers_the_line() {
    let port = Port::new(64);
    port.write(IER, IER_HOLDING_EMPTY);
    assert!(port.line_is_high());
    port.uart.lock().unwrap().reset();
    assert!(!port.line_is_high());
    assert_eq!(port.read(IER), 0);
}

#[test]
fn wide_access_touches_one_register() {
    let port = Port::new(64);
    let mut data = [0xff; 4];
    port.uart.lock().unwrap().port_read(0x3f8 + LSR, &mut data);
    assert_eq!(
        data,
        [LSR_HOLDING_EMPTY | LSR_TRANSMITTER_EMPTY, 0xff, 0xff, 0xff]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_accesses_keep_line_and_identification_together(
        accesses in prop::collection::vec((any::<bool>(), 0u16..8, any::<u8>()), 0..300),
    ) {
        let mut port = Port::new(4);
        port.host.write_all(b"abcd").unwrap();
        for (is_write, register, value) in accesses {
            if is_write { port.write(register, value) } else { port.read(register); }
            let uart = port.uart.lock().unwrap();
            prop_assert_eq!(uart.registers.interrupt() != IIR_NONE, port.line_is_high());
            prop_assert!(uart.registers.received.len() <= FIFO_LEN && uart.registers.to_send.len() <= FIFO_LEN);
        }
    }
}
