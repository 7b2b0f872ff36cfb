//! The platform devices around the CPU.
//!
//! **Knows:** the registers of the UART, I/O APIC, PCI host bridge, RTC, keyboard controller's reset and ACPI
//! power registers, timing port, and the ACPI tables that tell a guest which of them are there.
//! **Must never know:** a hypervisor, virtio, which host service stands behind a [`ByteStream`], or the
//! addresses of a particular machine: those come in as arguments.
//!
//! There is no PIC, PIT, HPET or PM timer: the tables describe a hardware-reduced ACPI machine, on which Linux
//! takes time from kvmclock or the TSC and ticks from the local APIC.
//!
//! [`ByteStream`]: device_backends::ByteStream
#![forbid(unsafe_code)]

pub mod acpi;
mod error;
pub mod i8042;
pub mod ioapic;
pub mod pci_host;
pub mod pm;
pub mod rtc;
#[cfg(test)]
mod testing;
pub mod timing;
pub mod uart;

pub use error::Error;
