//! x86-64 CPU state in architectural terms.

mod cpuid;
mod msr;
mod registers;
mod state;

pub use cpuid::CpuidLeaf;
pub use msr::{Msr, SAVED_MSRS};
pub use registers::{
    DebugRegisters, GeneralRegisters, PendingEvents, PendingException, RunState, Segment, SystemRegisters,
    TableRegister,
};
pub use state::{CpuState, Element, elements};
