//! The transport: one state machine without a bus ([`core`]), and the two buses' shells around it.

mod core;
mod notify;
mod saved;

pub mod mmio;
pub mod pci;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use notify::InterruptSink;
pub use notify::{Doorbell, DoorbellObserver, Interrupt};

/// Where a driver rings one queue's doorbell: a store of the queue's index, as 16 or 32 bits, to `gpa`.
#[derive(Clone)]
pub struct DoorbellAddress {
    /// Guest-physical address.
    pub gpa: u64,
    /// What must be stored there; `None` where any value rings.
    pub value: Option<u32>,
    /// Number of the queue.
    pub queue: u16,
    /// What such a store rings.
    pub doorbell: std::sync::Arc<Doorbell>,
}

/// The 32-bit half of `value` that `select` names; there are only two.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// `value` with its upper or lower half replaced.
fn with_half(value: u64, upper: bool, half: u32) -> u64 {
    if upper {
        value & 0xffff_ffff | u64::from(half) << 32
    } else {
        value & !0xffff_ffff | u64::from(half)
    }
}
