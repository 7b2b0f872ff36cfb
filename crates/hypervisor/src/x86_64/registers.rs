//! The registers of one CPU, grouped as they are read and written.

/// General registers, instruction pointer and flags (Intel SDM vol. 1, 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneralRegisters {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of instruction encodings.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

/// Indices into [`GeneralRegisters::gpr`].
impl GeneralRegisters {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RBP.
    pub const RBP: usize = 5;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;
}

/// A segment register with its hidden part (Intel SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights as VMX and SVM order them: type, S, DPL, P in bits 0 to 7; AVL, L, D/B, G in bits 12 to
    /// 15; bit 16: unusable.
    pub attributes: u32,
}

impl Segment {
    /// Bit of [`Segment::attributes`] that marks a segment as unusable.
    pub const UNUSABLE: u32 = 1 << 16;

    /// Flat 64-bit code at privilege level 0.
    pub fn code64(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xa09b,
        }
    }

    /// Flat 32-bit code at privilege level 0.
    pub fn code32(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xc09b,
        }
    }

    /// Flat writable data at privilege level 0.
    pub fn data(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xc093,
        }
    }

    /// 16-bit real-mode segment; `code` chooses execute/read over read/write.
    pub fn real(selector: u16, base: u64, code: bool) -> Self {
        Self {
            selector,
            base,
            limit: 0xffff,
            attributes: if code { 0x009b } else { 0x0093 },
        }
    }

    /// A busy 64-bit task-state segment, as a CPU in long mode must have one.
    pub fn task_state() -> Self {
        Self {
            selector: 0,
            base: 0,
            limit: 0xffff,
            attributes: 0x008b,
        }
    }

    /// An unusable segment.
    pub fn unusable() -> Self {
        Self {
            attributes: Self::UNUSABLE,
            ..Self::default()
        }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Segments, descriptor tables and control registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// ES, CS, SS, DS, FS, GS: the order of instruction encodings.
    pub segments: [Segment; 6],
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Control register 0.
    pub cr0: u64,
    /// Page-fault address.
    pub cr2: u64,
    /// Page-table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Task priority.
    pub cr8: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// Local APIC base and enable bits.
    pub apic_base: u64,
}

impl SystemRegisters {
    /// Index of ES in [`SystemRegisters::segments`].
    pub const ES: usize = 0;
    /// Index of CS.
    pub const CS: usize = 1;
    /// Index of SS.
    pub const SS: usize = 2;
    /// Index of DS.
    pub const DS: usize = 3;
    /// Index of FS.
    pub const FS: usize = 4;
    /// Index of GS.
    pub const GS: usize = 5;
}

/// Debug registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugRegisters {
    /// Breakpoint addresses DR0 to DR3.
    pub address: [u64; 4],
    /// Status.
    pub dr6: u64,
    /// Control.
    pub dr7: u64,
}

/// An exception that is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingException {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, for vectors that have one.
    pub error_code: Option<u32>,
    /// Whether delivery has begun (the CPU must not lose it) or it is still to be recognised.
    pub injected: bool,
}

/// What is between two instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingEvents {
    /// An exception.
    pub exception: Option<PendingException>,
    /// An external interrupt whose delivery has begun: its vector.
    pub interrupt: Option<u8>,
    /// A software interrupt (INT n) whose delivery has begun.
    pub interrupt_is_soft: bool,
    /// Interrupts are held off for one instruction by STI.
    pub sti_shadow: bool,
    /// Interrupts are held off for one instruction by MOV SS or POP SS.
    pub mov_ss_shadow: bool,
    /// A non-maskable interrupt is pending.
    pub nmi_pending: bool,
    /// Delivery of a non-maskable interrupt has begun.
    pub nmi_injected: bool,
    /// Non-maskable interrupts are blocked until IRET.
    pub nmi_blocked: bool,
}

/// Whether a CPU executes (Intel SDM vol. 3, 9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// It executes.
    #[default]
    Running,
    /// In HLT, until an interrupt.
    Halted,
    /// After power-on, an application processor: until INIT.
    WaitForInit,
    /// After INIT: until start-up IPI, whose vector may have come already.
    WaitForStartup,
}
