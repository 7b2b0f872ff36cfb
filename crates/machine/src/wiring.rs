//! Which devices the machine has, and how they are wired.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chipset::i8042::I8042;
use chipset::ioapic::IoApic;
use chipset::pci_host::{PciHost, PciHostConfig};
use chipset::pm::{Power, PowerControl, PowerRegisters};
use chipset::rtc::Rtc;
use chipset::timing::Timing;
use chipset::uart::Uart;
use device_model::{Bus, Device, InterruptLine, MmioRange, MsiSink, SharedDevice};
use guest_memory::GuestMemory;
use hypervisor::Vm;
use virtio::VirtioDevice;
use virtio::console::{Console, Port, Size};
use virtio::fs::Fs;
use virtio::pci::VirtioPci;
use virtio::rng::Rng;

use crate::config::{FileSystem, SerialPort};
use crate::devices::Devices;
use crate::doorbells::DirectDoorbells;
use crate::{Backends, Error, layout};

/// Size of the kernel's console before anybody asks for another.
const CONSOLE_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// Where the power registers are.
pub(crate) const POWER: PowerRegisters = PowerRegisters {
    base: layout::POWER_PORT,
};

/// What devices are wired to.
pub(crate) struct Wires {
    pub(crate) memory: GuestMemory,
    pub(crate) interrupts: Arc<dyn MsiSink>,
    /// Where doorbells can be rung without an exit.
    pub(crate) direct_doorbells: Option<Arc<dyn Vm>>,
    pub(crate) power: Arc<dyn PowerControl>,
}

/// Puts every device of the machine on a bus.
pub(crate) fn wire(wires: &Wires, ioapic: &Arc<IoApic>, backends: Backends) -> Result<(Bus, Devices), Error> {
    let mut bus = Bus::default();
    let mut devices = Devices::default();
    bus.add_concurrent(ioapic.clone())?;
    devices.concurrent.push(ioapic.clone());
    let Backends {
        serial,
        console_ports,
        file_systems,
        entropy,
        marks,
        hypervisor: _,
    } = backends;
    let line = InterruptLine::new(ioapic.clone(), layout::UART_LINE);
    let uart = Uart::new("uart0", layout::UART_PORT, line, Arc::from(serial));
    let on_ports: [SharedDevice; 5] = [
        uart.map_err(|error| refused("uart0", &error))?,
        shared(Rtc::new(Box::new(wall_clock))),
        shared(I8042::new(wires.power.clone())),
        shared(Power::new(POWER, wires.power.clone())),
        shared(Timing::new(layout::TIMING_PORT, marks)),
    ];
    for device in on_ports {
        bus.add(&device)?;
        devices.locked.push(device);
    }
    let mut slots = PciSlots {
        host: PciHost::new(pci_config()),
        functions: Vec::new(),
    };
    slots.add(wires, "console", console(console_ports)?)?;
    slots.add(wires, "rng", Box::new(Rng::new(entropy)))?;
    for FileSystem { tag, service } in file_systems {
        let name = format!("fs-{tag}");
        let device = Fs::new(&tag, service, 1).map_err(|error| refused(&name, &error))?;
        slots.add(wires, &name, Box::new(device))?;
    }
    let host = Arc::new(slots.host);
    bus.add_concurrent(host.clone())?;
    devices.locked.extend(slots.functions);
    devices.concurrent.push(host);
    Ok((bus, devices))
}

/// Addresses of the PCI host bridge.
pub(crate) fn pci_config() -> PciHostConfig {
    let (gpa, len) = layout::PCI_WINDOW_32;
    PciHostConfig {
        ecam_gpa: layout::PCI_ECAM.0,
        windows: vec![MmioRange { gpa, len }],
    }
}

/// The PCI bus while it is filled, one device a slot in order.
struct PciSlots {
    host: PciHost,
    functions: Vec<SharedDevice>,
}

impl PciSlots {
    fn add(&mut self, wires: &Wires, name: &str, device: Box<dyn VirtioDevice>) -> Result<(), Error> {
        let mut function = VirtioPci::new(name, device, wires.memory.clone(), wires.interrupts.clone())
            .map_err(|error| refused(name, &error))?;
        if let Some(vm) = &wires.direct_doorbells {
            function.observe_doorbells(Arc::new(DirectDoorbells::new(vm)));
        }
        let function = shared(function);
        // Slot 0 has the bridge; the bus refuses what is past the last slot.
        let slot = u8::try_from(self.functions.len() + 1).unwrap_or(u8::MAX);
        self.host
            .add(slot, function.clone())
            .map_err(|error| refused(name, &error))?;
        self.functions.push(function);
        Ok(())
    }
}

fn console(ports: Vec<SerialPort>) -> Result<Box<dyn VirtioDevice>, Error> {
    let port = |(index, SerialPort { name, stream })| Port {
        name,
        stream,
        console: index == 0,
    };
    let ports = ports.into_iter().enumerate().map(port).collect();
    Ok(Box::new(
        Console::new(ports, CONSOLE_SIZE).map_err(|error| refused("console", &error))?,
    ))
}

fn shared(device: impl Device + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

fn refused(device: &str, reason: &dyn std::error::Error) -> Error {
    Error::Device {
        device: device.to_owned(),
        reason: reason.to_string(),
    }
}

/// The host's wall clock; a clock before 1970 shows 1970.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
