//! All devices of one machine, as one.

use std::sync::Arc;

use device_model::{ConcurrentDevice, Device, SharedDevice, lock};
use saved_state::{Snapshot, SnapshotWriter};

/// The machine's devices, in the order in which their state is restored: what dispatches to others comes last.
#[derive(Default)]
pub(crate) struct Devices {
    pub(crate) locked: Vec<SharedDevice>,
    pub(crate) concurrent: Vec<Arc<dyn ConcurrentDevice>>,
}

impl Devices {
    /// Stops what devices do by themselves.
    pub(crate) fn pause(&self) {
        self.each(|device| device.pause());
    }

    /// Lets devices go on.
    pub(crate) fn resume(&self) {
        self.each(|device| device.resume());
    }

    fn each(&self, act: impl Fn(&mut dyn Device)) {
        for device in &self.locked {
            act(&mut *lock(device));
        }
    }

    /// The names of all units, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let locked = self.locked.iter().map(|device| lock(device).name().to_owned());
        let concurrent = self.concurrent.iter().map(|device| device.name().to_owned());
        locked.chain(concurrent).collect()
    }

    /// Writes a unit for each device; they are paused.
    pub(crate) fn save(&self, writer: &mut SnapshotWriter) {
        for device in &self.locked {
            let device = lock(device);
            writer.unit(device.name(), &device.save());
        }
        for device in &self.concurrent {
            writer.unit(device.name(), &device.save());
        }
    }

    /// Takes over every device's unit.
    pub(crate) fn restore(&self, snapshot: &Snapshot) -> Result<(), saved_state::Error> {
        for device in &self.locked {
            let mut device = lock(device);
            let name = device.name().to_owned();
            snapshot.load(&name, |unit| device.restore(unit))?;
        }
        for device in &self.concurrent {
            snapshot.load(device.name(), |unit| device.restore(unit))?;
        }
        Ok(())
    }
}
