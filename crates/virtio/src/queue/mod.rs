//! One virtqueue, split format (2.7): chains come out, completions go in. No notification happens here.
//!
//! `virtio-queue` follows the rings; the checks of chains are ours, because it ends a bad chain silently.

mod chain;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use guest_memory::{Bytes, GuestAddress, GuestMemory};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue as Rings, QueueOwnedT, QueueState, QueueT};

use crate::Error;

pub use chain::{Chain, Reader, Writer};

/// Where a driver put a queue, and how far it has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the driver area, the available ring.
    pub driver: u64,
    /// Guest-physical address of the device area, the used ring.
    pub device: u64,
    /// Index of the next chain to take, counting up for ever.
    pub next_available: u16,
    /// Index of the next completion.
    pub next_used: u16,
}

impl QueuePosition {
    /// Whether every chain that was taken has been completed or put back.
    pub fn is_idle(&self) -> bool {
        self.next_available == self.next_used
    }
}

/// A virtqueue in use. After an error it yields only that it is broken.
pub struct Queue {
    rings: Rings,
    memory: GuestMemory,
    broken: bool,
}

impl Queue {
    /// The queue at `position` in `memory`.
    ///
    /// # Errors
    /// [`Error::Ring`] where size, alignment or place of a ring is impossible.
    pub fn new(memory: GuestMemory, position: QueuePosition, event_index: bool) -> Result<Self, Error> {
        let unusable = || Error::Ring {
            descriptors: position.descriptors,
            driver: position.driver,
            device: position.device,
            size: position.size,
        };
        let rings = Rings::try_from(QueueState {
            max_size: position.size,
            next_avail: position.next_available,
            next_used: position.next_used,
            event_idx_enabled: event_index,
            size: position.size,
            ready: true,
            desc_table: position.descriptors,
            avail_ring: position.driver,
            used_ring: position.device,
        })
        .map_err(|_| unusable())?;
        if !rings.is_valid(&*memory) {
            return Err(unusable());
        }
        Ok(Self {
            rings,
            memory,
            broken: false,
        })
    }

    /// Where the queue lies and how far it has got.
    pub fn position(&self) -> QueuePosition {
        QueuePosition {
            size: self.rings.size(),
            descriptors: self.rings.desc_table(),
            driver: self.rings.avail_ring(),
            device: self.rings.used_ring(),
            next_available: self.rings.next_avail(),
            next_used: self.rings.next_used(),
        }
    }

    /// The next chain, if the driver made one available.
    ///
    /// # Errors
    /// The ring or the chain is malformed; the queue is broken from then on.
    pub fn pop(&mut self) -> Result<Option<Chain>, Error> {
        self.check()?;
        let memory = self.memory.clone();
        let descriptors = self.rings.iter(&*memory).map(|mut heads| heads.next());
        let chain = match descriptors {
            Ok(None) => return Ok(None),
            Ok(Some(descriptors)) => Chain::new(memory.clone(), descriptors),
            Err(error) => Err(error.into()),
        };
        chain.map(Some).inspect_err(|_| self.broken = true)
    }

    /// Puts the chain that was popped last back, so that it is popped again.
    pub fn put_back(&mut self, _chain: Chain) {
        self.rings.go_to_previous_position();
    }

    /// Returns a chain of which the first `written` device-writable bytes are valid (2.7.8).
    ///
    /// # Errors
    /// The queue is broken.
    pub fn complete(&mut self, chain: Chain, written: usize) -> Result<(), Error> {
        self.check()?;
        let written = u32::try_from(written.min(chain.writer().remaining())).unwrap_or(u32::MAX);
        let result = self.rings.add_used(&*self.memory, chain.head(), written);
        result.map_err(|error| self.latch(error))
    }

    /// Whether the driver wants an interrupt for what was completed since the last call (2.7.7).
    ///
    /// # Errors
    /// The queue is broken.
    pub fn wants_interrupt(&mut self) -> Result<bool, Error> {
        self.check()?;
        let result = self.rings.needs_notification(&*self.memory);
        let wanted = result.map_err(|error| self.latch(error))?;
        if self.rings.event_idx_enabled() {
            return Ok(wanted);
        }
        let flags = GuestAddress(self.rings.avail_ring());
        let flags = self.memory.load::<u16>(flags, Ordering::Acquire);
        // The ring was checked to be RAM, and RAM stays.
        let flags = flags.map(u16::from_le).unwrap_or(0);
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver for a doorbell with the next chain. True when there is one already, so that the
    /// caller must look again instead of waiting (2.7.10).
    ///
    /// # Errors
    /// The queue is broken.
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.check()?;
        let result = self.rings.enable_notification(&*self.memory);
        result.map_err(|error| self.latch(error))
    }

    /// Whether the driver has made nothing more available.
    pub fn is_empty(&self) -> bool {
        let available = self.rings.avail_idx(&*self.memory, Ordering::Acquire);
        available.map_or(true, |index| index.0 == self.rings.next_avail())
    }

    fn check(&self) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Queue(virtio_queue::Error::QueueNotReady));
        }
        Ok(())
    }

    fn latch(&mut self, error: virtio_queue::Error) -> Error {
        self.broken = true;
        error.into()
    }
}
