//! What each system does in its own way.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    CodeMemory, Event, ThreadId, boot_id, bring_in, disk_usage, is_ours, is_peer_ours, is_same_file,
    own_pages, permission_bits, prefer_one_heap, program_identity, random_bytes, set_direct,
    set_permission_bits, tell_pages_apart, used_pages,
};
