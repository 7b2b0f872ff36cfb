//! Boots a kernel with an initramfs and prints its console: `boot_kernel KERNEL INITRAMFS [WORDS…]`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use device_backends::{Entropy, byte_pipe};
use machine::{Backends, CommandLine, Machine, MachineConfig, SerialPort, unpack_kernel};

struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        File::open("/dev/urandom")?.read_exact(bytes)
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments
        .next()
        .context("usage: boot_kernel KERNEL INITRAMFS [WORDS…]")?;
    let initramfs = arguments
        .next()
        .context("usage: boot_kernel KERNEL INITRAMFS [WORDS…]")?;
    let elf = tempfile::tempfile()?;
    (&elf).write_all(&unpack_kernel(&fs::read(kernel)?)?)?;
    let mut command_line = CommandLine::standard();
    arguments.for_each(|word| command_line.push(&word));
    let (serial, mut serial_output) = byte_pipe(1 << 16);
    let (console, mut console_output) = byte_pipe(1 << 16);
    let config = MachineConfig {
        memory_mib: 256,
        vcpus: 1,
        kernel: elf,
        initramfs: fs::read(initramfs)?,
        command_line,
    };
    let backends = Backends {
        hypervisor: native_cpu::open()?,
        serial: Box::new(serial),
        console_ports: vec![SerialPort {
            name: "console".to_owned(),
            stream: Box::new(console),
        }],
        file_systems: Vec::new(),
        entropy: Arc::new(HostEntropy),
    };
    std::thread::spawn(move || io::copy(&mut serial_output, &mut io::stdout()));
    std::thread::spawn(move || io::copy(&mut console_output, &mut io::stdout()));
    let machine = Machine::boot(&config, backends)?;
    let outcome = machine.wait(Some(Duration::from_secs(120)));
    std::thread::sleep(Duration::from_millis(50));
    eprintln!("the machine ended: {outcome:?}");
    Ok(())
}
