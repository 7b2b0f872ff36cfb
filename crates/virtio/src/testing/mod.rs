//! The driver's side, played by hand: rings in guest memory, and both transports' registers.

mod driver;
mod ring;

pub(crate) use driver::{Bus, Driver, Shell};
pub(crate) use ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};

use guest_memory::GuestMemory;

/// All RAM of a test's guest: rings in the lower half, buffers in the upper one.
pub(crate) const RAM_LEN: u64 = 0x80_0000;
pub(crate) const BUFFERS: u64 = 0x40_0000;

pub(crate) fn ram() -> GuestMemory {
    GuestMemory::anonymous(&[(0, RAM_LEN)]).unwrap()
}

/// Offered to every device (6).
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
