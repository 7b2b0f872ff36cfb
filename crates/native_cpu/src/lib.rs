//! Hardware virtualization behind one `open()`.
//!
//! **Knows:** the host's virtualization API, how its answers translate to architectural terms, and whether it
//! runs 64-bit code at speed.
//! **Must never know:** devices, the machine's layout, or other backends. No type of a host API leaves this
//! crate.
//!
//! `unsafe` is allowed here: mapping guest RAM into a VM and reading the shared run structure need it.

mod doorbell;
#[cfg(target_os = "linux")]
mod kvm;
#[cfg(target_os = "linux")]
mod probe;

use std::sync::Arc;

use hypervisor::{Error, Hypervisor};

pub use doorbell::event_doorbell;
#[cfg(target_os = "linux")]
use kvm::{NAME, device_identity};
#[cfg(target_os = "linux")]
pub use probe::{BackendReport, open_usable, probe};

/// Opens the host's hardware virtualization: KVM on Linux. Asks it what it can do, and runs nothing; see
/// [`open_usable`] for one that is known to be of use.
///
/// # Errors
/// [`Error::Unusable`] with one sentence why and what would help.
pub fn open() -> Result<Arc<dyn Hypervisor>, Error> {
    #[cfg(target_os = "linux")]
    return Ok(Arc::new(kvm::Kvm::open()?));
    #[cfg(not(target_os = "linux"))]
    Err(Error::Unusable {
        backend: "native",
        reason: "this system's hypervisor is not supported yet".to_owned(),
    })
}
