//! The state of the port: its registers and what waits in its FIFOs. The level of its line follows from them.

use saved_state::{Error, record, require};

use super::Registers;
use super::registers::*;

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// [`Registers`].
    pub(super) struct SavedUart {
        1 ier: u8,
        2 fifo_on: bool,
        /// Characters that mean "received".
        3 trigger: u8,
        4 lcr: u8,
        5 mcr: u8,
        6 scratch: u8,
        7 divisor: u16,
        8 overrun: bool,
        9 holding_empty_pending: bool,
        10 received: Vec<u8>,
        11 to_send: Vec<u8>,
    }
}

impl SavedUart {
    pub(super) fn of(registers: &Registers) -> Self {
        let Registers {
            ier,
            fifo_on,
            trigger,
            lcr,
            mcr,
            scratch,
            divisor,
            overrun,
            holding_empty_pending,
            received,
            to_send,
        } = registers;
        Self {
            ier: *ier,
            fifo_on: *fifo_on,
            // At most 14.
            trigger: *trigger as u8,
            lcr: *lcr,
            mcr: *mcr,
            scratch: *scratch,
            divisor: *divisor,
            overrun: *overrun,
            holding_empty_pending: *holding_empty_pending,
            received: received.iter().copied().collect(),
            to_send: to_send.iter().copied().collect(),
        }
    }

    pub(super) fn into_registers(self) -> Result<Registers, Error> {
        let registers = Registers {
            ier: self.ier,
            fifo_on: self.fifo_on,
            trigger: self.trigger.into(),
            lcr: self.lcr,
            mcr: self.mcr,
            scratch: self.scratch,
            divisor: self.divisor,
            overrun: self.overrun,
            holding_empty_pending: self.holding_empty_pending,
            received: self.received.into(),
            to_send: self.to_send.into(),
        };
        let len = registers.fifo_len();
        require(registers.ier & !IER_ALL == 0, "the UART's interrupt enable")?;
        require(registers.mcr & !MCR_ALL == 0, "the UART's modem control")?;
        require(
            FCR_TRIGGER.contains(&registers.trigger),
            "the UART's trigger level",
        )?;
        require(registers.received.len() <= len, "the UART's receive FIFO")?;
        require(registers.to_send.len() <= len, "the UART's transmit FIFO")?;
        Ok(registers)
    }
}
