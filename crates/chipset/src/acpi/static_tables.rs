//! The tables without byte code: FADT, MADT and MCFG.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

use super::{AcpiConfig, OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::pci_host::PciHostConfig;
use crate::pm::PowerRegisters;

/// IA-PC boot architecture flags (ACPI 6.5, 5.2.9.3). All others are clear, among them "8042 present".
const BOOT_NO_VGA: u16 = 1 << 2;
const BOOT_NO_ASPM: u16 = 1 << 4;
const BOOT_NO_CMOS_RTC: u16 = 1 << 5;

/// MADT of ACPI 6.5 (5.2.12): header, local APIC address and flags. Flag PCAT_COMPAT stays clear: there are
/// no 8259s.
const MADT_REVISION: u8 = 7;
const MADT_LEN: u32 = 44;
const MADT_LOCAL_APIC_GPA: usize = 36;
/// 5.2.12.2.
const MADT_LOCAL_APIC: [u8; 2] = [0, 8];
/// 5.2.12.3.
const MADT_IOAPIC: [u8; 2] = [1, 12];
/// 5.2.12.12.
const MADT_LOCAL_X2APIC: [u8; 2] = [9, 16];
const MADT_ENABLED: u32 = 1;
/// APIC ids from here on need an x2APIC entry.
const FIRST_X2APIC_ID: u32 = 255;

fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

pub(super) fn fadt(config: &AcpiConfig, dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    let no_rtc = if config.rtc { 0 } else { BOOT_NO_CMOS_RTC };
    fadt.iapc_boot_arch = (BOOT_NO_VGA | BOOT_NO_ASPM | no_rtc).into();
    fadt.century = if config.rtc { crate::rtc::CENTURY_INDEX } else { 0 };
    fadt.reset_reg = port(config.power.reset());
    fadt.reset_value = PowerRegisters::RESET_VALUE;
    fadt.sleep_control_reg = port(config.power.sleep_control());
    fadt.sleep_status_reg = port(config.power.sleep_status());
    fadt.finalize()
}

pub(super) fn madt(config: &AcpiConfig) -> Sdt {
    let mut madt = Sdt::new(
        *b"APIC",
        MADT_LEN,
        MADT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    madt.write_u32(MADT_LOCAL_APIC_GPA, config.local_apic_gpa);
    let mut entries = Vec::new();
    for (uid, &apic_id) in (0u32..).zip(&config.apic_ids) {
        local_apic(&mut entries, uid, apic_id);
    }
    entries.extend(MADT_IOAPIC);
    entries.extend([0, 0]);
    entries.extend(config.ioapic_gpa.to_le_bytes());
    entries.extend(0u32.to_le_bytes());
    madt.append_slice(&entries);
    madt
}

fn local_apic(entries: &mut Vec<u8>, uid: u32, apic_id: u32) {
    match (u8::try_from(uid), u8::try_from(apic_id)) {
        (Ok(uid), Ok(id)) if apic_id < FIRST_X2APIC_ID => {
            entries.extend(MADT_LOCAL_APIC);
            entries.extend([uid, id]);
            entries.extend(MADT_ENABLED.to_le_bytes());
        }
        _ => {
            entries.extend(MADT_LOCAL_X2APIC);
            entries.extend([0, 0]);
            entries.extend(apic_id.to_le_bytes());
            entries.extend(MADT_ENABLED.to_le_bytes());
            entries.extend(uid.to_le_bytes());
        }
    }
}

pub(super) fn mcfg(pci: &PciHostConfig) -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(pci.ecam_gpa, 0, 0, 0);
    mcfg
}
