//! The machine as its ACPI tables describe it.

use chipset::acpi::{AcpiConfig, AcpiTables, GenerationConfig, UartConfig, build};

use crate::wiring::{POWER, pci_config};
use crate::{Error, layout};

/// Makes the tables of a machine with `vcpus` CPUs.
pub(crate) fn tables(vcpus: u32) -> Result<AcpiTables, Error> {
    let config = AcpiConfig {
        gpa: layout::ACPI_TABLES,
        max_len: (layout::VM_GENERATION_ID - layout::ACPI_TABLES) as usize,
        apic_ids: (0..vcpus).collect(),
        local_apic_gpa: layout::LOCAL_APIC as u32,
        ioapic_gpa: layout::IOAPIC as u32,
        pci: Some(pci_config()),
        power: POWER,
        uarts: vec![UartConfig {
            port: layout::UART_PORT,
            line: layout::UART_LINE,
        }],
        virtio_mmio: Vec::new(),
        generation: Some(GenerationConfig {
            gpa: layout::VM_GENERATION_ID,
            line: layout::GENERATION_LINE,
        }),
        rtc: false,
    };
    build(&config).map_err(|error| Error::Device {
        device: "ACPI tables".to_owned(),
        reason: error.to_string(),
    })
}
