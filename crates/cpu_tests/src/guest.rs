//! The VM that runs batches on the CPU in software.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use guest_memory::{Bytes, GuestAddress, GuestMemory};
use hypervisor::x86_64::{CpuState, Segment, SegmentAttributes, TableRegister};
use hypervisor::{GuestIo, Kick, StopReason, Vcpu, Vm, VmConfig};
use soft_cpu::Tiers;

use crate::block::BLOCK_LEN;
use crate::case::Batch;
use crate::exceptions;
use crate::harness::Harness;
use crate::layout::{
    BLOCKS, BLOCKS_END, CODE, CODES_LEN, COUNT, CURRENT, DATA, DATA_END, PAGE, READ_ONLY, RUNTIME,
    RUNTIME_END, STACK_TOP, VARIABLES,
};
use crate::native::variables;

/// Guest-physical addresses of the kernel's memory; [`KERNEL`] on in the linear address space.
mod place {
    pub(super) const PML4: u64 = 0x1000;
    pub(super) const PDPT: u64 = 0x2000;
    pub(super) const DIRECTORY: u64 = 0x3000;
    /// One for each 2 MiB from [`crate::layout::RUNTIME`] on.
    pub(super) const TABLES: u64 = 0x1_0000;
    pub(super) const GDT: u64 = 0x4000;
    pub(super) const IDT: u64 = 0x5000;
    pub(super) const TSS: u64 = 0x6000;
    pub(super) const STUBS: u64 = 0x8000;
    pub(super) const STACK_TOP: u64 = 0x4_0000;
    /// Upper tables for [`crate::layout::BLOCKS`], which is mapped by two pages of 2 MiB.
    pub(super) const HIGH_PDPT: u64 = 0xa000;
    pub(super) const HIGH_DIRECTORY: u64 = 0xb000;
    pub(super) const BLOCKS: u64 = 0x4000_0000;
    pub(super) const END: u64 = 0x10_0000;
}
const KERNEL: u64 = 0x2000_0000;
/// User memory has the same address in both spaces.
const USER_END: u64 = 0x3b60_0000;

/// Selectors as Linux has them: a case can read CS and SS.
pub(crate) const USER_CS: u16 = 0x33;
pub(crate) const USER_SS: u16 = 0x2b;
const KERNEL_CS: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x40;
/// How long a batch may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One VM with one vCPU.
pub(crate) struct Guest {
    memory: GuestMemory,
    _vm: Arc<dyn Vm>,
    vcpu: Box<dyn Vcpu>,
    start: CpuState,
    /// From [`RUNTIME`] on: a case may have written to it.
    harness: Vec<u8>,
}

/// Any port write is the end of a batch.
struct Exit {
    kick: Arc<dyn Kick>,
    ended: Mutex<bool>,
}

impl GuestIo for Exit {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}

    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn port_write(&self, _port: u16, _data: &[u8]) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.kick.kick();
    }

    fn eoi(&self, _vector: u8) {}
}

impl Guest {
    /// # Errors
    /// What keeps a VM from being made.
    pub(crate) fn new(harness: &Harness, tiers: Tiers) -> Result<Self> {
        let memory = GuestMemory::anonymous(&[
            (0, place::END),
            (RUNTIME, USER_END - RUNTIME),
            (place::BLOCKS, BLOCKS_END - BLOCKS),
        ])?;
        let hypervisor = soft_cpu::open_with(tiers);
        let vm = hypervisor.create_vm(&VmConfig {
            vcpus: 1,
            ioapic_lines: 0,
        })?;
        vm.map_ram(&memory, false)?;
        let vcpu = vm.create_vcpu(0, &hypervisor.capabilities().cpuid)?;
        let start = start_state(harness);
        let mut code = harness.code.clone();
        code.resize((VARIABLES - RUNTIME) as usize, 0);
        code.extend(variables(harness, harness.guest_end));
        let guest = Self {
            harness: code,
            memory,
            _vm: vm,
            vcpu,
            start,
        };
        guest.write_tables()?;
        guest.write_exceptions(harness)?;
        Ok(guest)
    }

    /// Gives the blocks as the batch leaves them.
    ///
    /// # Errors
    /// A guest that stops otherwise than by its end.
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<Vec<u8>> {
        self.write(RUNTIME, &self.harness)?;
        self.write(CODE, &batch.code)?;
        self.write(place::BLOCKS, &batch.blocks)?;
        self.write(COUNT, &(batch.count() as u64).to_le_bytes())?;
        self.write(CURRENT, &BLOCKS.to_le_bytes())?;
        self.vcpu.set_state(&self.start)?;
        let exit = Exit {
            kick: self.vcpu.kicker(),
            ended: Mutex::new(false),
        };
        let watch = self.vcpu.kicker();
        let (finished, finish) = mpsc::channel::<()>();
        let vcpu = &mut self.vcpu;
        let stopped = std::thread::scope(|scope| {
            scope.spawn(move || {
                if finish.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    watch.kick();
                }
            });
            let stopped = vcpu.run(&exit);
            drop(finished);
            stopped
        })?;
        let ended = *exit.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended || stopped != StopReason::Kicked {
            let state = self.vcpu.state()?;
            bail!(
                "the guest did not come to its end: {stopped:?} at {:#x}",
                state.general.rip
            );
        }
        let mut blocks = vec![0; batch.count() * BLOCK_LEN];
        self.memory.read_slice(&mut blocks, GuestAddress(place::BLOCKS))?;
        Ok(blocks)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<()> {
        self.memory
            .write_slice(bytes, GuestAddress(gpa))
            .context("the guest's memory")
    }

    fn write_words(&self, gpa: u64, words: impl IntoIterator<Item = u64>) -> Result<()> {
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        self.write(gpa, &bytes)
    }

    fn write_tables(&self) -> Result<()> {
        /// Present, writable, user (Intel SDM vol. 3, 4.5).
        const TABLE: u64 = 7;
        const PRESENT_WRITABLE: u64 = 3;
        const LARGE: u64 = 0x80;
        const USER: u64 = 5;
        const WRITABLE: u64 = 2;
        const NO_EXECUTE: u64 = 1 << 63;
        self.write_words(place::PML4, [place::PDPT | TABLE])?;
        let index = |shift: u32| (BLOCKS >> shift & 0x1ff) * 8;
        self.write_words(place::PML4 + index(39), [place::HIGH_PDPT | TABLE])?;
        self.write_words(place::HIGH_PDPT + index(30), [place::HIGH_DIRECTORY | TABLE])?;
        let pages = (BLOCKS..BLOCKS_END).step_by(1 << 21);
        let pages = pages.map(|page| (page - BLOCKS + place::BLOCKS) | TABLE | LARGE | NO_EXECUTE);
        self.write_words(place::HIGH_DIRECTORY + index(21), pages)?;
        self.write_words(place::PDPT, [place::DIRECTORY | TABLE])?;
        let first = RUNTIME >> 21;
        let tables = (USER_END - RUNTIME) >> 21;
        ensure!(
            place::TABLES + tables * PAGE <= place::STACK_TOP - PAGE,
            "no room for page tables"
        );
        let entries = (0..tables).map(|table| (place::TABLES + table * PAGE) | TABLE);
        self.write_words(place::DIRECTORY + first * 8, entries)?;
        self.write_words(place::DIRECTORY + (KERNEL >> 21) * 8, [PRESENT_WRITABLE | LARGE])?;
        let ranges = [
            (RUNTIME, RUNTIME_END, WRITABLE),
            (CODE & !(PAGE - 1), CODE + CODES_LEN as u64, WRITABLE),
            (DATA, DATA_END, WRITABLE | NO_EXECUTE),
            (READ_ONLY, READ_ONLY + PAGE, NO_EXECUTE),
        ];
        for (from, to, rights) in ranges {
            let entry = place::TABLES + (from - RUNTIME) / PAGE * 8;
            self.write_words(
                entry,
                (from..to).step_by(PAGE as usize).map(|page| page | USER | rights),
            )?;
        }
        Ok(())
    }

    fn write_exceptions(&self, harness: &Harness) -> Result<()> {
        let tss = Segment {
            attributes: SegmentAttributes::PRESENT | SegmentAttributes::from_bits_retain(11),
            ..Segment::busy_tss(TSS_SELECTOR, KERNEL + place::TSS, 0x67)
        };
        let selectors = [
            (KERNEL_CS, Segment::flat_code64(0).descriptor()),
            (KERNEL_CS + 8, Segment::flat_data(0).descriptor()),
            (USER_SS & !3, user(Segment::flat_data(0)).descriptor()),
            (USER_CS & !3, user(Segment::flat_code64(0)).descriptor()),
            (TSS_SELECTOR, tss.descriptor()),
        ];
        for (selector, descriptor) in selectors {
            self.write_words(place::GDT + u64::from(selector), [descriptor])?;
        }
        // RSP0 stands at offset 4 of the TSS.
        self.write(place::TSS + 4, &(KERNEL + place::STACK_TOP).to_le_bytes())?;
        let stubs = exceptions::assemble(KERNEL + place::STUBS, harness)?;
        self.write(place::STUBS, &stubs.code)?;
        for (vector, address) in stubs.vectors {
            self.write_words(place::IDT + u64::from(vector) * 16, gate(address))?;
        }
        Ok(())
    }
}

/// An interrupt gate that every privilege level may use (Intel SDM vol. 3, 6.14.1).
fn gate(address: u64) -> [u64; 2] {
    const KIND: u64 = 0xee00 << 32;
    let low = address & 0xffff | u64::from(KERNEL_CS) << 16 | KIND | (address >> 16 & 0xffff) << 48;
    [low, address >> 32]
}

fn user(segment: Segment) -> Segment {
    let attributes = segment.attributes | SegmentAttributes::DPL;
    Segment {
        attributes,
        ..segment
    }
}

/// At the harness's first instruction, as a Linux program runs.
fn start_state(harness: &Harness) -> CpuState {
    /// AM, WP.
    const CR0: u64 = 1 << 18 | 1 << 16;
    /// OSXSAVE.
    const CR4: u64 = 1 << 18;
    const NO_EXECUTE_ENABLE: u64 = 1 << 11;
    const INTERRUPTS: u64 = 1 << 9;
    let mut state = CpuState::reset(0);
    state.enter_long_mode(harness.next_case, place::PML4, KERNEL_CS, USER_SS);
    state.general.gpr[4] = STACK_TOP;
    state.general.rflags |= INTERRUPTS;
    let system = &mut state.system;
    system.cs = user(Segment::flat_code64(USER_CS));
    system.ss = user(Segment::flat_data(USER_SS));
    for segment in [&mut system.ds, &mut system.es, &mut system.fs, &mut system.gs] {
        *segment = Segment {
            attributes: SegmentAttributes::UNUSABLE,
            ..Segment::default()
        };
    }
    system.tr = Segment::busy_tss(TSS_SELECTOR, KERNEL + place::TSS, 0x67);
    system.gdtr = TableRegister {
        base: KERNEL + place::GDT,
        limit: 0x4f,
    };
    system.idtr = TableRegister {
        base: KERNEL + place::IDT,
        limit: 0xfff,
    };
    system.cr0 |= CR0;
    system.cr4 |= CR4;
    system.efer |= NO_EXECUTE_ENABLE;
    state.xcr0 = 7;
    state
}
