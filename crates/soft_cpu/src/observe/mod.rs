//! Watching a guest at work: lines about what it does, samples of where it is, and instructions it should not have
//! used.
//!
//! Nothing here costs a guest that nobody watches: translated code knows of none of it, and the rest asks once where a
//! function call or a whole block follows anyway.

mod sampling;
#[cfg(test)]
mod tests;
mod trace;
mod undefined;

pub use sampling::{GuestStack, Sample, Samples};
pub use trace::{Trace, TraceKind, TraceLines};

pub(crate) use sampling::{Sampled, Sampler};
pub(crate) use trace::{DeviceAccess, Tier, TracedIo, Tracer};
pub(crate) use undefined::Undefined;

use std::sync::Arc;

/// What is watched.
#[derive(Clone, Default)]
pub struct Observation {
    /// Lines about what guests do.
    pub trace: Option<Trace>,
    /// Who hears where they are, every millisecond.
    pub samples: Option<Arc<dyn Samples>>,
}
