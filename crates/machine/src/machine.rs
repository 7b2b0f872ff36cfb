//! A machine from its making to its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chipset::ioapic::IoApic;
use chipset::pm::PowerRegisters;
use guest_memory::{Bytes, GuestAddress, GuestMemory};
use hypervisor::x86_64::{CpuidLeaf, GeneralRegisters, TableRegister};
use hypervisor::{GuestIo, Hypervisor, Vcpu, Vm, VmConfig};

use crate::boot::{EntryPoint, GDT, LinuxBoot, load_linux};
use crate::devices::Devices;
use crate::dispatch::{ExitDispatch, InterruptDelivery};
use crate::generation::Generation;
use crate::memory_image::Image;
use crate::run::{EndSignal, VcpuThreads};
use crate::wiring::{POWER, Wires, wire};
use crate::{Backends, BootImage, Error, MachineConfig, Outcome, acpi, layout};

/// A machine. Dropping it stops it.
pub struct Machine {
    pub(crate) parts: Parts,
    /// Whoever changes between running and paused holds it.
    cpus: Mutex<Cpus>,
}

/// What a machine consists of beside its CPUs.
pub(crate) struct Parts {
    pub(crate) config: MachineConfig,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) memory: GuestMemory,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) devices: Devices,
    pub(crate) generation: Generation,
    /// What RAM was mapped from, where it was.
    pub(crate) image: Option<Image>,
    io: Arc<dyn GuestIo>,
    end: EndSignal,
}

enum Cpus {
    Running(VcpuThreads),
    Paused {
        vcpus: Vec<Box<dyn Vcpu>>,
        /// It was restored, and has not run since: others may be in the same state.
        is_clone: bool,
    },
}

impl Machine {
    /// Makes a machine, loads its kernel and starts its CPUs.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn boot(config: &MachineConfig, boot: &BootImage, backends: Backends) -> Result<Self, Error> {
        let cpuid = config.cpuid(&*backends.hypervisor)?;
        let parts = Parts::new(config, backends)?;
        let entry = load(&parts.memory, config, boot)?;
        parts.generation.begin()?;
        let mut vcpus = parts.create_vcpus(&cpuid)?;
        if let Some(first) = vcpus.first_mut() {
            enter_kernel(&mut **first, &entry)?;
        }
        let threads = VcpuThreads::start(vcpus, &parts.io, &parts.end)?;
        Ok(Self {
            parts,
            cpus: Mutex::new(Cpus::Running(threads)),
        })
    }

    /// A machine in a restored state, whose devices are paused.
    pub(crate) fn restored(parts: Parts, vcpus: Vec<Box<dyn Vcpu>>) -> Self {
        Self {
            parts,
            cpus: Mutex::new(Cpus::Paused {
                vcpus,
                is_clone: true,
            }),
        }
    }

    /// Stops CPUs and devices, until [`Machine::resume`]. Without effect on a machine that is paused.
    ///
    /// # Errors
    /// [`Error::Ended`] where there is nothing to go on with.
    pub fn pause(&self) -> Result<(), Error> {
        let mut cpus = self.cpus();
        let Cpus::Running(threads) = &mut *cpus else {
            return Ok(());
        };
        let vcpus = threads.stop();
        let complete = vcpus.len() == self.parts.config.vcpus as usize;
        *cpus = Cpus::Paused {
            vcpus,
            is_clone: false,
        };
        if !complete || self.parts.end.wait(Some(Duration::ZERO)).is_some() {
            return Err(Error::Ended);
        }
        self.parts.devices.pause();
        Ok(())
    }

    /// Lets a machine that is paused go on.
    ///
    /// # Errors
    /// [`Error::Thread`]; [`Error::Entropy`] for one that was restored, which gets an identity of its own.
    pub fn resume(&self) -> Result<(), Error> {
        let mut cpus = self.cpus();
        if let Cpus::Paused { vcpus, is_clone } = &mut *cpus {
            if std::mem::take(is_clone) {
                self.parts.generation.renew()?;
            }
            let vcpus = std::mem::take(vcpus);
            self.parts.devices.resume();
            let threads = VcpuThreads::start(vcpus, &self.parts.io, &self.parts.end)?;
            *cpus = Cpus::Running(threads);
        }
        Ok(())
    }

    /// Calls `act` with the vCPUs of a machine that is paused, and stays, meanwhile.
    ///
    /// # Errors
    /// [`Error::Ended`] for one that is not paused or has lost a vCPU, what `act` says.
    pub(crate) fn with_paused_vcpus<T>(
        &self,
        act: impl FnOnce(&mut [Box<dyn Vcpu>]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match &mut *self.cpus() {
            Cpus::Paused { vcpus, .. } if vcpus.len() == self.parts.config.vcpus as usize => act(vcpus),
            _ => Err(Error::Ended),
        }
    }

    fn cpus(&self) -> MutexGuard<'_, Cpus> {
        self.cpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end, at most `timeout` where given; `None` when it goes on.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Outcome> {
        self.parts.end.wait(timeout)
    }

    /// A handle to end the machine, or to wait for its end, from another thread.
    pub fn handle(&self) -> MachineHandle {
        MachineHandle {
            end: self.parts.end.clone(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.parts.end.end(Outcome::Stopped);
        if let Cpus::Running(threads) = &mut *self.cpus() {
            drop(threads.stop());
        }
    }
}

impl Parts {
    /// Makes RAM, the VM and its devices, all as after power-on, and nothing that runs.
    pub(crate) fn new(config: &MachineConfig, backends: Backends) -> Result<Self, Error> {
        let hypervisor = backends.hypervisor.clone();
        check(config, &*hypervisor)?;
        let memory = ram(config.memory_mib)?;
        let vm = hypervisor.create_vm(&VmConfig {
            vcpus: config.vcpus,
            ioapic_lines: layout::IOAPIC_LINES,
        })?;
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
            direct_doorbells: hypervisor.capabilities().doorbells.then(|| vm.clone()),
            power: Arc::new(end.clone()),
        };
        let generation = Generation::new(&memory, &ioapic, &backends.entropy);
        let (bus, devices) = wire(&wires, &ioapic, backends)?;
        vm.map_ram(&memory, false)?;
        Ok(Self {
            config: *config,
            hypervisor,
            memory,
            vm,
            devices,
            generation,
            image: None,
            io: Arc::new(ExitDispatch { bus, ioapic }),
            end,
        })
    }

    /// Makes the vCPUs, showing `cpuid`: number 0 runs, the others wait for their start-up interrupt.
    pub(crate) fn create_vcpus(&self, cpuid: &[CpuidLeaf]) -> Result<Vec<Box<dyn Vcpu>>, Error> {
        let create = |index| Ok(self.vm.create_vcpu(index, cpuid)?);
        (0..self.config.vcpus).map(create).collect()
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
fn load(memory: &GuestMemory, config: &MachineConfig, boot: &BootImage) -> Result<EntryPoint, Error> {
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
            kernel: &boot.kernel,
            initramfs: &boot.initramfs,
            command_line: &boot.command_line,
            rsdp: tables.rsdp,
        },
    )
}

/// `__BOOT_CS` and `__BOOT_DS` of the boot protocol: selectors of [`GDT`].
const BOOT_CODE: u16 = 0x10;
const BOOT_DATA: u16 = 0x18;

/// Puts a vCPU at the kernel's entry.
fn enter_kernel(vcpu: &mut dyn Vcpu, entry: &EntryPoint) -> Result<(), Error> {
    let mut state = vcpu.state()?;
    state.enter_long_mode(entry.rip, entry.page_tables, BOOT_CODE, BOOT_DATA);
    state.system.gdtr = TableRegister {
        base: layout::BOOT_GDT,
        limit: size_of_val(&GDT) as u16 - 1,
    };
    state.general.gpr[GeneralRegisters::RSI] = entry.boot_params;
    vcpu.set_state(&state)?;
    Ok(())
}
