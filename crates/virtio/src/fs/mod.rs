//! File-system device (5.11): carries FUSE messages to a [`FileService`] and its replies back, undecoded.
//! Contents of files travel between guest memory and the host's file without a copy in between.
//!
//! Neither the notification queue nor the DAX window is offered.

mod protocol;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use device_backends::FileService;
use saved_state::Unit;

use self::worker::{RequestQueue, Serving};
use crate::{Activated, ActiveQueue, DeviceType, Error, VirtioDevice};

/// A file-system device. Each queue has threads of its own, so requests of one queue may end in any order and
/// one slow request holds up no other.
pub struct Fs {
    config: protocol::Config,
    service: Arc<dyn FileService>,
    serving: Vec<Serving>,
}

impl Fs {
    /// A device that the guest mounts by `tag`, 1 to 36 bytes, with `queues` request queues, 1 to 64.
    ///
    /// # Errors
    /// A tag or number of queues that no such device can have.
    pub fn new(tag: &str, service: Arc<dyn FileService>, queues: u16) -> Result<Self, Error> {
        Ok(Self {
            config: protocol::Config::new(tag, queues)?,
            service,
            serving: Vec::new(),
        })
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> DeviceType {
        DeviceType::FileSystem
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let requests = (0..self.config.queues).map(|_| protocol::REQUEST_QUEUE_SIZE);
        [protocol::HIGH_PRIORITY_QUEUE_SIZE]
            .into_iter()
            .chain(requests)
            .collect()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn activate(&mut self, mut activated: Activated) -> Result<(), Error> {
        for index in 0..=self.config.queues {
            let queue = RequestQueue::new(
                activated.take(index)?,
                self.service.clone(),
                activated.interrupt.clone(),
            )?;
            let threads = match index {
                protocol::HIGH_PRIORITY_QUEUE => 1,
                _ => protocol::THREADS_PER_REQUEST_QUEUE,
            };
            self.serving.push(Serving::start(queue, threads)?);
        }
        Ok(())
    }

    fn stop(&mut self) -> Vec<ActiveQueue> {
        self.serving.drain(..).filter_map(Serving::stop).collect()
    }

    fn reset(&mut self) {
        self.service.reset();
    }

    /// It has no state of its own: the session is the service's.
    fn save_state(&self) -> Unit {
        Unit::empty()
    }

    fn restore_state(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.expect_empty()
    }
}
