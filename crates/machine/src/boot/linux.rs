//! The 64-bit Linux boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use std::fs::File;

use guest_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};

use super::elf::ElfKernel;
use crate::layout;
use crate::{CommandLine, Error};

/// Types of e820 entries (arch/x86/include/uapi/asm/e820.h).
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// `type_of_loader` for a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// The boot protocol's magic numbers, as a boot sector and setup header carry them.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `LOADED_HIGH`: the protected-mode code is at 1 MiB or above.
const LOADED_HIGH: u8 = 1;

/// Page-table entry bits (Intel SDM vol. 3, 4.5): present and writable; page size.
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x80;

/// What is loaded.
pub(crate) struct LinuxBoot<'a> {
    /// The ELF kernel.
    pub(crate) kernel: &'a File,
    /// The initial RAM file system, a cpio archive.
    pub(crate) initramfs: &'a [u8],
    /// The command line.
    pub(crate) command_line: &'a CommandLine,
    /// Address of the ACPI RSDP.
    pub(crate) rsdp: u64,
}

/// Where the boot CPU begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPoint {
    /// First instruction.
    pub(crate) rip: u64,
    /// Goes into RSI.
    pub(crate) boot_params: u64,
    /// Goes into CR3.
    pub(crate) page_tables: u64,
}

/// Puts kernel, initramfs, command line, boot parameters, page tables and GDT into RAM.
pub(crate) fn load_linux(memory: &GuestMemory, boot: &LinuxBoot<'_>) -> Result<EntryPoint, Error> {
    let kernel = ElfKernel::parse(boot.kernel)?;
    let initramfs = place_initramfs(memory, boot.initramfs, kernel.end)?;
    kernel.load(memory, boot.kernel)?;
    write(memory, layout::COMMAND_LINE, &boot.command_line.to_bytes()?)?;
    let params = boot_parameters(memory, boot, initramfs);
    memory
        .write_obj(params, GuestAddress(layout::BOOT_PARAMS))
        .map_err(|_| Error::BootLayout)?;
    write_page_tables(memory)?;
    for (index, entry) in GDT.iter().enumerate() {
        write(memory, layout::BOOT_GDT + 8 * index as u64, &entry.to_le_bytes())?;
    }
    Ok(EntryPoint {
        rip: kernel.entry,
        boot_params: layout::BOOT_PARAMS,
        page_tables: layout::BOOT_PAGE_TABLES,
    })
}

/// The protocol wants `__BOOT_CS` = 0x10 and `__BOOT_DS` = 0x18: null, null, 64-bit code, data.
pub(crate) const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

fn write(memory: &GuestMemory, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
    memory
        .write_slice(bytes, GuestAddress(gpa))
        .map_err(|_| Error::BootLayout)
}

/// Puts the initramfs at the top of low RAM, away from where the kernel unpacks itself.
fn place_initramfs(memory: &GuestMemory, initramfs: &[u8], kernel_end: u64) -> Result<(u64, u64), Error> {
    let low_end = memory
        .regions()
        .first()
        .map_or(0, |region| region.gpa + region.len);
    let len = initramfs.len() as u64;
    let start = low_end.saturating_sub(len) & !(PAGE_SIZE - 1);
    if start < kernel_end {
        return Err(Error::MemoryTooSmall {
            memory_mib: memory.total_len() / layout::MIB,
            needed_mib: (kernel_end + len).div_ceil(layout::MIB) + 32,
        });
    }
    write(memory, start, initramfs)?;
    Ok((start, len))
}

fn boot_parameters(memory: &GuestMemory, boot: &LinuxBoot<'_>, initramfs: (u64, u64)) -> boot_params {
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = layout::COMMAND_LINE_MAX as u32 - 1;
    params.hdr.kernel_alignment = 0x20_0000;
    params.hdr.ramdisk_image = initramfs.0 as u32;
    params.hdr.ramdisk_size = initramfs.1 as u32;
    params.acpi_rsdp_addr = boot.rsdp;
    let map = memory_map(memory);
    for (slot, entry) in params.e820_table.iter_mut().zip(&map) {
        *slot = *entry;
    }
    params.e820_entries = map.len() as u8;
    params
}

fn memory_map(memory: &GuestMemory) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, kind: u32| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type: kind,
    };
    let mut map = vec![
        entry(0, layout::LOW_RAM_TOP, E820_RAM),
        entry(layout::LOW_RAM_TOP, layout::HIGH_RAM_START, E820_RESERVED),
    ];
    for region in memory.regions() {
        let end = region.gpa + region.len;
        map.push(entry(region.gpa.max(layout::HIGH_RAM_START), end, E820_RAM));
    }
    let (ecam, ecam_len) = layout::PCI_ECAM;
    map.push(entry(ecam, ecam + ecam_len, E820_RESERVED));
    map.sort_by_key(|entry| entry.addr);
    map
}

/// Maps the first 4 GiB onto themselves with 2 MiB pages: one PML4, one PDPT, four page directories.
fn write_page_tables(memory: &GuestMemory) -> Result<(), Error> {
    let pml4 = layout::BOOT_PAGE_TABLES;
    let pdpt = pml4 + PAGE_SIZE;
    write(memory, pml4, &(pdpt | PRESENT_WRITABLE).to_le_bytes())?;
    for directory in 0..4 {
        let page = pdpt + (1 + directory) * PAGE_SIZE;
        write(
            memory,
            pdpt + 8 * directory,
            &(page | PRESENT_WRITABLE).to_le_bytes(),
        )?;
        let entries: Vec<u8> = (0..512)
            .map(|entry| ((directory << 30) + (entry << 21)) | PRESENT_WRITABLE | LARGE_PAGE)
            .flat_map(u64::to_le_bytes)
            .collect();
        write(memory, page, &entries)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_map_large_machine_has_no_overlap_and_all_ram() {
        let memory = GuestMemory::anonymous(&layout::ram_regions(4096)).unwrap();
        let map = memory_map(&memory);
        let ram: u64 = map
            .iter()
            .filter(|entry| entry.r#type == E820_RAM)
            .map(|entry| entry.size)
            .sum();
        assert_eq!(
            ram,
            4096 * layout::MIB - (layout::HIGH_RAM_START - layout::LOW_RAM_TOP)
        );
        for pair in map.windows(2) {
            let (addr, size, next) = (pair[0].addr, pair[0].size, pair[1].addr);
            assert!(addr + size <= next);
        }
    }

    #[test]
    fn place_initramfs_that_does_not_fit_names_the_memory_needed() {
        let memory = GuestMemory::anonymous(&[(0, 4 * layout::MIB)]).unwrap();
        let error = place_initramfs(&memory, &vec![1; 3 << 20], 2 << 20).unwrap_err();
        assert!(matches!(
            error,
            Error::MemoryTooSmall {
                memory_mib: 4,
                needed_mib: 37
            }
        ));
    }

    #[test]
    fn page_tables_map_the_last_page_below_4_gib_onto_itself() {
        let memory = GuestMemory::anonymous(&[(0, layout::MIB)]).unwrap();
        write_page_tables(&memory).unwrap();
        let read = |gpa| memory.read_obj::<u64>(GuestAddress(gpa)).unwrap();
        let pdpt = read(layout::BOOT_PAGE_TABLES) & !0xfff;
        let directory = read(pdpt + 3 * 8) & !0xfff;
        assert_eq!(read(directory + 511 * 8) & !0xfff, 0xffe0_0000);
    }
}
