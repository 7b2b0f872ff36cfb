//! Function 00:00.0, by which software recognises the bus.

use std::sync::{Arc, Mutex};

use device_model::Device;
use device_model::pci::{BarWindow, ConfigSpace, Identity, PciFunction};
use saved_state::Unit;

use super::registers::*;
use super::saved;

/// The function.
pub(super) struct Bridge {
    pub(super) config: ConfigSpace,
}

pub(super) fn bridge() -> Arc<Mutex<Bridge>> {
    let identity = Identity {
        vendor: VENDOR,
        device: DEVICE,
        class: CLASS_HOST_BRIDGE,
        ..Identity::default()
    };
    let config = ConfigSpace::new(identity);
    Arc::new(Mutex::new(Bridge { config }))
}

impl Device for Bridge {
    fn name(&self) -> &str {
        "pci-host-bridge"
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn save(&self) -> Unit {
        Unit::new(saved::SCHEMA, &self.config.save())
    }

    fn restore(&mut self, unit: &Unit) -> Result<(), saved_state::Error> {
        self.config.restore(&unit.decode(saved::SCHEMA)?)
    }

    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Bridge {
    fn config_read(&mut self, register: u16) -> u32 {
        self.config.read(register)
    }

    fn config_write(&mut self, register: u16, value: u32, byte_enable: u8) {
        self.config.write(register, value, byte_enable);
    }

    fn bars(&self) -> Vec<BarWindow> {
        Vec::new()
    }

    fn bar_read(&mut self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

    fn bar_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}
}
