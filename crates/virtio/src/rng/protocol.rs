//! Numbers of the entropy device (5.4).

/// The only virtqueue (5.4.2).
pub(super) const REQUEST_QUEUE: u16 = 0;
/// Linux keeps one request in flight.
pub(super) const QUEUE_SIZE: u16 = 8;
/// The most bytes one request yields. A driver must cope with fewer than it asked for (5.4.6.1), so it cannot
/// keep the host busy with one request of gigabytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;
