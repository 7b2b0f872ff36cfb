//! Which CPU backends there are, and whether they can be used here.

use std::sync::Arc;

use hypervisor::Hypervisor;
use tracing::info;

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

/// Looks at every backend of this build, best first.
pub fn doctor(library: &Library) -> Vec<BackendReport> {
    let native = native_cpu::probe(library.cache_folder());
    vec![
        BackendReport {
            name: native.name,
            usable: native.usable,
            sentence: native.sentence,
        },
        BackendReport {
            name: SOFT,
            usable: true,
            sentence:
                "a CPU in software runs every image on every machine, several times slower than hardware"
                    .to_owned(),
        },
    ]
}

/// Name of the CPU in software.
const SOFT: &str = "soft";

/// Opens the backend called `name`, or the best one that can be used here: hardware where it runs 64-bit code at
/// speed, else the CPU in software.
///
/// # Errors
/// [`Error::Backend`] with one sentence why it cannot be used, [`Error::NoBackend`] for a name nobody has.
pub fn open_backend(name: Option<&str>, library: &Library) -> Result<Arc<dyn Hypervisor>> {
    match name {
        None => Ok(best(library)),
        // Who asks for it by name gets it however slow it is.
        Some("kvm") => Ok(native_cpu::open()?),
        Some(SOFT) => Ok(soft_cpu::open()),
        Some(other) => Err(Error::NoBackend(other.to_owned())),
    }
}

fn best(library: &Library) -> Arc<dyn Hypervisor> {
    match native_cpu::open_usable(library.cache_folder()) {
        Ok(native) => {
            info!("guest code is executed by {}", native.name());
            native
        }
        Err(reason) => {
            info!("guest code is executed by a CPU in software, because {reason}");
            soft_cpu::open()
        }
    }
}
