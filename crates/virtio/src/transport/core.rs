//! The state machine that every transport shows its driver (2.1, 2.2, 3.1), without a bus.

use std::sync::Arc;

use guest_memory::GuestMemory;
use saved_state::{Unit, require};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::notify::{InterruptSink, StatusRegisters};
use super::saved::{SavedCore, SavedQueue};
use super::{Doorbell, Interrupt, half, with_half};
use crate::queue::{Queue, QueuePosition};
use crate::{Activated, ActiveQueue, Error, VirtioDevice};

/// Device status bits (2.1) that a driver may set.
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const DRIVER_BITS: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8
    | VIRTIO_CONFIG_S_DRIVER as u8
    | VIRTIO_CONFIG_S_FAILED as u8
    | FEATURES_OK
    | DRIVER_OK;
/// The one that only the device sets.
const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_INDEX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// What every device offers (6). Not offered: IN_ORDER, as requests end in any order; ACCESS_PLATFORM, as
/// there is no IOMMU; RING_PACKED and RING_RESET, which no driver needs.
const TRANSPORT_FEATURES: u64 = VERSION_1 | EVENT_INDEX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// One of the three addresses of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ring {
    Descriptors,
    Driver,
    Device,
}

/// One virtqueue as the driver sets it up.
struct QueueSetup {
    max_size: u16,
    position: QueuePosition,
    enabled: bool,
    doorbell: Arc<Doorbell>,
}

/// The registers common to all transports, and the device behind them.
pub(super) struct Core {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    interrupt: Interrupt,
    status: Arc<StatusRegisters>,
    driver_features: u64,
    /// Registers that choose what others mean.
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) queue_select: u16,
    queues: Vec<QueueSetup>,
    /// A driver has started the device, and has not reset it since.
    active: bool,
    /// It works: it has the queues.
    working: bool,
}

impl Core {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        sink: Arc<dyn InterruptSink>,
    ) -> Self {
        let status = Arc::new(StatusRegisters::default());
        let queues = device.queue_sizes().into_iter().map(|max_size| QueueSetup {
            max_size,
            position: QueuePosition {
                size: max_size,
                ..QueuePosition::default()
            },
            enabled: false,
            doorbell: Arc::default(),
        });
        Self {
            queues: queues.collect(),
            device,
            memory,
            interrupt: Interrupt::new(sink, status.clone()),
            status,
            driver_features: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            active: false,
            working: false,
        }
    }

    pub(super) fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    pub(super) fn queue_count(&self) -> u16 {
        // Devices have far fewer than 2^16 queues.
        self.queues.len() as u16
    }

    pub(super) fn device_features(&self) -> u32 {
        half(self.offered(), self.device_feature_select)
    }

    pub(super) fn driver_features(&self) -> u32 {
        half(self.driver_features, self.driver_feature_select)
    }

    /// Accepts features. Frozen once FEATURES_OK is set (3.1.1).
    pub(super) fn set_driver_features(&mut self, value: u32) {
        if self.status.get() & FEATURES_OK == 0 && self.driver_feature_select < 2 {
            let upper = self.driver_feature_select == 1;
            self.driver_features = with_half(self.driver_features, upper, value);
        }
    }

    pub(super) fn status(&self) -> u8 {
        self.status.get()
    }

    pub(super) fn config_generation(&self) -> u32 {
        self.status.config_generation()
    }

    /// Takes a write of the device status: 0 resets, other values add bits.
    pub(super) fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let before = self.status.get();
        let mut added = value & DRIVER_BITS & !before;
        if added & FEATURES_OK != 0 && !self.features_acceptable() {
            added &= !FEATURES_OK;
        }
        // Without FEATURES_OK the driver must not go on (3.1.1 step 6); it may do both in one write.
        if added & DRIVER_OK != 0 && (before | added) & FEATURES_OK == 0 {
            added &= !DRIVER_OK;
        }
        self.status.set(added);
        if added & DRIVER_OK != 0
            && let Err(error) = self.activate()
        {
            self.interrupt.broken(&error);
        }
    }

    /// Stops the device and puts all registers back.
    pub(super) fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.doorbell.disconnect();
            queue.enabled = false;
            queue.position = QueuePosition {
                size: queue.max_size,
                ..QueuePosition::default()
            };
        }
        if std::mem::take(&mut self.working) {
            drop(self.device.stop());
        }
        if std::mem::take(&mut self.active) {
            self.device.reset();
        }
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        // Last, as the device's threads could set DEVICE_NEEDS_RESET until they were stopped.
        self.status.clear();
    }

    pub(super) fn queue_max_size(&self) -> u16 {
        self.selected().map_or(0, |queue| queue.max_size)
    }

    pub(super) fn queue_size(&self) -> u16 {
        self.selected().map_or(0, |queue| queue.position.size)
    }

    pub(super) fn set_queue_size(&mut self, size: u16) {
        if let Some(queue) = self.selected_mut() {
            // An impossible size stays out; the driver reads back what holds.
            if size.is_power_of_two() && size <= queue.max_size {
                queue.position.size = size;
            }
        }
    }

    pub(super) fn queue_enabled(&self) -> bool {
        self.selected().is_some_and(|queue| queue.enabled)
    }

    /// Enables the selected queue; only a reset disables it again. Too late once the device works.
    pub(super) fn enable_queue(&mut self) {
        let late = self.status.get() & DRIVER_OK != 0;
        if let Some(queue) = self.selected_mut().filter(|_| !late) {
            queue.enabled = true;
        }
    }

    pub(super) fn queue_address(&self, ring: Ring) -> u64 {
        self.selected().map_or(0, |queue| match ring {
            Ring::Descriptors => queue.position.descriptors,
            Ring::Driver => queue.position.driver,
            Ring::Device => queue.position.device,
        })
    }

    pub(super) fn set_queue_address(&mut self, ring: Ring, upper: bool, value: u32) {
        if let Some(queue) = self.selected_mut() {
            let address = match ring {
                Ring::Descriptors => &mut queue.position.descriptors,
                Ring::Driver => &mut queue.position.driver,
                Ring::Device => &mut queue.position.device,
            };
            *address = with_half(*address, upper, value);
        }
    }

    /// The doorbell of queue `index`, if there is such a queue.
    pub(super) fn doorbell(&self, index: u16) -> Option<&Arc<Doorbell>> {
        self.queues.get(usize::from(index)).map(|queue| &queue.doorbell)
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// Only what was offered, and never the legacy interface (6.1).
    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & VERSION_1 != 0
    }

    fn activate(&mut self) -> Result<(), Error> {
        let event_index = self.driver_features & EVENT_INDEX != 0;
        let mut queues = Vec::new();
        for (index, setup) in (0_u16..).zip(&self.queues).filter(|(_, setup)| setup.enabled) {
            let queue = Queue::new(self.memory.clone(), setup.position, event_index)?;
            let doorbell = setup.doorbell.clone();
            queues.push(ActiveQueue::new(index, queue, doorbell, self.interrupt.clone()));
        }
        let result = self.device.activate(Activated {
            queues,
            features: self.driver_features,
            interrupt: self.interrupt.clone(),
        });
        match result {
            Ok(()) => {
                self.active = true;
                self.working = true;
            }
            // Some of its threads may have started.
            Err(_) => drop(self.device.stop()),
        }
        result
    }

    /// Stops the device and takes its queues back. Requests are done or wait in their rings then, so a queue has
    /// used as many as it has taken; one that has not, or does not come back, has lost some.
    pub(super) fn pause(&mut self) {
        if !std::mem::take(&mut self.working) {
            return;
        }
        let stopped = self.device.stop();
        for (index, setup) in (0_u16..).zip(&mut self.queues).filter(|(_, setup)| setup.enabled) {
            let queue = stopped.iter().find(|queue| queue.index == index);
            if let Some(queue) = queue {
                setup.position = queue.queue.position();
            }
            if queue.is_none() || !setup.position.is_idle() {
                // Unless the driver knows already.
                self.interrupt.broken(&Error::Lost(index));
            }
        }
    }

    /// Goes on after [`Core::pause`] or [`Core::restore`]. A device that needs a reset stays still until then.
    pub(super) fn resume(&mut self) {
        let broken = self.status.get() & NEEDS_RESET != 0;
        if self.active
            && !self.working
            && !broken
            && let Err(error) = self.activate()
        {
            self.interrupt.broken(&error);
        }
    }

    /// The state of a core that is paused.
    pub(super) fn save(&self) -> SavedCore {
        let queues = self.queues.iter().map(|setup| SavedQueue {
            size: setup.position.size,
            descriptors: setup.position.descriptors,
            driver: setup.position.driver,
            device: setup.position.device,
            next_available: setup.position.next_available,
            next_used: setup.position.next_used,
            enabled: setup.enabled,
        });
        let Unit { schema, bytes } = self.device.save_state();
        SavedCore {
            device_type: self.device.device_type() as u16,
            driver_features: self.driver_features,
            device_feature_select: self.device_feature_select,
            driver_feature_select: self.driver_feature_select,
            queue_select: self.queue_select,
            status: self.status.get(),
            config_generation: self.status.config_generation(),
            active: self.active,
            queues: queues.collect(),
            device_schema: schema,
            device_state: bytes,
        }
    }

    /// Takes over what [`Core::save`] gave. The rings are looked at when the device goes on.
    pub(super) fn restore(&mut self, saved: SavedCore) -> Result<(), saved_state::Error> {
        let is_same = saved.device_type == self.device.device_type() as u16;
        require(is_same, "the type of a virtio device")?;
        require(
            saved.queues.len() == self.queues.len(),
            "the number of virtqueues",
        )?;
        self.driver_features = saved.driver_features;
        self.device_feature_select = saved.device_feature_select;
        self.driver_feature_select = saved.driver_feature_select;
        self.queue_select = saved.queue_select;
        self.restore_status(&saved)?;
        for (setup, queue) in self.queues.iter_mut().zip(&saved.queues) {
            let working = saved.active && queue.enabled;
            let broken = saved.status & NEEDS_RESET != 0;
            setup.position = queue.position(setup.max_size, working, broken)?;
            setup.enabled = queue.enabled;
        }
        let state = Unit {
            schema: saved.device_schema,
            bytes: saved.device_state,
        };
        // A device that no driver has started is as new.
        let possible = self.active || state == self.device.save_state();
        require(possible, "the state of a virtio device")?;
        self.device.restore_state(&state)
    }

    /// What [`Core::set_status`] lets a driver bring about, and what a device adds once it was started (2.1).
    fn restore_status(&mut self, saved: &SavedCore) -> Result<(), saved_state::Error> {
        let status = saved.status;
        let is = |bit: u8| status & bit != 0;
        let possible = status & !(DRIVER_BITS | NEEDS_RESET) == 0
            && (!is(FEATURES_OK) || self.features_acceptable())
            && (!is(DRIVER_OK) || is(FEATURES_OK))
            && (!is(NEEDS_RESET) || is(DRIVER_OK))
            // Started, or in need of a reset as that failed.
            && (is(DRIVER_OK) == saved.active || is(NEEDS_RESET));
        require(possible, "the status of a virtio device")?;
        self.status.restore(status, saved.config_generation);
        self.active = saved.active;
        Ok(())
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The selected queue as long as its driver may change it.
    fn selected_mut(&mut self) -> Option<&mut QueueSetup> {
        let queue = self.queues.get_mut(usize::from(self.queue_select));
        queue.filter(|queue| !queue.enabled)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.working {
            drop(self.device.stop());
        }
    }
}
