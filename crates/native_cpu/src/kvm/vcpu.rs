//! One KVM virtual CPU.

use std::ops::Range;
use std::sync::Arc;

use hypervisor::x86_64::{CpuState, CpuStateAccess};
use hypervisor::{Error, GuestIo, Kick, StopReason, Vcpu};
use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use super::host;
use super::kick::Kicker;
use super::map_ahead::map_ahead;
use super::state::StateLayout;

/// KVM_EXIT_INTERNAL_ERROR's sub-code for an instruction the emulator does not know (api.rst, 5).
const EMULATION_ERROR: u32 = 1;

/// A vCPU and what it keeps alive.
pub(super) struct KvmVcpu {
    pub(super) fd: VcpuFd,
    /// The VM must be there as long as its CPUs.
    _vm: Arc<VmFd>,
    pub(super) layout: Arc<StateLayout>,
    kicker: Arc<Kicker>,
}

impl KvmVcpu {
    pub(super) fn new(mut fd: VcpuFd, vm: Arc<VmFd>, layout: Arc<StateLayout>) -> Self {
        let kicker = Arc::new(Kicker::new(fd.get_kvm_run()));
        Self {
            fd,
            _vm: vm,
            layout,
            kicker,
        }
    }

    /// Finishes a port exit: one upcall per element of a string instruction.
    fn finish_port_io(&mut self, io: &dyn GuestIo, port: u16, data: *mut u8, len: usize, is_in: bool) {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit was KVM_EXIT_IO, so this member of the union was written.
        let size = usize::from(unsafe { run.__bindgen_anon_1.io.size }).max(1);
        // SAFETY: `data` and `len` are the bytes in the run page that kvm-ioctls found and checked for this
        // exit; the page is mapped as long as `self.fd` lives and nobody else touches it between two runs.
        let bytes = unsafe { std::slice::from_raw_parts_mut(data, len) };
        for element in bytes.chunks_exact_mut(size) {
            if is_in {
                io.port_read(port, element);
            } else {
                io.port_write(port, element);
            }
        }
    }

    fn internal_error(&mut self) -> StopReason {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit was KVM_EXIT_INTERNAL_ERROR, so this member of the union was written.
        let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
        let what = match suberror {
            EMULATION_ERROR => "KVM met an instruction it cannot emulate".to_owned(),
            other => format!("KVM met an internal error ({other})"),
        };
        StopReason::Failed(format!("{what}; {}", self.where_it_is()))
    }

    /// Register state for a message.
    fn where_it_is(&self) -> String {
        let (Ok(regs), Ok(sregs)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return "its registers cannot be read".to_owned();
        };
        format!(
            "rip={:#x} rsp={:#x} rflags={:#x} rax={:#x} rcx={:#x} rdx={:#x} cs={:#x} cr0={:#x} cr2={:#x} \
             cr3={:#x} cr4={:#x} efer={:#x}",
            regs.rip,
            regs.rsp,
            regs.rflags,
            regs.rax,
            regs.rcx,
            regs.rdx,
            sregs.cs.selector,
            sregs.cr0,
            sregs.cr2,
            sregs.cr3,
            sregs.cr4,
            sregs.efer
        )
    }

    /// Runs until the first stop.
    fn run_until_stop(&mut self, io: &dyn GuestIo) -> Result<StopReason, Error> {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::MmioRead(gpa, data)) => io.mmio_read(gpa, data),
                Ok(VcpuExit::MmioWrite(gpa, data)) => io.mmio_write(gpa, data),
                Ok(VcpuExit::IoIn(port, data)) => {
                    let (pointer, len) = (data.as_mut_ptr(), data.len());
                    self.finish_port_io(io, port, pointer, len, true);
                }
                Ok(VcpuExit::IoOut(port, data)) => {
                    // The bytes are only read; the type is shared with `in`.
                    let (pointer, len) = (data.as_ptr().cast_mut(), data.len());
                    self.finish_port_io(io, port, pointer, len, false);
                }
                Ok(VcpuExit::IoapicEoi(vector)) => io.eoi(vector),
                Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET, _)) => {
                    return Ok(StopReason::Shutdown);
                }
                Ok(VcpuExit::Hlt) => return Ok(StopReason::Halted),
                Ok(VcpuExit::Shutdown) => return Ok(StopReason::Shutdown),
                Ok(VcpuExit::InternalError) => return Ok(self.internal_error()),
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    let place = self.where_it_is();
                    return Ok(StopReason::Failed(format!(
                        "the processor refused to enter the guest ({reason:#x}); {place}"
                    )));
                }
                Ok(other) => {
                    let what = format!("KVM stopped with an exit that was not asked for: {other:?}");
                    return Ok(StopReason::Failed(what));
                }
                // Every half-done access was finished before this answer.
                Err(error) if error.errno() == libc::EINTR => {
                    if self.kicker.take() {
                        return Ok(StopReason::Kicked);
                    }
                }
                // A processor that waited for INIT or SIPI has got it.
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) => return Err(host("run a virtual CPU")(error)),
            }
        }
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, io: &dyn GuestIo) -> Result<StopReason, Error> {
        let kicker = self.kicker.clone();
        let _inside = kicker.enter()?;
        self.run_until_stop(io)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicker.clone()
    }

    fn state(&mut self) -> Result<CpuState, Error> {
        self.read_all()
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), Error> {
        self.write_all(state)
    }

    fn map_ahead(&mut self, pages: &[Range<u64>]) -> Result<(), Error> {
        map_ahead(&self.fd, pages)
    }
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kicker.retire();
    }
}
