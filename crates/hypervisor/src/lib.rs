//! The traits every CPU backend implements.
//!
//! **Knows:** what a virtual machine and a virtual CPU can be asked, CPU state in architectural terms, and
//! the conformance suite that any backend must pass.
//! **Must never know:** a host's virtualization API, a device, or how a machine is put together.
//!
//! The guest's architecture is a runtime value. A backend finishes its own exits by calling up through
//! [`GuestIo`]; what [`Vcpu::run`] returns is only why it stopped.
#![forbid(unsafe_code)]

pub mod conformance;
mod error;
mod io;
mod traits;
pub mod x86_64;

pub use error::Error;
pub use io::{GuestIo, Msi};
pub use traits::{
    Capabilities, Doorbell, DoorbellAddress, DoorbellGuard, GuestArch, Hypervisor, KeptCode, Kick,
    StopReason, Vcpu, Vm, VmConfig,
};
