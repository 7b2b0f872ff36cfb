//! What a virtio device is to a transport, and what a transport hands a device.

use std::sync::Arc;

use saved_state::Unit;

use crate::Error;
use crate::queue::{Chain, Queue};
use crate::transport::{Doorbell, Interrupt};

/// Device types (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    /// 5.3.
    Console = 3,
    /// 5.4.
    Entropy = 4,
    /// 5.11.
    FileSystem = 26,
}

/// One device type behind any transport.
///
/// *Order of calls:* `activate` and `stop` alternate; `reset`, `save_state` and `restore_state` come only while
/// stopped. Configuration may be accessed at any time.
/// *Concurrency:* all calls come from one thread at a time, often a vCPU's, so they do not wait; `stop` may
/// wait for requests that host I/O holds up.
pub trait VirtioDevice: Send {
    /// Which device type this is.
    fn device_type(&self) -> DeviceType;

    /// Feature bits of the device type (bits 0 to 23, and 50 up); the transport adds its own.
    fn features(&self) -> u64;

    /// The largest size of each virtqueue: powers of two. Fixed for the device's life.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Reads configuration space at `offset`. Bytes past its end stay as they are.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes configuration space. Most fields are read-only.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Starts work: the driver set DRIVER_OK, or the VM goes on after a pause.
    ///
    /// # Errors
    /// What keeps the device from working; the driver then sees DEVICE_NEEDS_RESET.
    fn activate(&mut self, activated: Activated) -> Result<(), Error>;

    /// Stops work and hands the queues back. Requests in flight are finished, or put back so that the next
    /// `activate` with these queues takes them up where they were.
    fn stop(&mut self) -> Vec<ActiveQueue>;

    /// Forgets what a driver had set up, as after power-on.
    fn reset(&mut self);

    /// What a driver had set up, beyond what transport and queues hold.
    fn save_state(&self) -> Unit;

    /// Takes over what [`VirtioDevice::save_state`] gave, on a new device.
    ///
    /// # Errors
    /// What is wrong with it; the device must then be thrown away.
    fn restore_state(&mut self, unit: &Unit) -> Result<(), saved_state::Error>;
}

/// What a device gets when it starts.
pub struct Activated {
    /// The queues that the driver enabled, in ascending order of index.
    pub queues: Vec<ActiveQueue>,
    /// The feature bits negotiated.
    pub features: u64,
    /// Changes of configuration, and trouble, are told here.
    pub interrupt: Interrupt,
}

impl Activated {
    /// Takes out queue `index`.
    ///
    /// # Errors
    /// [`Error::MissingQueue`] where the driver has not enabled it.
    pub fn take(&mut self, index: u16) -> Result<ActiveQueue, Error> {
        let found = self.queues.iter().position(|queue| queue.index == index);
        found
            .map(|position| self.queues.swap_remove(position))
            .ok_or(Error::MissingQueue(index))
    }
}

/// A virtqueue with its two notifications.
pub struct ActiveQueue {
    /// Number of the queue in its device.
    pub index: u16,
    /// The rings.
    pub queue: Queue,
    /// What the driver rings.
    pub doorbell: Arc<Doorbell>,
    interrupt: Interrupt,
}

impl ActiveQueue {
    pub(crate) fn new(index: u16, queue: Queue, doorbell: Arc<Doorbell>, interrupt: Interrupt) -> Self {
        Self {
            index,
            queue,
            doorbell,
            interrupt,
        }
    }

    /// The next chain, if there is one. Otherwise the doorbell will ring when there is.
    ///
    /// # Errors
    /// The queue is broken.
    pub fn next_chain(&mut self) -> Result<Option<Chain>, Error> {
        loop {
            if let Some(chain) = self.queue.pop()? {
                return Ok(Some(chain));
            }
            if !self.queue.arm()? {
                return Ok(None);
            }
        }
    }

    /// Returns a chain of which the first `written` device-writable bytes are valid. The driver learns of it
    /// with [`ActiveQueue::flush`].
    ///
    /// # Errors
    /// The queue is broken.
    pub fn complete(&mut self, chain: Chain, written: usize) -> Result<(), Error> {
        self.queue.complete(chain, written)
    }

    /// Interrupts the driver if it wants to know of what was completed since the last call.
    ///
    /// # Errors
    /// The queue is broken.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.queue.wants_interrupt()? {
            self.interrupt.used_buffers(self.index);
        }
        Ok(())
    }
}

/// Carries out a read of configuration space that consists of `config`.
pub(crate) fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..));
    for (byte, value) in data.iter_mut().zip(rest.unwrap_or_default()) {
        *byte = *value;
    }
}
