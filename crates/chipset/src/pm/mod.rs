//! ACPI power-off and reset: the sleep control, sleep status and reset registers of a hardware-reduced
//! machine, three ports in a row.

mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use device_model::{Device, PortDevice, PortRange};
use saved_state::Unit;

use registers::*;

/// What a guest asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Soft off (S5).
    PowerOff,
    /// A reset of the whole machine.
    Reset,
}

/// Carries out power requests. Called on the vCPU that asks, with the device's lock held: it notes the
/// request and returns, and stops vCPUs from another thread or after this one has left the guest.
pub trait PowerControl: Send + Sync {
    /// The guest asks for `request`. It may ask more than once.
    fn request(&self, request: PowerRequest);
}

/// Where the registers are and what they take, for the FADT and `\_S5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerRegisters {
    /// First of three ports.
    pub base: u16,
}

impl PowerRegisters {
    /// Port of sleep control.
    pub fn sleep_control(self) -> u16 {
        self.base + SLEEP_CONTROL
    }

    /// Port of sleep status.
    pub fn sleep_status(self) -> u16 {
        self.base + SLEEP_STATUS
    }

    /// Port of reset.
    pub fn reset(self) -> u16 {
        self.base + RESET
    }

    /// What to write to the reset register.
    pub const RESET_VALUE: u8 = RESET_VALUE;

    /// Sleep type of soft off.
    pub const SOFT_OFF: u8 = SOFT_OFF;

    /// Where a PC's firmware is entered in real-address mode, `f000:fff0`.
    pub const FIRMWARE_ENTRY: u64 = 0xf_fff0;

    /// What belongs at [`Self::FIRMWARE_ENTRY`] on a machine without firmware: code that asks for a reset.
    ///
    /// A Linux that can use EFI services trusts no other reset on hardware-reduced ACPI; where it was not
    /// started by EFI, it jumps to the firmware's entry. Without code there, it would be lost in real mode.
    pub fn firmware_entry_code(self) -> [u8; 9] {
        let [low, high] = self.reset().to_le_bytes();
        // mov dx, reset; mov al, RESET_VALUE; out dx, al; again: hlt; jmp again
        [0xba, low, high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
    }
}

/// The registers.
pub struct Power {
    registers: PowerRegisters,
    control: Arc<dyn PowerControl>,
}

impl Power {
    /// Registers at `base` to `base + 2`.
    pub fn new(registers: PowerRegisters, control: Arc<dyn PowerControl>) -> Self {
        Self { registers, control }
    }
}

impl Device for Power {
    fn name(&self) -> &str {
        "power"
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

impl PortDevice for Power {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange {
            first: self.registers.base,
            last: self.registers.base.saturating_add(RESET),
        }]
    }

    /// Sleep status never says that the machine woke up, as it never sleeps.
    fn port_read(&mut self, _port: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn port_write(&mut self, port: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        match port.wrapping_sub(self.registers.base) {
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
                let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                if sleep_type == SOFT_OFF {
                    self.control.request(PowerRequest::PowerOff);
                } else {
                    // A guest can ask without end.
                    tracing::debug!(sleep_type, "the guest asks for a sleep state that is not there");
                }
            }
            RESET if value == RESET_VALUE => self.control.request(PowerRequest::Reset),
            _ => {}
        }
    }
}
