//! The differential tester of the CPU in software: the host's processor is the oracle.
//!
//! **Knows:** how to make up short programs and their inputs, how to run many of them in one native child process
//! and in a VM of `soft_cpu`, and which results the architecture leaves open.
//! **Must never know:** how `soft_cpu` works inside.
//!
//! One harness of machine code loads a case's registers, jumps to its instructions and stores what they left.
//! The same bytes run at the same addresses in both worlds, so a case has no way to tell them apart.
#![forbid(unsafe_code)]

mod block;
mod case;
mod compare;
mod exceptions;
pub mod fuzz;
mod generate;
mod guest;
mod harness;
pub mod hostile;
mod layout;
mod native;
mod parallel;
mod random;
mod report;
mod undefined;

pub use soft_cpu::Tiers;
