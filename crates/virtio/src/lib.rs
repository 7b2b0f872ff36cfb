//! Virtio devices: virtqueues, two transports and the devices behind them (Virtual I/O Device 1.3; section
//! numbers in this crate are that document's).
//!
//! Three parts, each without knowledge of the next. [`queue`] reads and completes requests in guest memory
//! and knows no notification. `transport` is the state machine of one device without a bus, with two thin
//! shells around it: [`pci`] and [`mmio`]. A device ([`console`], [`fs`], [`rng`]) implements
//! [`VirtioDevice`] and sees requests as [`Reader`](queue::Reader) and [`Writer`](queue::Writer) streams.
//!
//! Devices work on threads of their own: a doorbell wakes the thread, an access to a register never waits
//! for a request except where the driver resets the device.
//!
//! All that the guest writes is hostile. A broken ring or request latches: its queue is not served again until
//! the driver resets the device, which shows DEVICE_NEEDS_RESET meanwhile; the VM goes on.
//!
//! **Knows:** guest memory, the device model's seams, the services devices are plugged into.
//! **Must never know:** a hypervisor, other devices, who implements a service.
#![forbid(unsafe_code)]

mod device;
mod error;
#[cfg(test)]
mod testing;
mod transport;
mod worker;

pub mod console;
pub mod fs;
pub mod queue;
pub mod rng;

pub use device::{Activated, ActiveQueue, DeviceType, VirtioDevice};
pub use error::Error;
pub use transport::{Doorbell, DoorbellAddress, DoorbellObserver, Interrupt, mmio, pci};
