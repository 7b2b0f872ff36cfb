//! Function 00:00.0, by which software recognises the bus.

use device_model::pci::{BarWindow, ConfigSpace, Identity, PciFunction};
use device_model::{Device, SharedDevice};

use super::registers::*;

struct Bridge {
    config: ConfigSpace,
}

pub(super) fn bridge() -> SharedDevice {
    let identity = Identity {
        vendor: VENDOR,
        device: DEVICE,
        class: CLASS_HOST_BRIDGE,
        ..Identity::default()
    };
    let config = ConfigSpace::new(identity);
    std::sync::Arc::new(std::sync::Mutex::new(Bridge { config }))
}

impl Device for Bridge {
    fn name(&self) -> &str {
        "pci-host-bridge"
    }

    fn reset(&mut self) {
        self.config.reset();
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
