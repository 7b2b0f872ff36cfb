//! The DSDT: devices that are neither processors nor found on PCI.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name,
    Notify, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use device_model::MmioRange;

use super::{
    AcpiConfig, GenerationConfig, OEM_ID, OEM_REVISION, OEM_TABLE_ID, UartConfig, VirtioMmioConfig, bytes,
    cannot,
};
use crate::Error;
use crate::pci_host::PciHostConfig;
use crate::pm::PowerRegisters;

/// Integers are 64 bits wide from revision 2 on (ACPI 6.5, 19.6.29).
const REVISION: u8 = 2;
const HEADER_LEN: u32 = 36;

const MAX_UARTS: usize = 4;
const MAX_VIRTIO_MMIO: usize = 256;

/// PCI configuration ports.
const CONFIG_PORT: u16 = 0xcf8;
const CONFIG_PORTS: u8 = 8;
const UART_PORTS: u8 = 8;
const RTC_PORT: u16 = 0x70;
const RTC_PORTS: u8 = 2;

pub(super) fn dsdt(config: &AcpiConfig) -> Result<Sdt, Error> {
    if config.uarts.len() > MAX_UARTS {
        return Err(cannot(format!("{} serial ports", config.uarts.len())));
    }
    if config.virtio_mmio.len() > MAX_VIRTIO_MMIO {
        return Err(cannot(format!(
            "{} virtio-mmio devices",
            config.virtio_mmio.len()
        )));
    }
    let mut devices = Vec::new();
    if let Some(pci) = &config.pci {
        devices.extend(host_bridge(pci)?);
        devices.extend(reserved_memory(pci.ecam())?);
    }
    for (n, config) in config.uarts.iter().enumerate() {
        devices.extend(uart(n, *config));
    }
    for (n, config) in config.virtio_mmio.iter().enumerate() {
        devices.extend(virtio_mmio(n, *config)?);
    }
    if let Some(config) = config.generation {
        devices.extend(generation(config));
    }
    if config.rtc {
        devices.extend(rtc());
    }
    let mut code = soft_off();
    code.extend(Scope::raw("\\_SB_".into(), devices));
    let mut dsdt = Sdt::new(*b"DSDT", HEADER_LEN, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&code);
    Ok(dsdt)
}

/// `\_S5`: the sleep type of soft off (7.4.2.6).
fn soft_off() -> Vec<u8> {
    let package = Package::new(vec![&PowerRegisters::SOFT_OFF, &ZERO, &ZERO, &ZERO]);
    bytes(&Name::new("_S5_".into(), &package))
}

/// The root bus, a conventional one: without `_OSC` there is nothing to negotiate.
fn host_bridge(pci: &PciHostConfig) -> Result<Vec<u8>, Error> {
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let ports = ports(CONFIG_PORT, CONFIG_PORTS);
    let windows = pci.windows.iter().map(|range| {
        let (first, last) = bounds(*range)?;
        let cacheable = AddressSpaceCacheable::NotCacheable;
        Ok(AddressSpace::new_memory(cacheable, true, first, last, None))
    });
    let windows: Vec<AddressSpace<u64>> = windows.collect::<Result<_, Error>>()?;
    let mut resources: Vec<&dyn Aml> = vec![&buses, &ports];
    resources.extend(windows.iter().map(|window| window as &dyn Aml));
    Ok(device("PCI0", &EISAName::new("PNP0A03"), 0, resources))
}

/// Says that an area is taken; Linux uses ECAM only where something does.
fn reserved_memory(range: MmioRange) -> Result<Vec<u8>, Error> {
    let memory = fixed_memory(range)?;
    Ok(device("MBRD", &EISAName::new("PNP0C02"), 0, vec![&memory]))
}

fn uart(n: usize, config: UartConfig) -> Vec<u8> {
    let ports = ports(config.port, UART_PORTS);
    let interrupt = Interrupt::new(true, true, false, false, config.line);
    let name = format!("COM{}", n + 1);
    device(&name, &EISAName::new("PNP0501"), n, vec![&ports, &interrupt])
}

fn virtio_mmio(n: usize, config: VirtioMmioConfig) -> Result<Vec<u8>, Error> {
    let memory = fixed_memory(config.range)?;
    let interrupt = Interrupt::new(true, false, false, false, config.line);
    let name = format!("VR{n:02X}");
    Ok(device(&name, &"LNRO0005", n, vec![&memory, &interrupt]))
}

/// The generation's identifier, and the generic event device that tells of a new one (ACPI 6.5, 5.6.9).
fn generation(config: GenerationConfig) -> Vec<u8> {
    /// Notification value: the identifier has changed.
    const CHANGED: u8 = 0x80;
    let (low, high) = (config.gpa as u32, (config.gpa >> 32) as u32);
    let mut code = bytes(&Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"CRMB0001"),
            &Name::new("_CID".into(), &"VM_Gen_Counter"),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
        ],
    ));
    let interrupt = Interrupt::new(true, true, false, false, config.line);
    let place = Path::new("\\_SB_.VGEN");
    let notify = Notify::new(&place, &CHANGED);
    code.extend(bytes(&Device::new(
        "GED0".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt])),
            &Method::new("_EVT".into(), 1, true, vec![&notify]),
        ],
    )));
    code
}

fn rtc() -> Vec<u8> {
    let ports = ports(RTC_PORT, RTC_PORTS);
    device("RTC0", &EISAName::new("PNP0B00"), 0, vec![&ports])
}

fn device(name: &str, id: &dyn Aml, uid: usize, resources: Vec<&dyn Aml>) -> Vec<u8> {
    bytes(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), id),
            &Name::new("_UID".into(), &uid),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ))
}

fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

fn fixed_memory(range: MmioRange) -> Result<Memory32Fixed, Error> {
    let (_, last) = bounds(range)?;
    match (
        u32::try_from(range.gpa),
        u32::try_from(range.len),
        u32::try_from(last),
    ) {
        (Ok(gpa), Ok(len), Ok(_)) => Ok(Memory32Fixed::new(true, gpa, len)),
        _ => Err(cannot(format!("registers at {:#x}, past 4 GiB", range.gpa))),
    }
}

/// First and last address.
fn bounds(MmioRange { gpa, len }: MmioRange) -> Result<(u64, u64), Error> {
    let last = len.checked_sub(1).and_then(|len| gpa.checked_add(len));
    let last = last.ok_or_else(|| cannot(format!("{len:#x} bytes at {gpa:#x}")))?;
    Ok((gpa, last))
}
