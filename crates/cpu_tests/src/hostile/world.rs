//! The VM that hostile programs run in.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use guest_memory::{Bytes, GuestAddress, GuestMemory};
use hypervisor::x86_64::CpuState;
use hypervisor::{GuestIo, Kick, StopReason, Vcpu, Vm, VmConfig};
use soft_cpu::Tiers;

use super::place::{END_PORT, RAM};

/// All that can be seen of a program when it is over.
pub(super) struct Outcome {
    /// It came to its end, and was not stopped because it went on too long.
    pub(super) ended: bool,
    pub(super) stopped: StopReason,
    pub(super) state: CpuState,
    /// Each stretch of RAM.
    pub(super) ram: Vec<Vec<u8>>,
    /// What devices were asked and told.
    pub(super) accesses: Vec<Access>,
}

/// An access that went to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) what: &'static str,
    pub(super) at: u64,
    pub(super) data: Vec<u8>,
}

/// One VM with one vCPU, of the same little RAM each time.
pub(super) struct World {
    memory: GuestMemory,
    _vm: Arc<dyn Vm>,
    vcpu: Box<dyn Vcpu>,
}

/// Devices that answer with what follows from the address, and remember everything.
struct Devices {
    kick: Arc<dyn Kick>,
    seen: Mutex<(bool, Vec<Access>)>,
}

impl Devices {
    fn note(&self, what: &'static str, at: u64, data: &[u8]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A program that goes round in circles has no use for more.
        if seen.1.len() < 1 << 16 {
            seen.1.push(Access {
                what,
                at,
                data: data.to_vec(),
            });
        }
    }
}

fn answer(at: u64, data: &mut [u8]) {
    for (offset, byte) in data.iter_mut().enumerate() {
        *byte = (at.wrapping_add(offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

impl GuestIo for Devices {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        answer(gpa, data);
        self.note("mmio read", gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.note("mmio write", gpa, data);
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        answer(port.into(), data);
        self.note("port read", port.into(), data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        if port == END_PORT {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
            self.kick.kick();
            return;
        }
        self.note("port write", port.into(), data);
    }

    fn eoi(&self, _vector: u8) {}
}

impl World {
    pub(super) fn new(tiers: Tiers) -> Result<Self> {
        let memory = GuestMemory::anonymous(&RAM)?;
        let hypervisor = soft_cpu::open_with(tiers);
        let vm = hypervisor.create_vm(&VmConfig {
            vcpus: 1,
            ioapic_lines: 0,
        })?;
        vm.map_ram(&memory, false)?;
        let vcpu = vm.create_vcpu(0, &hypervisor.capabilities().cpuid)?;
        Ok(Self {
            memory,
            _vm: vm,
            vcpu,
        })
    }

    /// Runs from `state` on with `ram`, for at most so long.
    pub(super) fn run(&mut self, state: &CpuState, ram: &[Vec<u8>], patience: Duration) -> Result<Outcome> {
        for (&(gpa, _), bytes) in RAM.iter().zip(ram) {
            self.memory
                .write_slice(bytes, GuestAddress(gpa))
                .context("the guest's memory")?;
        }
        self.vcpu.set_state(state)?;
        let devices = Devices {
            kick: self.vcpu.kicker(),
            seen: Mutex::default(),
        };
        let watch = self.vcpu.kicker();
        let (finished, finish) = mpsc::channel::<()>();
        let vcpu = &mut self.vcpu;
        let stopped = std::thread::scope(|scope| {
            scope.spawn(move || {
                if finish.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                    watch.kick();
                }
            });
            let stopped = vcpu.run(&devices);
            drop(finished);
            stopped
        })?;
        let (ended, accesses) = devices.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut after = Vec::with_capacity(RAM.len());
        for (gpa, len) in RAM {
            let mut bytes = vec![0; len as usize];
            self.memory.read_slice(&mut bytes, GuestAddress(gpa))?;
            after.push(bytes);
        }
        Ok(Outcome {
            ended: ended || stopped != StopReason::Kicked,
            stopped,
            state: self.vcpu.state()?,
            ram: after,
            accesses,
        })
    }
}
