//! Whether the host's virtualization is of use: found out by running something.
//!
//! A `/dev/kvm` can open, create machines and answer every question correctly, and yet interpret each
//! instruction of a 64-bit kernel, a thousand times too slowly (PVM does). So the probe times a counted loop.

mod remembered;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::conformance::{CountedLoop, LoopTime};
use hypervisor::{Error, Hypervisor};

use remembered::Memory;

/// How many times the loop goes round. Measured: hardware needs 0.1 ms, KVM nested in an emulated processor
/// 4 to 8 ms, an interpreter 110 to 270 ms.
const ITERATIONS: u32 = 100_000;
/// What separates them, with room on both sides.
const LIMIT: Duration = Duration::from_millis(55);
/// Iterations before that: the first entry into a guest maps its pages.
const WARM_UP: u32 = 100;
/// A thread can lose its processor in the middle. Both attempts together stay below 150 ms.
const ATTEMPTS: u32 = 2;

/// What is known of one backend on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// Its short name, as `--backend` takes it.
    pub name: &'static str,
    /// Whether it runs guests here.
    pub usable: bool,
    /// One sentence: what was measured, or why it cannot be used and what would help.
    pub sentence: String,
}

/// What the loop told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It ran at speed, in so many microseconds.
    Fast(u64),
    /// It did not end in time.
    Interpreted,
}

/// Opens the host's hardware virtualization if it runs 64-bit code at speed.
///
/// The measurement is remembered until the host boots anew or its device changes, in `$XDG_RUNTIME_DIR` where
/// that is set, else in `cache_dir`, which is made if it is missing. A memory that cannot be read or written
/// costs the measurement (below 150 ms), nothing else.
///
/// # Errors
/// [`Error::Unusable`] with one sentence why, and what would help; or what failed while measuring.
pub fn open_usable(cache_dir: &Path) -> Result<Arc<dyn Hypervisor>, Error> {
    let hypervisor = crate::open()?;
    let memory = Memory::of_this_boot(cache_dir, crate::device_identity());
    let verdict = match memory.recall() {
        Some(verdict) => verdict,
        None => measure_and_remember(&*hypervisor, &memory)?,
    };
    refuse_interpreter(&*hypervisor, verdict)?;
    Ok(hypervisor)
}

/// Looks at the host's hardware virtualization and measures it anew, whatever is remembered; that replaces
/// what [`open_usable`] remembers, which is the way out where it was measured under a load it is not used to.
pub fn probe(cache_dir: &Path) -> BackendReport {
    let opened = crate::open();
    let outcome = opened.and_then(|hypervisor| {
        let memory = Memory::of_this_boot(cache_dir, crate::device_identity());
        let verdict = measure_and_remember(&*hypervisor, &memory)?;
        refuse_interpreter(&*hypervisor, verdict)?;
        Ok(verdict)
    });
    let (usable, sentence) = match outcome {
        Ok(Verdict::Fast(micros)) => (
            true,
            format!(
                "{} iterations of a loop in the kernel half took {}.{:03} ms",
                ITERATIONS,
                micros / 1000,
                micros % 1000
            ),
        ),
        // `refuse_interpreter` has made an error of it.
        Ok(Verdict::Interpreted) => (false, "it interprets 64-bit kernels".to_owned()),
        Err(error) => (false, in_one_sentence(&error)),
    };
    BackendReport {
        name: crate::NAME,
        usable,
        sentence,
    }
}

/// An error with everything below it; the backend's name is told beside it.
fn in_one_sentence(error: &Error) -> String {
    if let Error::Unusable { reason, .. } = error {
        return reason.clone();
    }
    let mut sentence = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(below) = source {
        sentence = format!("{sentence}: {below}");
        source = below.source();
    }
    sentence
}

fn refuse_interpreter(hypervisor: &dyn Hypervisor, verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Fast(_) => Ok(()),
        Verdict::Interpreted => Err(Error::Unusable {
            backend: hypervisor.name(),
            reason: "it is present, but interprets 64-bit kernels (PVM), a thousand times too slowly"
                .to_owned(),
        }),
    }
}

fn measure_and_remember(hypervisor: &dyn Hypervisor, memory: &Memory) -> Result<Verdict, Error> {
    let verdict = measure(hypervisor).map_err(|reason| Error::Unusable {
        backend: hypervisor.name(),
        reason,
    })?;
    memory.remember(verdict);
    Ok(verdict)
}

fn measure(hypervisor: &dyn Hypervisor) -> Result<Verdict, String> {
    for _ in 0..ATTEMPTS {
        let mut counted = CountedLoop::new(hypervisor)?;
        // Time does not matter here, but an end does.
        counted.time(WARM_UP, LIMIT)?;
        if let LoopTime::Done(elapsed) = counted.time(ITERATIONS, LIMIT)? {
            return Ok(Verdict::Fast(
                u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            ));
        }
    }
    Ok(Verdict::Interpreted)
}
