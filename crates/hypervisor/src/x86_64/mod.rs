//! x86-64 CPU state in architectural terms.

mod cpuid;

pub use cpuid::CpuidLeaf;

/// The whole architectural state of one vCPU.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuState {}
