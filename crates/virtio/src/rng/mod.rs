//! Entropy device (5.4): random bytes from the host.

mod protocol;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use device_backends::Entropy;
use saved_state::Unit;

use crate::worker::{Signals, Worker};
use crate::{Activated, ActiveQueue, DeviceType, Error, VirtioDevice};

/// An entropy device. One thread serves it.
pub struct Rng {
    source: Arc<dyn Entropy>,
    worker: Option<Worker<ActiveQueue>>,
}

impl Rng {
    /// A device that gives the guest what `source` yields.
    pub fn new(source: Arc<dyn Entropy>) -> Self {
        Self { source, worker: None }
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![protocol::QUEUE_SIZE]
    }

    /// There is no configuration (5.4.4).
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, mut activated: Activated) -> Result<(), Error> {
        let queue = activated.take(protocol::REQUEST_QUEUE)?;
        let signals = Signals::new()?;
        signals.answer(&queue.doorbell, 1);
        signals.raise(1);
        let server = worker::Server {
            queue,
            source: self.source.clone(),
            interrupt: activated.interrupt,
            signals: signals.clone(),
        };
        self.worker = Some(Worker::spawn("virtio-rng", &signals, || server.run())?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<ActiveQueue> {
        let queue = self.worker.take().and_then(Worker::finish);
        queue.into_iter().collect()
    }

    fn reset(&mut self) {}

    /// It has no state: what is in flight lies in the queues.
    fn save_state(&self) -> Unit {
        Unit::empty()
    }

    fn restore_state(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        unit.expect_empty()
    }
}
