//! Linux and other systems of its kind.

#[cfg(target_os = "linux")]
mod code_memory;
mod heap;
#[cfg(target_os = "linux")]
mod linux;
mod permissions;
mod thread;

#[cfg(target_os = "linux")]
pub(crate) use code_memory::CodeMemory;
pub(crate) use heap::prefer_one_heap;
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Event, boot_id, bring_in, is_peer_ours, own_pages, program_identity, random_bytes, set_direct,
    tell_pages_apart, used_pages,
};
pub(crate) use permissions::{disk_usage, is_ours, is_same_file, permission_bits, set_permission_bits};
pub(crate) use thread::ThreadId;
