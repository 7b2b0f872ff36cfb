//! What each system does in its own way.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{Event, ThreadId, boot_id, random_bytes, set_direct};
