//! Processors and memory for this crate's unit tests.

pub(crate) mod integer;
pub(crate) mod system;
pub(crate) mod vector;
pub(crate) mod x87;

use std::sync::Arc;

use hypervisor::GuestIo;
use hypervisor::x86_64::{Activity, CpuidLeaf, Segment};

use crate::apic::{Apic, Interconnect};
use crate::attention::Attention;
use crate::cpu::{Cpu, SegReg, TscClock, TscEpoch, control};

/// A machine with no devices.
pub(crate) struct NoDevices;

impl GuestIo for NoDevices {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, _port: u16, _data: &[u8]) {}
    fn eoi(&self, _vector: u8) {}
}

/// A processor in flat protected mode without paging, with x87, SSE and AVX state enabled, that starts at `rip`.
pub(crate) fn flat_cpu(leaves: Vec<CpuidLeaf>, rip: u64) -> Box<Cpu> {
    let tsc = Arc::new(TscClock::new(TscEpoch::now()));
    let nobody = Arc::downgrade(&Arc::<Interconnect>::default());
    let apic = Apic::new(0, tsc, Arc::new(Attention::default()), nobody);
    let mut cpu = Cpu::new(apic, leaves);
    cpu.segments = [Segment::flat_data(0x10); 6];
    cpu.cr0 = control::CR0_PE | control::CR0_NE | control::CR0_ET;
    cpu.cr4 = control::CR4_OSFXSR | control::CR4_OSXMMEXCPT | control::CR4_OSXSAVE;
    cpu.xcr0 = 7;
    cpu.activity = Activity::Running;
    (cpu.rip, cpu.rflags) = (rip, 2);
    cpu.gpr = [0; 16];
    cpu.set_segment(SegReg::Cs, Segment::flat_code32(8));
    cpu
}

/// The same in 64-bit mode.
pub(crate) fn flat_cpu64(leaves: Vec<CpuidLeaf>, rip: u64) -> Box<Cpu> {
    let mut cpu = flat_cpu(leaves, rip);
    cpu.efer = control::EFER_LMA | control::EFER_LME;
    cpu.set_segment(SegReg::Cs, Segment::flat_code64(8));
    cpu
}
