//! Which CPU backends there are, and whether they can be used here.

use std::sync::Arc;

use hypervisor::Hypervisor;
use soft_cpu::Trace;
use tracing::info;

use crate::{Error, Library, Profiler, Result};

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
/// Name of KVM.
const NATIVE: &str = "kvm";

/// Opens the backend called `name`, or the best one that can be used here: hardware where it runs 64-bit code at
/// speed, else the CPU in software.
///
/// # Errors
/// [`Error::Backend`] with one sentence why it cannot be used, [`Error::NoBackend`] for a name nobody has.
pub fn open_backend(name: Option<&str>, library: &Library) -> Result<Arc<dyn Hypervisor>> {
    open_observed_backend(name, library, &Observation::default())
}

/// How guests are watched; by default they are not.
#[derive(Clone, Default)]
pub struct Observation {
    /// Lines about what they do.
    pub trace: Option<Trace>,
    /// Gathers where their time goes.
    pub profiler: Option<Profiler>,
}

/// The same, and its guests are watched.
///
/// # Errors
/// As [`open_backend`]; [`Error::NotObservable`] where something is to be watched on another backend than the CPU in
/// software.
pub fn open_observed_backend(
    name: Option<&str>,
    library: &Library,
    observation: &Observation,
) -> Result<Arc<dyn Hypervisor>> {
    let watched = observation.trace.is_some() || observation.profiler.is_some();
    match name {
        None => best(library, watched, observation),
        Some(NATIVE) if watched => Err(Error::NotObservable(NATIVE)),
        // Who asks for it by name gets it however slow it is.
        Some(NATIVE) => Ok(native_cpu::open()?),
        Some(SOFT) => Ok(software(observation)),
        Some(other) => Err(Error::NoBackend(other.to_owned())),
    }
}

fn software(observation: &Observation) -> Arc<dyn Hypervisor> {
    soft_cpu::open_observed(soft_cpu::Observation {
        trace: observation.trace.clone(),
        samples: observation.profiler.as_ref().map(Profiler::samples),
    })
}

fn best(library: &Library, watched: bool, observation: &Observation) -> Result<Arc<dyn Hypervisor>> {
    match native_cpu::open_usable(library.cache_folder()) {
        Ok(native) if watched => Err(Error::NotObservable(native.name())),
        Ok(native) => {
            info!("guest code is executed by {}", native.name());
            Ok(native)
        }
        Err(reason) => {
            info!("guest code is executed by a CPU in software, because {reason}");
            Ok(software(observation))
        }
    }
}
