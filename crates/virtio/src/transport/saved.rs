//! The state of both shells and of what they share, as records.

use device_model::pci::{SavedConfigSpace, SavedMsix};
use saved_state::{Error, record, require};

use crate::queue::QueuePosition;

/// Of both shells' records.
pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// A [`VirtioPci`](super::pci::VirtioPci).
    pub(super) struct SavedPci {
        1 config: SavedConfigSpace,
        2 msix: SavedMsix,
        3 config_vector: u16,
        4 queue_vectors: Vec<u16>,
        5 isr: u8,
        6 core: SavedCore,
    }
}

record! {
    /// A [`VirtioMmio`](super::mmio::VirtioMmio).
    pub(super) struct SavedMmio {
        1 interrupt_status: u32,
        2 core: SavedCore,
    }
}

record! {
    /// A [`Core`](super::core::Core) and the device behind it.
    pub(super) struct SavedCore {
        1 device_type: u16,
        2 driver_features: u64,
        3 device_feature_select: u32,
        4 driver_feature_select: u32,
        5 queue_select: u16,
        6 status: u8,
        7 config_generation: u32,
        8 active: bool,
        9 queues: Vec<SavedQueue>,
        10 device_schema: u16,
        11 device_state: Vec<u8>,
    }
}

record! {
    /// A virtqueue as its driver set it up, and how far it has got.
    pub(super) struct SavedQueue {
        1 size: u16,
        2 descriptors: u64,
        3 driver: u64,
        4 device: u64,
        5 next_available: u16,
        6 next_used: u16,
        7 enabled: bool,
    }
}

impl SavedQueue {
    /// Where the queue of at most `max_size` descriptors is; `working` once its device was started, `broken` if that
    /// needs a reset.
    pub(super) fn position(
        &self,
        max_size: u16,
        working: bool,
        broken: bool,
    ) -> Result<QueuePosition, Error> {
        let position = QueuePosition {
            size: self.size,
            descriptors: self.descriptors,
            driver: self.driver,
            device: self.device,
            next_available: self.next_available,
            next_used: self.next_used,
        };
        let size = self.size.is_power_of_two() && self.size <= max_size;
        require(size, "the size of a virtqueue")?;
        let progress = match working {
            true => broken || position.is_idle(),
            false => (self.next_available, self.next_used) == (0, 0),
        };
        require(progress, "the progress of a virtqueue")?;
        Ok(position)
    }
}
