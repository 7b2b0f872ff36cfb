//! A 16550A serial port on a byte stream.
//!
//! Characters take no time: what the guest transmits is in the stream when its `out` returns, unless the
//! stream is full. Then up to 16 characters wait in the transmit FIFO and the holding register reads as not
//! empty until the stream takes them. Input is taken from the stream only as fast as the guest reads it.
//!
//! The interrupt output is a level: high exactly while IIR shows an interrupt.

mod registers;
mod saved;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use device_backends::ByteStream;
use device_model::{Device, InterruptLine, PortDevice, PortRange};
use saved_state::Unit;

use crate::Error;
use registers::*;
use saved::SavedUart;
use worker::Doorbell;

/// Ports one UART takes.
const PORT_COUNT: u16 = 8;

/// A 16550A serial port.
pub struct Uart {
    name: String,
    base: u16,
    line: InterruptLine,
    stream: Arc<dyn ByteStream>,
    doorbell: Arc<Doorbell>,
    registers: Registers,
    line_is_high: bool,
    /// Nothing moves by itself.
    paused: bool,
}

struct Registers {
    ier: u8,
    fifo_on: bool,
    trigger: usize,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: u16,
    overrun: bool,
    /// The transmitter ran empty and IIR has not said so yet.
    holding_empty_pending: bool,
    received: VecDeque<u8>,
    to_send: VecDeque<u8>,
}

impl Registers {
    fn new() -> Self {
        Self {
            ier: 0,
            fifo_on: false,
            trigger: FCR_TRIGGER[0],
            lcr: LCR_8N1,
            mcr: 0,
            scratch: 0,
            divisor: DIVISOR,
            overrun: false,
            holding_empty_pending: false,
            received: VecDeque::with_capacity(FIFO_LEN),
            to_send: VecDeque::with_capacity(FIFO_LEN),
        }
    }

    fn fifo_len(&self) -> usize {
        if self.fifo_on { FIFO_LEN } else { 1 }
    }

    fn is_looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    /// Takes a character from the line, or loses it as a full receiver does.
    fn receive(&mut self, byte: u8) {
        if self.received.len() < self.fifo_len() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
    }

    /// What IIR shows, without the FIFO bits. A character that waits below the trigger level counts as
    /// timed out at once, since characters take no time here.
    fn interrupt(&self) -> u8 {
        if self.ier & IER_LINE_STATUS != 0 && self.overrun {
            IIR_LINE_STATUS
        } else if self.ier & IER_RECEIVED != 0 && !self.received.is_empty() {
            let filled = !self.fifo_on || self.received.len() >= self.trigger;
            if filled { IIR_RECEIVED } else { IIR_TIMEOUT }
        } else if self.ier & IER_HOLDING_EMPTY != 0 && self.holding_empty_pending {
            IIR_HOLDING_EMPTY
        } else {
            IIR_NONE
        }
    }

    fn line_status(&self) -> u8 {
        let mut status = 0;
        if !self.received.is_empty() {
            status |= LSR_DATA_READY;
        }
        if self.overrun {
            status |= LSR_OVERRUN;
        }
        if self.to_send.is_empty() {
            status |= LSR_HOLDING_EMPTY | LSR_TRANSMITTER_EMPTY;
        }
        status
    }

    /// The other end is always there and ready; in loop-back the outputs come back (8.8, bit 4).
    fn modem_status(&self) -> u8 {
        if !self.is_looped() {
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        let wires = [
            (MCR_RTS, MSR_CTS),
            (MCR_DTR, MSR_DSR),
            (MCR_OUT1, MSR_RI),
            (MCR_OUT2, MSR_DCD),
        ];
        let high = wires.iter().filter(|(output, _)| self.mcr & output != 0);
        high.fold(0, |status, (_, input)| status | input)
    }

    fn write_ier(&mut self, value: u8) {
        let value = value & IER_ALL;
        if (self.ier ^ value) & IER_HOLDING_EMPTY != 0 {
            // Enabling the interrupt while the holding register is empty raises it (8.6).
            self.holding_empty_pending = value & IER_HOLDING_EMPTY != 0 && self.to_send.is_empty();
        }
        self.ier = value;
    }

    fn write_fcr(&mut self, value: u8) {
        let on = value & FCR_ENABLE != 0;
        // Switching the FIFOs on or off empties them (8.5, bit 0).
        let switched = on != self.fifo_on;
        self.fifo_on = on;
        if switched || value & FCR_CLEAR_RECEIVE != 0 {
            self.received.clear();
        }
        if switched || value & FCR_CLEAR_TRANSMIT != 0 {
            self.to_send.clear();
        }
        self.trigger = FCR_TRIGGER[usize::from(value >> 6)];
    }
}

impl Uart {
    /// Makes a port at `base` to `base + 7`, with a thread that moves bytes when `stream` has some or takes
    /// some again. The thread ends after the port is dropped.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn new(
        name: &str,
        base: u16,
        line: InterruptLine,
        stream: Arc<dyn ByteStream>,
    ) -> Result<Arc<Mutex<Self>>, Error> {
        let doorbell = Arc::new(Doorbell::default());
        let waker = doorbell.clone();
        stream.set_waker(Arc::new(move || waker.ring()));
        let uart = Arc::new(Mutex::new(Self {
            name: name.to_owned(),
            base,
            line,
            stream,
            doorbell: doorbell.clone(),
            registers: Registers::new(),
            line_is_high: false,
            paused: false,
        }));
        worker::spawn(name, doorbell, &uart)?;
        Ok(uart)
    }

    /// Moves what can be moved between FIFOs and stream, and sets the interrupt line.
    fn pump(&mut self) {
        if self.paused {
            return;
        }
        self.send();
        self.fill();
        self.update_line();
    }

    fn send(&mut self) {
        if self.registers.to_send.is_empty() {
            return;
        }
        let pending = self.registers.to_send.make_contiguous();
        let sent = self.stream.write(pending).min(pending.len());
        self.registers.to_send.drain(..sent);
        if self.registers.to_send.is_empty() {
            self.registers.holding_empty_pending = true;
        }
    }

    fn fill(&mut self) {
        let registers = &mut self.registers;
        let room = registers.fifo_len().saturating_sub(registers.received.len());
        if registers.is_looped() || room == 0 {
            return;
        }
        let mut bytes = [0; FIFO_LEN];
        let count = self.stream.read(&mut bytes[..room]).min(room);
        registers.received.extend(&bytes[..count]);
    }

    fn update_line(&mut self) {
        let high = self.registers.interrupt() != IIR_NONE;
        if high != self.line_is_high {
            self.line_is_high = high;
            self.line.set_level(high);
        }
    }

    fn transmit(&mut self, byte: u8) {
        self.registers.holding_empty_pending = false;
        if self.registers.is_looped() {
            self.registers.receive(byte);
            self.registers.holding_empty_pending = true;
            return;
        }
        // A character written over a full FIFO is lost, as on the chip; LSR told the guest so.
        if self.registers.to_send.len() < self.registers.fifo_len() {
            self.registers.to_send.push_back(byte);
        }
        self.send();
    }

    fn read(&mut self, register: u16) -> u8 {
        let registers = &mut self.registers;
        let latch = registers.lcr & LCR_DLAB != 0;
        let value = match register {
            DATA if latch => registers.divisor.to_le_bytes()[0],
            IER if latch => registers.divisor.to_le_bytes()[1],
            DATA => {
                let byte = registers.received.pop_front().unwrap_or(0);
                self.fill();
                byte
            }
            IER => registers.ier,
            IIR => {
                let interrupt = registers.interrupt();
                if interrupt == IIR_HOLDING_EMPTY {
                    registers.holding_empty_pending = false;
                }
                interrupt | if registers.fifo_on { IIR_FIFO } else { 0 }
            }
            LCR => registers.lcr,
            MCR => registers.mcr,
            LSR => {
                let status = registers.line_status();
                registers.overrun = false;
                status
            }
            MSR => registers.modem_status(),
            _ => registers.scratch,
        };
        self.update_line();
        value
    }

    fn write(&mut self, register: u16, value: u8) {
        let registers = &mut self.registers;
        let latch = registers.lcr & LCR_DLAB != 0;
        let [low, high] = registers.divisor.to_le_bytes();
        match register {
            DATA if latch => registers.divisor = u16::from_le_bytes([value, high]),
            IER if latch => registers.divisor = u16::from_le_bytes([low, value]),
            DATA => self.transmit(value),
            IER => registers.write_ier(value),
            IIR => {
                registers.write_fcr(value);
                self.fill();
            }
            LCR => registers.lcr = value,
            MCR => {
                registers.mcr = value & MCR_ALL;
                self.fill();
            }
            SCR => registers.scratch = value,
            // Line and modem status are read-only (8.4, 8.9).
            _ => {}
        }
        self.update_line();
    }
}

impl Device for Uart {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self) {
        self.registers = Registers::new();
        self.update_line();
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            // What the stream said meanwhile was not heard.
            self.pump();
            // A restored port has not driven its wire yet.
            self.line.set_level(self.line_is_high);
        }
    }

    fn save(&self) -> Unit {
        Unit::new(saved::SCHEMA, &SavedUart::of(&self.registers))
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        self.registers = unit.decode::<SavedUart>(saved::SCHEMA)?.into_registers()?;
        self.line_is_high = self.registers.interrupt() != IIR_NONE;
        Ok(())
    }

    fn ports(&mut self) -> Option<&mut dyn PortDevice> {
        Some(self)
    }
}

impl PortDevice for Uart {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange {
            first: self.base,
            last: self.base.saturating_add(PORT_COUNT - 1),
        }]
    }

    /// The chip has an 8-bit bus: the first byte is the register, others read as ones.
    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.read(port.wrapping_sub(self.base) % PORT_COUNT);
        }
    }

    fn port_write(&mut self, port: u16, data: &[u8]) {
        if let Some(&byte) = data.first() {
            self.write(port.wrapping_sub(self.base) % PORT_COUNT, byte);
        }
    }
}

impl Drop for Uart {
    fn drop(&mut self) {
        self.doorbell.close();
    }
}
