//! What a device is, and the bus it hangs on.
//!
//! **Knows:** device capabilities (ports, MMIO, PCI function), dispatch by address, interrupt lines and
//! messages, VM time.
//! **Must never know:** a hypervisor, a concrete device, a host service behind a device.
#![forbid(unsafe_code)]

mod bus;
mod clock;
mod device;
mod first_time;
mod interrupt;
pub mod pci;

pub use bus::{Bus, BusError, SharedDevice, lock};
pub use clock::VmClock;
pub use device::{ConcurrentDevice, Device, MmioDevice, MmioRange, PortDevice, PortRange};
pub use first_time::FirstTime;
/// What a device's thread sleeps on, and what a hypervisor can set without this process.
pub use host_os::Event;
pub use interrupt::{InterruptLine, LineTarget, MsiMessage, MsiSink};
