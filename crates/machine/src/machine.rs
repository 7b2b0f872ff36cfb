//! A machine from its making to its end.

use std::sync::Arc;
use std::time::Duration;

use chipset::ioapic::IoApic;
use chipset::pm::PowerRegisters;
use guest_memory::{Bytes, GuestAddress, GuestMemory};
use hypervisor::x86_64::{CpuidLeaf, GeneralRegisters, TableRegister};
use hypervisor::{Hypervisor, Vcpu, Vm, VmConfig};

use crate::boot::{EntryPoint, GDT, LinuxBoot, load_linux};
use crate::dispatch::{ExitDispatch, InterruptDelivery};
use crate::run::{EndSignal, VcpuThreads};
use crate::wiring::{POWER, Wires, wire};
use crate::{Backends, Error, MachineConfig, Outcome, acpi, layout};

/// A machine that runs. Dropping it stops it.
pub struct Machine {
    vcpus: VcpuThreads,
    end: EndSignal,
    _memory: GuestMemory,
    _vm: Arc<dyn Vm>,
}

impl Machine {
    /// Makes a machine, loads its kernel and starts its CPUs.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn boot(config: &MachineConfig, backends: Backends) -> Result<Self, Error> {
        check(config, &*backends.hypervisor)?;
        let hypervisor = backends.hypervisor.clone();
        let memory = ram(config.memory_mib)?;
        let vm = hypervisor.create_vm(&VmConfig {
            vcpus: config.vcpus,
            ioapic_lines: layout::IOAPIC_LINES,
        })?;
        vm.map_ram(&memory, false)?;
        let end = EndSignal::default();
        let interrupts = InterruptDelivery::new(&vm);
        let ioapic = Arc::new(IoApic::new(
            layout::IOAPIC,
            layout::IOAPIC_LINES,
            interrupts.clone(),
        ));
        ioapic.observe_routes(interrupts.clone());
        let wires = Wires {
            memory: memory.clone(),
            interrupts,
            power: Arc::new(end.clone()),
        };
        let bus = wire(&wires, &ioapic, backends)?;
        let entry = load(&memory, config)?;
        let vcpus = create_vcpus(&*vm, &hypervisor.capabilities().cpuid, config.vcpus, &entry)?;
        let io: Arc<dyn hypervisor::GuestIo> = Arc::new(ExitDispatch { bus, ioapic });
        let vcpus = VcpuThreads::start(vcpus, &io, &end)?;
        Ok(Self {
            vcpus,
            end,
            _memory: memory,
            _vm: vm,
        })
    }

    /// Waits for the end, at most `timeout` where given; `None` when it goes on.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Outcome> {
        self.end.wait(timeout)
    }

    /// A handle to end the machine, or to wait for its end, from another thread.
    pub fn handle(&self) -> MachineHandle {
        MachineHandle {
            end: self.end.clone(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end.end(Outcome::Stopped);
        self.vcpus.stop();
    }
}

/// Another thread's view of a machine. It does not keep the machine.
#[derive(Clone)]
pub struct MachineHandle {
    end: EndSignal,
}

impl MachineHandle {
    /// Ends the machine with [`Outcome::Stopped`]. Without effect on one that has ended.
    pub fn stop(&self) {
        self.end.end(Outcome::Stopped);
    }

    /// As [`Machine::wait`].
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Outcome> {
        self.end.wait(timeout)
    }
}

fn check(config: &MachineConfig, hypervisor: &dyn Hypervisor) -> Result<(), Error> {
    if !(layout::MIN_MEMORY_MIB..=layout::MAX_MEMORY_MIB).contains(&config.memory_mib) {
        return Err(Error::MemorySize(config.memory_mib));
    }
    let most = hypervisor.capabilities().max_vcpus;
    if !(1..=most).contains(&config.vcpus) {
        return Err(Error::VcpuCount {
            asked: config.vcpus,
            backend: hypervisor.name(),
            most,
        });
    }
    Ok(())
}

fn ram(memory_mib: u64) -> Result<GuestMemory, Error> {
    let regions = layout::ram_regions(memory_mib);
    GuestMemory::anonymous(&regions).map_err(|source| Error::GuestMemory { memory_mib, source })
}

/// Fills RAM with tables, kernel and initramfs.
fn load(memory: &GuestMemory, config: &MachineConfig) -> Result<EntryPoint, Error> {
    let tables = acpi::tables(config.vcpus)?;
    for (gpa, bytes) in &tables.regions {
        memory
            .write_slice(bytes, GuestAddress(*gpa))
            .map_err(|_| Error::BootLayout)?;
    }
    // Where a kernel jumps that finds no other way to reset the machine.
    memory
        .write_slice(
            &POWER.firmware_entry_code(),
            GuestAddress(PowerRegisters::FIRMWARE_ENTRY),
        )
        .map_err(|_| Error::BootLayout)?;
    load_linux(
        memory,
        &LinuxBoot {
            kernel: &config.kernel,
            initramfs: &config.initramfs,
            command_line: &config.command_line,
            rsdp: tables.rsdp,
        },
    )
}

/// `__BOOT_CS` and `__BOOT_DS` of the boot protocol: selectors of [`GDT`].
const BOOT_CODE: u16 = 0x10;
const BOOT_DATA: u16 = 0x18;

/// CPU 0 stands at the kernel's entry; the others wait for their start-up interrupt.
fn create_vcpus(
    vm: &dyn Vm,
    cpuid: &[CpuidLeaf],
    count: u32,
    entry: &EntryPoint,
) -> Result<Vec<Box<dyn Vcpu>>, Error> {
    let mut vcpus = Vec::new();
    for index in 0..count {
        vcpus.push(vm.create_vcpu(index, cpuid)?);
    }
    if let Some(first) = vcpus.first_mut() {
        let mut state = first.state()?;
        state.enter_long_mode(entry.rip, entry.page_tables, BOOT_CODE, BOOT_DATA);
        state.system.gdtr = TableRegister {
            base: layout::BOOT_GDT,
            limit: size_of_val(&GDT) as u16 - 1,
        };
        state.general.gpr[GeneralRegisters::RSI] = entry.boot_params;
        first.set_state(&state)?;
    }
    Ok(vcpus)
}
