//! A guest to run one program in.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use guest_memory::{Bytes, GuestAddress, GuestMemory};

use super::programs::{self, assemble};
use super::recorder::{Access, Reaction, Recorder};
use crate::x86_64::{CpuState, CpuidLeaf, Segment, TableRegister};
use crate::{Hypervisor, Kick, StopReason, Vcpu, Vm, VmConfig};

/// A store to this port ends a program.
pub(super) const DONE_PORT: u16 = 0xf4;
/// Descriptor table: null, 64-bit code, data, 32-bit code.
const GDT: u64 = 0x1000;
/// Selectors in it.
pub(super) const CODE64: u16 = 0x08;
pub(super) const DATA: u16 = 0x10;
pub(super) const CODE32: u16 = 0x18;
/// Interrupt descriptor table of 64-bit mode: 256 gates.
const IDT: u64 = 0x2000;
/// One stub for each exception, 16 bytes apart, and what they jump to.
const STUBS: u64 = 0x4000;
const EXCEPTION_REPORT: u64 = 0x4800;
/// [`programs::INTERRUPT_HANDLER`].
const INTERRUPT_HANDLER: u64 = 0x5000;
/// The vector it is installed at.
pub(super) const VECTOR: u8 = 0x40;
/// Stack pointer at the start.
const STACK_TOP: u64 = 0x8000;
/// Page tables: one PML4, a PDPT for each half, four page directories.
const PML4: u64 = 0x9000;
const PDPT_LOW: u64 = 0xa000;
const PDPT_HIGH: u64 = 0xb000;
const DIRECTORIES: u64 = 0xc000;
/// Where a program lies, and its data.
pub(super) const CODE: u64 = 0x2_0000;
pub(super) const DATA_AREA: u64 = 0x3_0000;
/// Linear addresses of a page that is absent, and of one that is read-only.
const ABSENT: u64 = 0x4000_0000;
const READ_ONLY: u64 = 0x4020_0000;
/// RAM ends here.
pub(super) const RAM_LEN: u64 = 0x102_0000;
/// The kernel half maps physical address 0 here.
pub(super) const KERNEL_HALF: u64 = 0xffff_ffff_8000_0000;
/// How long a program may take; emulated hosts are slow.
const LIMIT: Duration = Duration::from_secs(30);

/// What a case says when it fails, in one sentence.
pub(super) type Failure = String;

/// The CPU mode that a program starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Real,
    Protected,
    Long,
}

/// One VM with one running vCPU.
pub(super) struct Guest {
    pub(super) vm: Arc<dyn Vm>,
    pub(super) vcpu: Box<dyn Vcpu>,
    pub(super) memory: GuestMemory,
    pub(super) recorder: Recorder,
}

/// How a guest is made, beyond its program.
pub(super) struct Options<'a> {
    pub(super) cpuid: &'a [CpuidLeaf],
    pub(super) vcpus: u32,
    pub(super) log_dirty: bool,
}

impl Guest {
    /// A guest that is about to execute `listing` at [`CODE`].
    pub(super) fn new(hypervisor: &dyn Hypervisor, mode: Mode, listing: &str) -> Result<Self, Failure> {
        let options = Options {
            cpuid: &hypervisor.capabilities().cpuid,
            vcpus: 1,
            log_dirty: false,
        };
        Self::with(hypervisor, mode, listing, &options)
    }

    pub(super) fn with(
        hypervisor: &dyn Hypervisor,
        mode: Mode,
        listing: &str,
        options: &Options<'_>,
    ) -> Result<Self, Failure> {
        let config = VmConfig {
            vcpus: options.vcpus,
            ioapic_lines: 24,
        };
        let vm = hypervisor.create_vm(&config).map_err(chain)?;
        let memory = GuestMemory::anonymous(&[(0, RAM_LEN)]).map_err(chain)?;
        fill_memory(&memory, &assemble(listing))?;
        vm.map_ram(&memory, options.log_dirty).map_err(chain)?;
        let mut vcpu = vm.create_vcpu(0, options.cpuid).map_err(chain)?;
        let mut state = vcpu.state().map_err(chain)?;
        enter(&mut state, mode);
        vcpu.set_state(&state).map_err(chain)?;
        let recorder = Recorder::default();
        recorder.stop_with(vcpu.kicker());
        Ok(Self {
            vm,
            vcpu,
            memory,
            recorder,
        })
    }

    /// Puts other code than the program's somewhere.
    pub(super) fn place(&self, gpa: u64, listing: &str) -> Result<(), Failure> {
        write(&self.memory, gpa, &assemble(listing))
    }

    /// Lets a store to `port` set something off.
    pub(super) fn react(&mut self, port: u16, reaction: Reaction) {
        self.recorder.react(port, reaction);
    }

    /// Changes the state before the program starts.
    pub(super) fn change_state(&mut self, change: impl FnOnce(&mut CpuState)) -> Result<(), Failure> {
        let mut state = self.vcpu.state().map_err(chain)?;
        change(&mut state);
        self.vcpu.set_state(&state).map_err(chain)
    }

    /// Runs until something stops it, or fails after [`LIMIT`].
    pub(super) fn run(&mut self) -> Result<StopReason, Failure> {
        let (stopped, late) = run_limited(&mut *self.vcpu, &self.recorder, LIMIT);
        if late {
            let place = self.vcpu.state().map(|state| state.general.rip).unwrap_or(0);
            return Err(format!(
                "still running after {LIMIT:?}, at {place:#x}; {:x?}",
                self.recorder.trace()
            ));
        }
        stopped.map_err(chain)
    }

    /// Runs the program to its end and gives back what it did.
    pub(super) fn run_to_end(&mut self) -> Result<Vec<Access>, Failure> {
        match self.run()? {
            StopReason::Kicked => Ok(self.recorder.trace()),
            other => Err(format!(
                "stopped with {other:?} after {:x?}",
                self.recorder.trace()
            )),
        }
    }

    /// Bytes of RAM as a little-endian number.
    pub(super) fn ram(&self, gpa: u64) -> Result<u64, Failure> {
        self.memory.read_obj(GuestAddress(gpa)).map_err(chain)
    }

    /// Fills RAM with bytes.
    pub(super) fn fill_ram(&self, gpa: u64, bytes: &[u8]) -> Result<(), Failure> {
        write(&self.memory, gpa, bytes)
    }
}

/// Runs one vCPU, kicks it when `limit` is over, and tells whether that was needed.
pub(super) fn run_limited(
    vcpu: &mut dyn Vcpu,
    io: &Recorder,
    limit: Duration,
) -> (Result<StopReason, crate::Error>, bool) {
    let kicker = vcpu.kicker();
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(move || watch(&end, &*kicker, limit));
        let stopped = vcpu.run(io);
        drop(ended);
        // The watchdog only waits and kicks.
        (stopped, watchdog.join().unwrap_or(false))
    })
}

fn watch(end: &mpsc::Receiver<()>, kicker: &dyn Kick, limit: Duration) -> bool {
    let late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
    if late {
        kicker.kick();
    }
    late
}

/// An error with everything below it, in one line.
pub(super) fn chain(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        text = format!("{text}: {below}");
        source = below.source();
    }
    text
}

fn write(memory: &GuestMemory, gpa: u64, bytes: &[u8]) -> Result<(), Failure> {
    memory.write_slice(bytes, GuestAddress(gpa)).map_err(chain)
}

fn write_words(memory: &GuestMemory, gpa: u64, words: impl IntoIterator<Item = u64>) -> Result<(), Failure> {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    write(memory, gpa, &bytes)
}

fn fill_memory(memory: &GuestMemory, code: &[u8]) -> Result<(), Failure> {
    let descriptors = [
        Segment::flat_code64(CODE64),
        Segment::flat_data(DATA),
        Segment::flat_code32(CODE32),
    ];
    write_words(memory, GDT + 8, descriptors.iter().map(Segment::descriptor))?;
    fill_page_tables(memory)?;
    fill_gates(memory)?;
    write(memory, EXCEPTION_REPORT, &assemble(programs::EXCEPTION_REPORT))?;
    write(memory, INTERRUPT_HANDLER, &assemble(programs::INTERRUPT_HANDLER))?;
    write(memory, CODE, code)?;
    // The same bytes for code that runs in the kernel half, where Linux has its own.
    write(memory, 0x101_0000, code)
}

/// The low 4 GiB map themselves but for two pages; the top 2 GiB map the lowest ones.
fn fill_page_tables(memory: &GuestMemory) -> Result<(), Failure> {
    /// Present, writable; and a 2 MiB page (Intel SDM vol. 3, 4.5.4).
    const TABLE: u64 = 0x3;
    const PAGE: u64 = 0x83;
    write_words(memory, PML4, [PDPT_LOW | TABLE])?;
    write_words(memory, PML4 + 511 * 8, [PDPT_HIGH | TABLE])?;
    write_words(
        memory,
        PDPT_LOW,
        (0..4).map(|index| (DIRECTORIES + index * 0x1000) | TABLE),
    )?;
    write_words(memory, PDPT_HIGH + 510 * 8, [DIRECTORIES | TABLE])?;
    write_words(memory, DIRECTORIES, (0..4 * 512).map(|index| index << 21 | PAGE))?;
    write_words(memory, DIRECTORIES + (ABSENT >> 21) * 8, [0])?;
    write_words(
        memory,
        DIRECTORIES + (READ_ONLY >> 21) * 8,
        [0x20_0000 | PAGE & !2],
    )
}

fn fill_gates(memory: &GuestMemory) -> Result<(), Failure> {
    /// Present, 64-bit interrupt gate (Intel SDM vol. 3, 6.14.1).
    const GATE: u64 = 0x8e00 << 32;
    let gate =
        |target: u64| (target & 0xffff) | u64::from(CODE64) << 16 | GATE | (target >> 16 & 0xffff) << 48;
    for vector in 0..32 {
        let stub = STUBS + vector * 16;
        write(memory, stub, &exception_stub(vector, stub))?;
        write_words(memory, IDT + vector * 16, [gate(stub), 0])?;
    }
    write_words(memory, IDT + u64::from(VECTOR) * 16, [gate(INTERRUPT_HANDLER), 0])
}

/// `push 0` where the CPU pushes no error code, `push vector`, `jmp EXCEPTION_REPORT`.
fn exception_stub(vector: u64, at: u64) -> Vec<u8> {
    const WITH_ERROR_CODE: [u64; 8] = [8, 10, 11, 12, 13, 14, 17, 21];
    let mut stub = Vec::new();
    if !WITH_ERROR_CODE.contains(&vector) {
        stub.extend([0x6a, 0x00]);
    }
    stub.extend([0x6a, vector as u8, 0xe9]);
    let next = at + stub.len() as u64 + 4;
    stub.extend((EXCEPTION_REPORT.wrapping_sub(next) as u32).to_le_bytes());
    stub
}

fn enter(state: &mut CpuState, mode: Mode) {
    /// Write protection also binds the kernel (Intel SDM vol. 3, 2.5).
    const CR0_WP: u64 = 1 << 16;
    /// No-execute pages, and with them the fetch bit of a page fault's error code.
    const EFER_NXE: u64 = 1 << 11;
    match mode {
        Mode::Real => {
            state.system.cs = Segment::real_mode((CODE >> 4) as u16, true);
            state.general.rip = 0;
        }
        Mode::Protected => state.enter_protected_mode(CODE, CODE32, DATA),
        Mode::Long => {
            state.enter_long_mode(CODE, PML4, CODE64, DATA);
            state.system.cr0 |= CR0_WP;
            state.system.efer |= EFER_NXE;
        }
    }
    if mode != Mode::Real {
        state.system.gdtr = TableRegister {
            base: GDT,
            limit: 0x27,
        };
        state.system.idtr = TableRegister {
            base: IDT,
            limit: 0xfff,
        };
    }
    state.general.gpr[crate::x86_64::GeneralRegisters::RSP] = STACK_TOP;
}
