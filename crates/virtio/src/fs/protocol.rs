//! Numbers and configuration of the file-system device (5.11).

use crate::Error;

/// Queue for FORGET, INTERRUPT and the like (5.11.2); request queues follow it, as the notification queue is
/// not offered.
pub(super) const HIGH_PRIORITY_QUEUE: u16 = 0;

/// Forgets are small and come in bursts.
pub(super) const HIGH_PRIORITY_QUEUE_SIZE: u16 = 128;
/// Linux limits a request to the queue's size in pages, less a few: 1 MiB needs more than 256.
pub(super) const REQUEST_QUEUE_SIZE: u16 = 512;

/// So that one request that waits for the host's disk does not hold up its queue.
pub(super) const THREADS_PER_REQUEST_QUEUE: usize = 2;

const TAG_LEN: usize = 36;
const MAX_QUEUES: u16 = 64;

/// Device configuration (5.11.4).
pub(super) struct Config {
    tag: [u8; TAG_LEN],
    /// Number of request queues.
    pub(super) queues: u16,
}

impl Config {
    pub(super) fn new(tag: &str, queues: u16) -> Result<Self, Error> {
        if tag.is_empty() || tag.len() > TAG_LEN || tag.contains('\0') {
            return Err(Error::Tag(tag.to_owned()));
        }
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(Error::Count {
                what: "request queues",
                count: queues.into(),
                min: 1,
                max: MAX_QUEUES.into(),
            });
        }
        let mut padded = [0; TAG_LEN];
        padded[..tag.len()].copy_from_slice(tag.as_bytes());
        Ok(Self { tag: padded, queues })
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let mut bytes = [0; TAG_LEN + 4];
        bytes[..TAG_LEN].copy_from_slice(&self.tag);
        bytes[TAG_LEN..].copy_from_slice(&u32::from(self.queues).to_le_bytes());
        crate::device::copy_config(&bytes, offset, data);
    }
}
