//! The portable face of the operating system.
//!
//! **Knows:** how this host makes events, interrupts a thread, names its current boot and this program, gives random bytes,
//! keeps permissions of files, tells whose the other end of a socket is, writes files around its cache and grows this
//! process's heap.
//! **Must never know:** guests, devices, images. What differs between systems stays in `sys`.
//!
//! `unsafe` is allowed here for calls that `rustix` does not offer: signal handlers and signals to one thread; for
//! mapping memory; for what only an instruction of the processor can do.

mod atomics;
mod boot_id;
mod code_memory;
mod direct;
mod error;
mod event;
mod heap;
mod own_pages;
mod permissions;
mod program;
mod random;
mod sys;
mod thread_interrupt;

pub use atomics::{X86_LOAD, X86_STORE, compare_exchange_16};
pub use boot_id::boot_id;
pub use code_memory::CodeMemory;
pub use direct::{DIRECT_ALIGNMENT, set_direct};
pub use error::Error;
pub use event::Event;
pub use heap::prefer_one_heap;
pub use own_pages::{bring_in, own_pages, tell_pages_apart, used_pages};
pub use permissions::{
    disk_usage, is_peer_ours, is_same_file, only_we_write, permission_bits, set_permission_bits,
};
pub use program::program_identity;
pub use random::random_bytes;
pub use thread_interrupt::RunningThread;
