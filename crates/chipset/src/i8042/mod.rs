//! The reset line of the keyboard controller, and nothing else of it.
//!
//! The FADT says that there is no 8042, so no driver looks for keyboards; a guest that falls back to the
//! classic way of rebooting still finds it. Status always says idle, so nobody waits for the controller.

mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use device_model::{Device, PortDevice, PortRange};
use saved_state::Unit;

use crate::pm::{PowerControl, PowerRequest};
use registers::*;

/// The controller at ports 0x60 and 0x64.
pub struct I8042 {
    control: Arc<dyn PowerControl>,
}

impl I8042 {
    /// A controller whose reset line asks `control`.
    pub fn new(control: Arc<dyn PowerControl>) -> Self {
        Self { control }
    }
}

impl Device for I8042 {
    fn name(&self) -> &str {
        "i8042"
    }

    fn reset(&mut self) {}

    /// It has no state.
    fn save(&self) -> Unit {
        Unit::empty()
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.expect_empty()
    }

    fn ports(&mut self) -> Option<&mut dyn PortDevice> {
        Some(self)
    }
}

impl PortDevice for I8042 {
    fn port_ranges(&self) -> Vec<PortRange> {
        [DATA, COMMAND]
            .map(|port| PortRange {
                first: port,
                last: port,
            })
            .to_vec()
    }

    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(if port == COMMAND { STATUS_IDLE } else { 0 });
    }

    fn port_write(&mut self, port: u16, data: &[u8]) {
        if port == COMMAND && data.first() == Some(&PULSE_RESET) {
            self.control.request(PowerRequest::Reset);
        }
    }
}
