//! Which CPU backends there are, and whether they can be used here.

use std::sync::Arc;

use hypervisor::Hypervisor;

use crate::{Error, Library, Result};

/// What is known of one backend on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// Its name, as `--backend` takes it.
    pub name: &'static str,
    /// Whether it runs guests here.
    pub usable: bool,
    /// One sentence: what it is, or why it cannot be used and what would help.
    pub sentence: String,
}

/// Looks at every backend of this build.
pub fn doctor(library: &Library) -> Vec<BackendReport> {
    let native = native_cpu::probe(library.cache_folder());
    vec![BackendReport {
        name: native.name,
        usable: native.usable,
        sentence: native.sentence,
    }]
}

/// Opens the backend called `name`, or the best one that can be used here.
///
/// # Errors
/// [`Error::Backend`] with one sentence why it cannot be used, [`Error::NoBackend`] for a name nobody has.
pub fn open_backend(name: Option<&str>, library: &Library) -> Result<Arc<dyn Hypervisor>> {
    match name {
        None => Ok(native_cpu::open_usable(library.cache_folder())?),
        // Who asks for it by name gets it however slow it is.
        Some("kvm") => Ok(native_cpu::open()?),
        Some(other) => Err(Error::NoBackend(other.to_owned())),
    }
}
