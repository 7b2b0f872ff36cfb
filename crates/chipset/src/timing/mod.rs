//! The timing port: what a guest writes there, a letter a store, is noted on the host's clock at once.
//!
//! A line ends with a line feed. Programs in the guest reach it with `ioperm(2)` or through a driver; it reads as all
//! ones, as ports do behind which nothing is.

mod registers;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use device_backends::Marks;
use device_model::{Device, PortDevice, PortRange};
use saved_state::Unit;

use registers::*;
use saved::SavedTiming;

/// The device at one port.
pub struct Timing {
    port: u16,
    marks: Arc<dyn Marks>,
    /// The line so far.
    line: String,
}

impl Timing {
    /// A device at `port` that tells `marks` of each line.
    pub fn new(port: u16, marks: Arc<dyn Marks>) -> Self {
        Self {
            port,
            marks,
            line: String::new(),
        }
    }

    /// What does not fit into a line, or cannot be printed, is left out.
    fn take(&mut self, letter: u8) {
        if letter == END {
            let line = std::mem::take(&mut self.line);
            if !line.is_empty() {
                self.marks.mark(&line);
            }
        } else if is_printable(letter) && self.line.len() < LINE_MAX {
            self.line.push(char::from(letter));
        }
    }
}

impl Device for Timing {
    fn name(&self) -> &str {
        "timing"
    }

    fn reset(&mut self) {
        self.line.clear();
    }

    fn save(&self) -> Unit {
        Unit::new(saved::SCHEMA, &SavedTiming::of(self))
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.decode::<SavedTiming>(saved::SCHEMA)?.put_into(self)
    }

    fn ports(&mut self) -> Option<&mut dyn PortDevice> {
        Some(self)
    }
}

impl PortDevice for Timing {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange {
            first: self.port,
            last: self.port,
        }]
    }

    fn port_read(&mut self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn port_write(&mut self, _port: u16, data: &[u8]) {
        if let [letter] = data {
            self.take(*letter);
        }
    }
}
