//! x86-64 guests on a CPU in software, for machines without usable virtualization.
//!
//! **Knows:** the x86-64 instruction set, its memory management, its local APIC, and how to run it on this host:
//! a decoded-block interpreter everywhere, translated code on x86-64 hosts.
//! **Must never know:** devices, the machine's layout, other backends, or an operating system's interfaces.
//!
//! Guest bytes are hostile. Guest code reaches nothing but guest RAM and [`hypervisor::GuestIo`]: every address
//! goes through `memory`, which finds RAM only through `guest_memory`'s bounds. `unsafe` is allowed in
//! the translator alone.

mod apic;
mod attention;
mod blocks;
mod cpu;
mod exception;
mod exclusive;
mod exec;
mod integer;
mod memory;
mod observe;
mod state;
mod system;
#[cfg(test)]
mod testing;
mod translate;
mod vcpu;
mod vector;
mod vm;
mod x87;

pub use observe::{GuestStack, Observation, Sample, Samples, Trace, TraceKind, TraceLines};
pub use translate::Tiers;
pub use vm::{open, open_observed, open_with};
