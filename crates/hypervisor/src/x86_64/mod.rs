//! x86-64 CPU state and CPUID in architectural terms.

pub mod cpu_profile;
mod cpuid;
mod events;
mod lapic;
pub mod msr;
mod registers;
mod saved;
mod state;
mod table;
mod xsave;

pub use cpu_profile::{CpuProfile, UnknownProfile};
pub use cpuid::{CpuidLeaf, cache_leaves, find_leaf, for_vcpu};
pub use events::{Activity, PendingEvents, PendingException, PendingInterrupt};
pub use lapic::LocalApic;
pub use msr::Msrs;
pub use registers::{
    DebugRegisters, GeneralRegisters, Segment, SegmentAttributes, SystemRegisters, TableRegister,
};
pub use state::{CpuState, CpuStateAccess};
pub use xsave::{Components, ExtendedState, XsaveLayout};
