//! Notifications in both directions: doorbells from the driver, interrupts from the device.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use device_model::{Event, FirstTime};
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};

use super::DoorbellAddress;
use crate::Error;

/// Who answers a doorbell.
#[derive(Clone)]
struct Listener {
    /// Called when it rings.
    answer: Arc<dyn Fn() + Send + Sync>,
    /// Setting it rings too.
    event: Event,
}

/// Wakes the device for one queue. It lives as long as the device, so whoever rings it from elsewhere than
/// the register, such as an event of the hypervisor, may keep it. It rings into the void while the device
/// does not work.
#[derive(Default)]
pub struct Doorbell {
    listener: RwLock<Option<Listener>>,
}

impl Doorbell {
    /// Tells the device to look at the queue. Never blocks; callable from any thread.
    pub fn notify(&self) {
        let listener = self
            .listener
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(listener) = listener {
            (listener.answer)();
        }
    }

    /// What rings it when set, such as by a hypervisor; `None` while the device does not work.
    pub fn event(&self) -> Option<Event> {
        let listener = self.listener.read().unwrap_or_else(PoisonError::into_inner);
        listener.as_ref().map(|listener| listener.event.clone())
    }

    /// Says who answers, and what wakes him likewise. A device calls it in `activate`, for the queues it listens to.
    pub fn connect(&self, event: Event, answer: impl Fn() + Send + Sync + 'static) {
        let answer = Arc::new(answer);
        self.set(Some(Listener { answer, event }));
    }

    /// Lets the doorbell ring into the void.
    pub fn disconnect(&self) {
        self.set(None);
    }

    fn set(&self, listener: Option<Listener>) {
        *self.listener.write().unwrap_or_else(PoisonError::into_inner) = listener;
    }
}

/// Who wants to know where doorbells hang, such as to let a hypervisor ring them.
pub trait DoorbellObserver: Send + Sync {
    /// From now on these doorbells have somebody to answer them, and no others. Called with the device's lock held.
    fn doorbells_changed(&self, doorbells: &[DoorbellAddress]);
}

/// How a shell interrupts its driver.
pub(crate) trait InterruptSink: Send + Sync {
    /// Buffers of `queue` were used (2.3).
    fn used_buffers(&self, queue: u16);
    /// The configuration, or DEVICE_NEEDS_RESET, changed.
    fn config_changed(&self);
}

/// What a device tells its driver, from any thread. Clones speak for the same device.
#[derive(Clone)]
pub struct Interrupt {
    sink: Arc<dyn InterruptSink>,
    status: Arc<StatusRegisters>,
}

impl Interrupt {
    pub(crate) fn new(sink: Arc<dyn InterruptSink>, status: Arc<StatusRegisters>) -> Self {
        Self { sink, status }
    }

    pub(crate) fn used_buffers(&self, queue: u16) {
        self.sink.used_buffers(queue);
    }

    /// Configuration space reads differently from now on (2.5.1).
    pub fn config_changed(&self) {
        self.status.config_generation.fetch_add(1, Ordering::Release);
        self.sink.config_changed();
    }

    /// The device stops because of `error` until the driver resets it (2.1.2).
    pub fn broken(&self, error: &Error) {
        let before = self.status.set(VIRTIO_CONFIG_S_NEEDS_RESET as u8);
        if before & VIRTIO_CONFIG_S_NEEDS_RESET as u8 != 0 {
            return;
        }
        let error = error as &dyn std::error::Error;
        match self.status.broke.is_now() {
            true => tracing::warn!(error, "virtio device needs a reset; this is told once"),
            false => tracing::debug!(error, "virtio device needs a reset"),
        }
        if before & VIRTIO_CONFIG_S_DRIVER_OK as u8 != 0 {
            self.config_changed();
        }
    }
}

/// Registers that device threads change too.
#[derive(Default)]
pub(crate) struct StatusRegisters {
    device_status: AtomicU8,
    config_generation: AtomicU32,
    /// Survives resets: a driver could break and reset a device without end.
    broke: FirstTime,
}

impl StatusRegisters {
    pub(crate) fn get(&self) -> u8 {
        self.device_status.load(Ordering::Acquire)
    }

    /// Sets bits; returns the status before.
    pub(crate) fn set(&self, bits: u8) -> u8 {
        self.device_status.fetch_or(bits, Ordering::AcqRel)
    }

    pub(crate) fn clear(&self) {
        self.device_status.store(0, Ordering::Release);
    }

    /// Puts both registers to what they were.
    pub(crate) fn restore(&self, device_status: u8, config_generation: u32) {
        self.device_status.store(device_status, Ordering::Release);
        self.config_generation.store(config_generation, Ordering::Release);
    }

    pub(crate) fn config_generation(&self) -> u32 {
        self.config_generation.load(Ordering::Acquire)
    }
}
