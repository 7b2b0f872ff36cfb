//! Registers of the 8042 keyboard controller, as far as they are here.

/// Data port.
pub(super) const DATA: u16 = 0x60;
/// Command (write) and status (read).
pub(super) const COMMAND: u16 = 0x64;

/// Pulses output line 0, which resets the CPU.
pub(super) const PULSE_RESET: u8 = 0xfe;
/// Nothing waits in either direction.
pub(super) const STATUS_IDLE: u8 = 0;
