//! Where the two halves of a machine meet: the CPU backend's upcalls go to the bus, the devices' interrupts
//! go to the CPU backend. Neither knows the other.

use std::sync::{Arc, Weak};

use chipset::ioapic::{IoApic, RouteObserver};
use device_model::{Bus, FirstTime, MsiMessage, MsiSink};
use hypervisor::{GuestIo, Msi, Vm};
use tracing::warn;

/// Exits, dispatched by address.
pub(crate) struct ExitDispatch {
    pub(crate) bus: Bus,
    pub(crate) ioapic: Arc<IoApic>,
}

impl GuestIo for ExitDispatch {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.bus.mmio_read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.bus.mmio_write(gpa, data);
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.bus.port_read(port, data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        self.bus.port_write(port, data);
    }

    fn eoi(&self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }
}

fn to_backend(message: MsiMessage) -> Msi {
    Msi {
        address: message.address,
        data: message.data,
    }
}

/// Interrupts on their way to the local APICs in the backend.
///
/// Holds the VM weakly: devices hold this, and the VM's memory must not outlive the machine through them.
pub(crate) struct InterruptDelivery {
    vm: Weak<dyn Vm>,
    /// The guest chooses addresses and vectors, and with them how often delivery fails.
    refused: FirstTime,
}

impl InterruptDelivery {
    pub(crate) fn new(vm: &Arc<dyn Vm>) -> Arc<Self> {
        Arc::new(Self {
            vm: Arc::downgrade(vm),
            refused: FirstTime::default(),
        })
    }
}

impl MsiSink for InterruptDelivery {
    fn signal(&self, message: MsiMessage) {
        let Some(vm) = self.vm.upgrade() else { return };
        if let Err(error) = vm.signal_msi(to_backend(message))
            && self.refused.is_now()
        {
            warn!(?message, %error, "an interrupt was not delivered; this is told once");
        }
    }
}

impl RouteObserver for InterruptDelivery {
    fn route_changed(&self, line: u32, message: Option<MsiMessage>, level: bool) {
        let Some(vm) = self.vm.upgrade() else { return };
        // The end of an edge-triggered interrupt concerns nobody, and knowing of it costs an exit.
        let route = message.filter(|_| level).map(to_backend);
        if let Err(error) = vm.set_ioapic_route(line, route)
            && self.refused.is_now()
        {
            warn!(line, %error, "an I/O APIC route was not mirrored; this is told once");
        }
    }
}
