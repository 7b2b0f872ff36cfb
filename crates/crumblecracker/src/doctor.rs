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
    let _ = library;
    let (usable, sentence) = match native_cpu::open() {
        Ok(_) => (true, "hardware virtualization by the host's kernel".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    vec![BackendReport {
        name: "kvm",
        usable,
        sentence,
    }]
}

/// Opens the backend called `name`, or the best one that can be used here.
///
/// # Errors
/// [`Error::Backend`] with one sentence why it cannot be used, [`Error::NoBackend`] for a name nobody has.
pub fn open_backend(name: Option<&str>, library: &Library) -> Result<Arc<dyn Hypervisor>> {
    match name {
        None | Some("kvm") => {
            let _ = library;
            Ok(native_cpu::open()?)
        }
        Some(other) => Err(Error::NoBackend(other.to_owned())),
    }
}
