//! The portable face of the operating system.
//!
//! **Knows:** how this host makes events, interrupts a thread, names its current boot, gives random bytes
//! and writes files around its cache.
//! **Must never know:** guests, devices, images. What differs between systems stays in `sys`.
//!
//! `unsafe` is allowed here for calls that `rustix` does not offer: signal handlers and signals to one thread.

mod boot_id;
mod direct;
mod error;
mod event;
mod random;
mod sys;
mod thread_interrupt;

pub use boot_id::boot_id;
pub use direct::{DIRECT_ALIGNMENT, set_direct};
pub use error::Error;
pub use event::Event;
pub use random::random_bytes;
pub use thread_interrupt::RunningThread;
