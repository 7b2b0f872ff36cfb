//! Registers of the 16550A (PC16550D data sheet, section 8).

/// Receiver buffer (read), transmitter holding (write); divisor latch low byte with DLAB.
pub(super) const DATA: u16 = 0;
/// Interrupt enable; divisor latch high byte with DLAB.
pub(super) const IER: u16 = 1;
/// Interrupt identification (read), FIFO control (write).
pub(super) const IIR: u16 = 2;
/// Line control.
pub(super) const LCR: u16 = 3;
/// Modem control.
pub(super) const MCR: u16 = 4;
/// Line status.
pub(super) const LSR: u16 = 5;
/// Modem status.
pub(super) const MSR: u16 = 6;
/// Scratch.
pub(super) const SCR: u16 = 7;

/// 8.7: received data available.
pub(super) const IER_RECEIVED: u8 = 1;
/// 8.7: transmitter holding register empty.
pub(super) const IER_HOLDING_EMPTY: u8 = 1 << 1;
/// 8.7: receiver line status.
pub(super) const IER_LINE_STATUS: u8 = 1 << 2;
/// 8.7: the bits that exist.
pub(super) const IER_ALL: u8 = 0x0f;

/// 8.6, table III: interrupt identification, highest priority first.
pub(super) const IIR_LINE_STATUS: u8 = 0b0110;
pub(super) const IIR_RECEIVED: u8 = 0b0100;
pub(super) const IIR_TIMEOUT: u8 = 0b1100;
pub(super) const IIR_HOLDING_EMPTY: u8 = 0b0010;
pub(super) const IIR_NONE: u8 = 0b0001;
/// 8.6: the FIFOs are on.
pub(super) const IIR_FIFO: u8 = 0b1100_0000;

/// 8.5: FIFO control.
pub(super) const FCR_ENABLE: u8 = 1;
pub(super) const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
pub(super) const FCR_CLEAR_TRANSMIT: u8 = 1 << 2;
/// 8.5: fill level that means "received", by bits 7 to 6.
pub(super) const FCR_TRIGGER: [usize; 4] = [1, 4, 8, 14];

/// 8.1: divisor latch access bit.
pub(super) const LCR_DLAB: u8 = 1 << 7;
/// 8.1: 8 data bits, no parity, one stop bit.
pub(super) const LCR_8N1: u8 = 0b11;

/// 8.8: modem control.
pub(super) const MCR_DTR: u8 = 1;
pub(super) const MCR_RTS: u8 = 1 << 1;
pub(super) const MCR_OUT1: u8 = 1 << 2;
pub(super) const MCR_OUT2: u8 = 1 << 3;
pub(super) const MCR_LOOP: u8 = 1 << 4;
pub(super) const MCR_ALL: u8 = 0x1f;

/// 8.4: line status.
pub(super) const LSR_DATA_READY: u8 = 1;
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
pub(super) const LSR_HOLDING_EMPTY: u8 = 1 << 5;
pub(super) const LSR_TRANSMITTER_EMPTY: u8 = 1 << 6;

/// 8.9: modem status.
pub(super) const MSR_CTS: u8 = 1 << 4;
pub(super) const MSR_DSR: u8 = 1 << 5;
pub(super) const MSR_RI: u8 = 1 << 6;
pub(super) const MSR_DCD: u8 = 1 << 7;

/// Both FIFOs, section 8.5.
pub(super) const FIFO_LEN: usize = 16;

/// 9600 baud from a 1.8432 MHz clock; the rate has no effect.
pub(super) const DIVISOR: u16 = 12;
