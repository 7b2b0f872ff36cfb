//! Hypervisor, virtual machine, virtual CPU.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use guest_memory::GuestMemory;

use crate::x86_64::{CpuState, CpuidLeaf};
use crate::{Error, GuestIo, Msi};

/// The instruction set a guest sees. A value, never a `cfg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestArch {
    /// AMD64 / Intel 64.
    X86_64,
    /// AArch64.
    Aarch64,
}

/// What one backend on this host can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The guests it runs.
    pub arch: GuestArch,
    /// The most vCPUs of one VM.
    pub max_vcpus: u32,
    /// All CPUID leaves it can show a guest; those of a CPU profile must be among these.
    pub cpuid: Vec<CpuidLeaf>,
    /// Frequency of the guest's time-stamp counter in kHz, where the backend knows it.
    pub tsc_khz: Option<u32>,
    /// Whether [`Vm::register_doorbell`] saves an exit to this process.
    pub doorbells: bool,
    /// Whether [`Vm::take_dirty_pages`] works.
    pub dirty_log: bool,
    /// Whether [`Vcpu::map_ahead`] works.
    pub maps_ahead: bool,
}

/// What a VM is made with.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// Number of vCPUs that will be created, 1 or more.
    pub vcpus: u32,
    /// Number of I/O APIC inputs that are mirrored by [`Vm::set_ioapic_route`].
    pub ioapic_lines: u32,
}

/// One way of running guests: KVM, Hypervisor.framework, WHP, software.
pub trait Hypervisor: Send + Sync {
    /// Short name, as `--backend` takes it.
    fn name(&self) -> &'static str;
    /// What it can do here.
    fn capabilities(&self) -> &Capabilities;
    /// Makes an empty VM with local APICs in the backend and nothing else.
    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, Error>;
}

/// One virtual machine: memory, interrupts, CPUs.
///
/// Dropping the last handle, after all its vCPUs are dropped, frees everything.
pub trait Vm: Send + Sync {
    /// Makes all of `memory` visible to the guest at its addresses and keeps it mapped as long as the VM
    /// lives.
    ///
    /// # Errors
    /// [`Error::Overlap`] with what is mapped already.
    fn map_ram(&self, memory: &GuestMemory, log_dirty: bool) -> Result<(), Error>;

    /// Makes vCPU `index` (its APIC id), in its state after reset, showing `cpuid`.
    fn create_vcpu(&self, index: u32, cpuid: &[CpuidLeaf]) -> Result<Box<dyn Vcpu>, Error>;

    /// Delivers one message-signalled interrupt; edge.
    fn signal_msi(&self, msi: Msi) -> Result<(), Error>;

    /// Tells the backend what I/O APIC input `line` sends and whether it is level-triggered, so that the end
    /// of such an interrupt comes back as [`GuestIo::eoi`]. `None` takes the route away.
    fn set_ioapic_route(&self, line: u32, route: Option<Msi>) -> Result<(), Error>;

    /// Asks that stores to one address ring `doorbell` instead of calling [`GuestIo`]. The registration ends
    /// with the guard.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where [`Capabilities::doorbells`] is false.
    fn register_doorbell(
        &self,
        address: DoorbellAddress,
        doorbell: Arc<dyn Doorbell>,
    ) -> Result<Box<dyn DoorbellGuard>, Error>;

    /// What the backend's paravirtual clock (KVM's, in [`Capabilities::cpuid`]) shows the guest. It runs on.
    fn clock(&self) -> Result<Duration, Error>;

    /// Sets that clock, after the state of every vCPU and before any of them runs.
    fn set_clock(&self, clock: Duration) -> Result<(), Error>;

    /// The pages written since the last call, as guest-physical addresses of 4 KiB pages.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where [`Capabilities::dirty_log`] is false or logging is off.
    fn take_dirty_pages(&self) -> Result<Vec<u64>, Error>;
}

/// Where a doorbell hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellAddress {
    /// Guest-physical address of the store.
    pub gpa: u64,
    /// Width of the store in bytes: 2 or 4.
    pub width: u8,
    /// Only stores of this value count, where set.
    pub value: Option<u32>,
}

/// Something with a file descriptor or handle that a backend can signal without help; [`Doorbell::ring`]
/// is for backends that do it in this process.
pub trait Doorbell: Send + Sync {
    /// Rings it.
    fn ring(&self);
    /// The host's event object behind it, as the host numbers them (a file descriptor, a `HANDLE`), open as
    /// long as this lives; `None` where ringing needs this process.
    fn event_handle(&self) -> Option<usize>;
}

/// Keeps a doorbell registered.
pub trait DoorbellGuard: Send + Sync {}

/// What became of code that was kept from an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptCode {
    /// The backend makes no code that could be kept.
    NotWanted,
    /// It is executed.
    TakenUp,
    /// It was of no use, and the backend gathers what it makes.
    Gathering,
}

/// One virtual CPU. Belongs to one thread at a time.
pub trait Vcpu: Send {
    /// Runs guest code until something stops it, finishing every exit through `io`.
    fn run(&mut self, io: &dyn GuestIo) -> Result<StopReason, Error>;

    /// A handle that makes [`Vcpu::run`] return from any thread. A kick that comes while `run` is not
    /// running makes the next `run` return at once.
    fn kicker(&self) -> Arc<dyn Kick>;

    /// Reads the whole architectural state.
    fn state(&mut self) -> Result<CpuState, Error>;

    /// Sets the whole architectural state.
    fn set_state(&mut self, state: &CpuState) -> Result<(), Error>;

    /// Takes up what [`Vcpu::code_to_keep`] gave after an earlier run from the same state, before the first run and after
    /// [`Vcpu::set_state`]; no vCPU of the VM runs. Where it was of no use nothing has changed, but a backend that has use
    /// for such code gathers it from now on; for that there need be no bytes at all.
    ///
    /// **What is in it is executed on the host**, and cannot be checked: bytes that anybody but this user could have
    /// written must not be offered. They need not be whole, of this build or of this host.
    fn take_up_code(&mut self, _kept: &mut (dyn Read + Send)) -> KeptCode {
        KeptCode::NotWanted
    }

    /// Code that a backend has made from the guest's kernel, for a later [`Vcpu::take_up_code`]. `None` where nothing was
    /// gathered. No vCPU of the VM runs.
    fn code_to_keep(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Enters `pages`, ranges of guest-physical addresses in whole pages, into the tables that the backend walks for the
    /// guest, which would otherwise be one exit for each page's first use. After [`Vcpu::set_state`]; pages that the host
    /// has only to read so far may still be one exit at their first store.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where [`Capabilities::maps_ahead`] is false; a range that is no RAM. Some may be entered then:
    /// that harms nothing.
    fn map_ahead(&mut self, _pages: &[Range<u64>]) -> Result<(), Error> {
        Err(Error::Unsupported("way to map pages ahead"))
    }

    /// How long this vCPU has been executing or waiting in `HLT`, where the backend counts it.
    fn run_time(&self) -> Option<Duration> {
        None
    }
}

/// Interrupts [`Vcpu::run`].
pub trait Kick: Send + Sync {
    /// Makes `run` return [`StopReason::Kicked`].
    fn kick(&self);
}

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// By [`Kick::kick`].
    Kicked,
    /// The guest halted with nothing that could wake it in the backend (no local APIC in use).
    Halted,
    /// Triple fault: the CPU shut down.
    Shutdown,
    /// The backend could not go on; the sentence says what it met, with register state where known.
    Failed(String),
}
