//! What can go wrong, whoever's fault it is.

use std::io;

use device_model::pci::PciError;

/// Why a device cannot be made, or why it stopped until its next reset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A ring is not wholly in RAM, misaligned, or its size is impossible.
    #[error(
        "virtqueue at descriptors {descriptors:#x}, driver {driver:#x}, device {device:#x}, size {size} is unusable"
    )]
    Ring {
        /// Address of the descriptor table.
        descriptors: u64,
        /// Address of the available ring.
        driver: u64,
        /// Address of the used ring.
        device: u64,
        /// Number of descriptors.
        size: u16,
    },
    /// The available or used ring cannot be followed.
    #[error("virtqueue is broken")]
    Queue(#[from] virtio_queue::Error),
    /// A chain that loops, leaves its table, or nests indirect tables.
    #[error("descriptor chain {head} has no proper end")]
    Chain {
        /// Index of its first descriptor.
        head: u16,
    },
    /// A chain with a device-readable descriptor after a device-writable one.
    #[error("descriptor chain {head} has its parts in the wrong order")]
    ChainOrder {
        /// Index of its first descriptor.
        head: u16,
    },
    /// A descriptor that points outside RAM.
    #[error("descriptor chain {head} points to {gpa:#x}+{len:#x}, which is not RAM")]
    Wild {
        /// Index of the chain's first descriptor.
        head: u16,
        /// Address in the descriptor.
        gpa: u64,
        /// Length in the descriptor.
        len: u32,
    },
    /// A request that its device cannot have, such as a control message that is too short.
    #[error("malformed request: {0}")]
    Request(&'static str),
    /// The driver started the device without a queue it cannot work without.
    #[error("driver left out virtqueue {0}")]
    MissingQueue(u16),
    /// A device thread failed with requests in its hands, or with a whole queue.
    #[error("requests of virtqueue {0} are lost, as a device thread failed")]
    Lost(u16),
    /// The host has no more events.
    #[error("no event for a virtio device")]
    Event(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The host service behind a device failed.
    #[error("{service} failed")]
    Service {
        /// What failed.
        service: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// No thread for the device.
    #[error("cannot start a device thread")]
    Thread(#[source] io::Error),
    /// A file-system tag that is empty or longer than 36 bytes.
    #[error("file-system tag {0:?} is empty or longer than 36 bytes")]
    Tag(String),
    /// More or fewer queues, ports or the like than the device type can have.
    #[error("{count} {what} where {min} to {max} are possible")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The PCI function cannot be laid out.
    #[error("cannot lay out the PCI function")]
    Layout(#[from] PciError),
}
