//! ACPI tables of a hardware-reduced machine (ACPI 6.5).
//!
//! They promise only what is there, so that a guest probes for nothing else: no PIC, PIT, PM timer, 8042 or
//! VGA, and an RTC only where asked for. Linux then neither reads ports nobody answers nor waits for ticks
//! nobody gives; it needs kvmclock or a known TSC frequency, and a local APIC with a TSC deadline timer.

mod dsdt;
mod static_tables;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use device_model::MmioRange;

use crate::Error;
use crate::pci_host::PciHostConfig;
use crate::pm::PowerRegisters;

const OEM_ID: [u8; 6] = *b"CRUMBL";
const OEM_TABLE_ID: [u8; 8] = *b"CRACKER ";
const OEM_REVISION: u32 = 1;

/// Tables begin at multiples of this.
const ALIGNMENT: usize = 16;

/// The machine, as the tables describe it.
#[derive(Clone, Debug)]
pub struct AcpiConfig {
    /// Where the tables go: a multiple of 16; the RSDP comes first.
    pub gpa: u64,
    /// Most bytes they may take.
    pub max_len: usize,
    /// APIC ids of the processors, boot processor first.
    pub apic_ids: Vec<u32>,
    /// Address of the local APICs.
    pub local_apic_gpa: u32,
    /// Address of the I/O APIC, whose lines are global interrupts from 0.
    pub ioapic_gpa: u32,
    /// The PCI host bridge.
    pub pci: Option<PciHostConfig>,
    /// Power-off and reset.
    pub power: PowerRegisters,
    /// Serial ports, at most 4.
    pub uarts: Vec<UartConfig>,
    /// virtio devices that sit on no bus, at most 256.
    pub virtio_mmio: Vec<VirtioMmioConfig>,
    /// Where a guest learns that it was cloned or went back in time.
    pub generation: Option<GenerationConfig>,
    /// Whether drivers shall find the [RTC](crate::rtc). Early boot code without a paravirtual clock reads its
    /// ports in any case, so the device belongs on the bus even where this says no.
    pub rtc: bool,
}

/// A serial port with an edge-triggered line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartConfig {
    /// First of eight ports.
    pub port: u16,
    /// Line of the I/O APIC.
    pub line: u32,
}

/// The identifier of the VM's generation ("Virtual Machine Generation ID", Microsoft 2012): 16 bytes in RAM, which are
/// others each time the VM goes on from a state that it, or another, may go on from as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationConfig {
    /// Where it lies: a multiple of 8, in RAM that the guest does not take for its own.
    pub gpa: u64,
    /// Edge-triggered line of the I/O APIC that tells of a new one.
    pub line: u32,
}

/// A virtio-mmio device with a level-triggered line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmioConfig {
    /// Its registers, below 4 GiB.
    pub range: MmioRange,
    /// Line of the I/O APIC.
    pub line: u32,
}

/// Tables to be copied into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// Address of the RSDP.
    pub rsdp: u64,
    /// What goes where.
    pub regions: Vec<(u64, Vec<u8>)>,
}

/// Makes the tables.
///
/// # Errors
/// [`Error::Acpi`] where the tables cannot say what `config` does, or have no room for it.
pub fn build(config: &AcpiConfig) -> Result<AcpiTables, Error> {
    let mut area = Area::new(config)?;
    let dsdt = area.place(dsdt::dsdt(config)?.as_slice());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(area.place(&bytes(&static_tables::fadt(config, dsdt))));
    xsdt.add_entry(area.place(static_tables::madt(config).as_slice()));
    if let Some(pci) = &config.pci {
        xsdt.add_entry(area.place(&bytes(&static_tables::mcfg(pci))));
    }
    let xsdt = area.place(&bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
    area.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    if area.bytes.len() > config.max_len {
        return Err(cannot(format!("this machine in {} bytes", config.max_len)));
    }
    Ok(AcpiTables {
        rsdp: config.gpa,
        regions: vec![(config.gpa, area.bytes)],
    })
}

/// The tables as they lie in guest memory.
struct Area {
    gpa: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Leaves room for the RSDP.
    fn new(config: &AcpiConfig) -> Result<Self, Error> {
        let fits = config.gpa.is_multiple_of(ALIGNMENT as u64)
            && config.gpa.checked_add(config.max_len as u64).is_some();
        if !fits {
            return Err(cannot(format!("tables at {:#x}", config.gpa)));
        }
        if config.apic_ids.is_empty() {
            return Err(cannot("a machine without processors".to_owned()));
        }
        Ok(Self {
            gpa: config.gpa,
            bytes: vec![0; Rsdp::len()],
        })
    }

    /// Appends a table; returns its address.
    fn place(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let gpa = self.gpa + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        gpa
    }
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

fn cannot(what: String) -> Error {
    Error::Acpi { what }
}
