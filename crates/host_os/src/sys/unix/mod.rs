//! Linux and other systems of its kind.

#[cfg(target_os = "linux")]
mod linux;
mod thread;

#[cfg(target_os = "linux")]
pub(crate) use linux::{Event, boot_id, random_bytes, set_direct};
pub(crate) use thread::ThreadId;
