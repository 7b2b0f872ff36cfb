//! Sleep and reset registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.6 and 4.8.3.7).

/// Sleep control, from the base port.
pub(super) const SLEEP_CONTROL: u16 = 0;
/// Sleep status.
pub(super) const SLEEP_STATUS: u16 = 1;
/// Reset.
pub(super) const RESET: u16 = 2;

/// Sleep control: enter the state in bits 2 to 4.
pub(super) const SLEEP_ENABLE: u8 = 1 << 5;
pub(super) const SLEEP_TYPE_SHIFT: u8 = 2;
pub(super) const SLEEP_TYPE_MASK: u8 = 7;

/// What `\_S5` says is soft off.
pub(super) const SOFT_OFF: u8 = 5;
/// What the FADT says resets the machine.
pub(super) const RESET_VALUE: u8 = 1;
