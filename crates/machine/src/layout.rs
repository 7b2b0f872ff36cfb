//! Guest-physical addresses, ports and interrupt lines of the x86-64 machine.
//!
//! One guest-visible machine on every host and backend: none of these depends on the host. This file is a
//! table.

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// Below this address and down to `LOW_RAM_TOP` the BIOS data of a PC would lie; RAM ends here first.
pub const LOW_RAM_TOP: u64 = 0x9_fc00;
/// Global descriptor table that the boot CPU starts with.
pub const BOOT_GDT: u64 = 0x500;
/// `struct boot_params` (Linux boot protocol, "zero page").
pub const BOOT_PARAMS: u64 = 0x7000;
/// First of the six pages of the boot page tables.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, at most `COMMAND_LINE_MAX` bytes with its NUL.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// `COMMAND_LINE_SIZE` of Linux on x86.
pub const COMMAND_LINE_MAX: usize = 2048;
/// ACPI tables, where Linux also scans for the RSDP (ACPI 6.5, 5.2.5.1).
pub const ACPI_TABLES: u64 = 0xe_0000;
/// The 16 bytes that are others in each clone of a VM.
pub const VM_GENERATION_ID: u64 = 0xf_e000;
/// RAM begins again here.
pub const HIGH_RAM_START: u64 = MIB;

/// RAM below 4 GiB ends here at the latest; the rest lies from 4 GiB on.
pub const LOW_RAM_MAX: u64 = 0xc000_0000;
/// 32-bit window for PCI BARs.
pub const PCI_WINDOW_32: (u64, u64) = (0xc000_0000, 0x2000_0000);
/// PCI Express configuration space of bus 0 (one mebibyte a bus).
pub const PCI_ECAM: (u64, u64) = (0xe000_0000, MIB);
/// I/O APIC registers.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Local APIC registers (Intel SDM vol. 3, 11.4.1).
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Where RAM above 4 GiB begins.
pub const HIGH_RAM_4G: u64 = 4 * GIB;

/// Number of I/O APIC inputs. Few, because a kernel reads and writes each of them while it boots.
pub const IOAPIC_LINES: u32 = 8;
/// First serial port.
pub const UART_PORT: u16 = 0x3f8;
/// Its interrupt line.
pub const UART_LINE: u32 = 4;
/// The line that tells of another [`VM_GENERATION_ID`].
pub const GENERATION_LINE: u32 = 5;
/// ACPI hardware-reduced registers: sleep control, sleep status, reset.
pub const POWER_PORT: u16 = 0x600;

/// Where a guest writes lines that are noted on the host's clock.
pub const TIMING_PORT: u16 = 0x6c0;

/// The least RAM a machine may have, in MiB: Debian's cloud kernel and its initramfs need about 60.
pub const MIN_MEMORY_MIB: u64 = 80;
/// The most RAM a machine may have, in MiB.
pub const MAX_MEMORY_MIB: u64 = 512 * 1024;

/// The RAM regions `(gpa, len)` of a machine with `memory_mib` MiB.
pub fn ram_regions(memory_mib: u64) -> Vec<(u64, u64)> {
    let total = memory_mib * MIB;
    let low = total.min(LOW_RAM_MAX);
    let mut regions = vec![(0, low)];
    if total > low {
        regions.push((HIGH_RAM_4G, total - low));
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_regions_small_and_large_machine_leave_the_device_hole() {
        assert_eq!(ram_regions(256), [(0, 256 * MIB)]);
        assert_eq!(ram_regions(4096), [(0, LOW_RAM_MAX), (HIGH_RAM_4G, GIB)]);
    }
}
