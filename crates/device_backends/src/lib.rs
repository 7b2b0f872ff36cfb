//! What a virtual device is plugged into.
//!
//! A device moves bytes between a guest and one of these traits; a host service stands behind it.
//! **Knows:** the shape of each service: a file service, a byte stream, a source of entropy, who notes marks.
//! **Must never know:** guest memory, virtqueues, interrupts, or who implements a service. Devices and
//! host services both depend on this crate and never on each other.

mod byte_stream;
mod entropy;
mod file_service;
mod marks;

pub use byte_stream::{ByteStream, DeviceEnd, HostEnd, Waker, byte_pipe};
pub use entropy::Entropy;
pub use file_service::{FileService, ReplySink, RequestSource};
pub use marks::Marks;
