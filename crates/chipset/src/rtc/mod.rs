//! The time-of-day part of an MC146818 real-time clock.
//!
//! It shows the host's wall clock in UTC, which only the host sets: writes to the time are swallowed. There is
//! no alarm, no periodic interrupt and no battery-backed memory, and no update is ever in progress. Each
//! register is taken from the clock as it is read; drivers read the seconds again at the end, as the chip's
//! own rules demand.

mod civil;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

use std::time::Duration;

use device_model::{Device, PortDevice, PortRange};
use saved_state::Unit;

use civil::Civil;
use registers::*;
use saved::SavedRtc;

/// Index of the century register, for the FADT.
pub const CENTURY_INDEX: u8 = CENTURY;

/// Wall-clock time since the start of 1970 in UTC.
pub type WallClock = Box<dyn Fn() -> Duration + Send>;

/// The clock at ports 0x70 and 0x71.
pub struct Rtc {
    clock: WallClock,
    index: u8,
}

impl Rtc {
    /// A clock that shows `clock`.
    pub fn new(clock: WallClock) -> Self {
        Self { clock, index: 0 }
    }

    fn register(&self) -> u8 {
        let now = || Civil::from_unix((self.clock)().as_secs());
        match self.index {
            SECONDS => bcd(now().second),
            MINUTES => bcd(now().minute),
            HOURS => bcd(now().hour),
            DAY_OF_WEEK => bcd(now().weekday),
            DAY_OF_MONTH => bcd(now().day),
            MONTH => bcd(now().month),
            YEAR => bcd((now().year % 100) as u8),
            CENTURY => bcd((now().year / 100 % 100) as u8),
            REGISTER_A => A_TIME_BASE,
            REGISTER_B => B_24_HOURS,
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            _ => 0,
        }
    }
}

/// `value`, less than 100, as two decimal digits.
fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

impl Device for Rtc {
    fn name(&self) -> &str {
        "rtc"
    }

    fn reset(&mut self) {
        self.index = 0;
    }

    fn save(&self) -> Unit {
        Unit::new(saved::SCHEMA, &SavedRtc::of(self))
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.decode::<SavedRtc>(saved::SCHEMA)?.put_into(self)
    }

    fn ports(&mut self) -> Option<&mut dyn PortDevice> {
        Some(self)
    }
}

impl PortDevice for Rtc {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange {
            first: INDEX,
            last: DATA,
        }]
    }

    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        if let (DATA, Some(byte)) = (port, data.first_mut()) {
            *byte = self.register();
        }
    }

    fn port_write(&mut self, port: u16, data: &[u8]) {
        if let (INDEX, Some(byte)) = (port, data.first()) {
            self.index = byte & INDEX_MASK;
        }
    }
}
