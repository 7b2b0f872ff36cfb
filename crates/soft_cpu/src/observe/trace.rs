//! Lines about what guest code does.

use std::fmt;
use std::sync::Arc;

use hypervisor::GuestIo;
use iced_x86::{FastFormatter, Instruction};

use crate::exception::Exception;
use crate::exec::Exec;

/// What can be told line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// What reaches the monitor: accesses of devices, halts, the end of a run.
    Exits,
    /// Every block of guest code that is run. Blocks are not linked to each other then.
    Blocks,
    /// Exceptions and interrupts that are delivered.
    Exceptions,
    /// Every instruction, by its handler: nothing is translated then.
    Instructions,
}

/// Who hears the lines, from every vCPU's thread. They come without an end of line.
pub type TraceLines = dyn Fn(fmt::Arguments<'_>) + Send + Sync;

/// What is told, and to whom.
#[derive(Clone)]
pub struct Trace {
    /// What is told.
    pub kinds: Vec<TraceKind>,
    /// Who hears it.
    pub lines: Arc<TraceLines>,
}

impl Trace {
    pub(crate) fn has(&self, kind: TraceKind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// How a block is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Interpreted,
    Translated,
}

/// Tells about one vCPU.
pub(crate) struct Tracer {
    vcpu: u32,
    trace: Trace,
    /// The instruction that the interpreter executes.
    at: Option<u64>,
}

impl Tracer {
    pub(crate) fn new(vcpu: u32, trace: Trace) -> Self {
        Self {
            vcpu,
            trace,
            at: None,
        }
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        (self.trace.lines)(format_args!("vcpu{} {text}", self.vcpu));
    }
}

/// An access of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeviceAccess {
    PortRead(u16),
    PortWrite(u16),
    MmioRead(u64),
    MmioWrite(u64),
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortRead(port) => write!(f, "port-read port={port:#x}"),
            Self::PortWrite(port) => write!(f, "port-write port={port:#x}"),
            Self::MmioRead(gpa) => write!(f, "mmio-read address={gpa:#x}"),
            Self::MmioWrite(gpa) => write!(f, "mmio-write address={gpa:#x}"),
        }
    }
}

impl Exec<'_> {
    fn tracer(&self, kind: TraceKind) -> Option<&Tracer> {
        let tracer = self.cpu.tracer.as_deref()?;
        tracer.trace.has(kind).then_some(tracer)
    }

    /// Whether blocks must come one by one.
    pub(crate) fn traces_blocks(&self) -> bool {
        self.tracer(TraceKind::Blocks).is_some()
    }

    /// The block at RIP is about to be run.
    pub(crate) fn trace_block(&self, tier: Tier) {
        let Some(tracer) = self.tracer(TraceKind::Blocks) else {
            return;
        };
        let tier = match tier {
            Tier::Interpreted => "interpreted",
            Tier::Translated => "translated",
        };
        let mode = self.cpu.mode;
        tracer.line(format_args!(
            "block rip={:#x} cpl={} bits={} {tier}",
            self.cpu.rip, mode.cpl, mode.bits
        ));
    }

    /// The interpreter is about to execute an instruction.
    pub(crate) fn trace_instruction(&mut self, instruction: &Instruction) {
        if let Some(tracer) = self.tracer(TraceKind::Instructions) {
            let (mut formatter, mut text) = (FastFormatter::new(), String::new());
            formatter.options_mut().set_use_hex_prefix(true);
            formatter.options_mut().set_uppercase_hex(false);
            formatter.format(instruction, &mut text);
            tracer.line(format_args!(
                "instruction rip={:#x} cpl={} {text}",
                instruction.ip(),
                self.cpu.cpl()
            ));
        }
        self.trace_at(Some(instruction.ip()));
    }

    /// Where the interpreter is, or that it is no more.
    pub(crate) fn trace_at(&mut self, at: Option<u64>) {
        if let Some(tracer) = &mut self.cpu.tracer {
            tracer.at = at;
        }
    }

    /// The address of the instruction that is being executed.
    fn instruction_address(&self, tracer: &Tracer) -> u64 {
        let in_translated_code = || {
            let state = &self.cpu.translator;
            let op = self.cpu.blocks.op(state.place as usize, state.op as usize)?;
            // Outside translated code these are left over from last time.
            (op.instruction.next_ip() == self.cpu.rip).then(|| op.instruction.ip())
        };
        tracer.at.or_else(in_translated_code).unwrap_or(self.cpu.rip)
    }

    /// A device was accessed, whose bytes these are.
    #[inline]
    pub(crate) fn trace_access(&self, access: DeviceAccess, data: &[u8]) {
        if self.cpu.tracer.is_some() {
            self.tell_access(access, data);
        }
    }

    #[cold]
    fn tell_access(&self, access: DeviceAccess, data: &[u8]) {
        let Some(tracer) = self.tracer(TraceKind::Exits) else {
            return;
        };
        let value = data
            .iter()
            .rev()
            .fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let rip = self.instruction_address(tracer);
        tracer.line(format_args!(
            "exit {access} size={} value={value:#x} rip={rip:#x}",
            data.len()
        ));
    }

    /// Guest code is left for another reason, which `why` names.
    pub(crate) fn trace_exit(&self, why: &str) {
        if let Some(tracer) = self.tracer(TraceKind::Exits) {
            tracer.line(format_args!("exit {why} rip={:#x}", self.cpu.rip));
        }
    }

    /// An exception is about to be delivered. RIP is where its handler returns to.
    #[inline]
    pub(crate) fn trace_exception(&self, exception: &Exception) {
        if self.cpu.tracer.is_some() {
            self.tell_exception(exception);
        }
    }

    #[cold]
    fn tell_exception(&self, exception: &Exception) {
        let Some(tracer) = self.tracer(TraceKind::Exceptions) else {
            return;
        };
        let error = exception
            .error_code
            .map_or_else(String::new, |code| format!(" error={code:#x}"));
        let payload = match exception.vector {
            14 => format!(" cr2={:#x}", exception.payload),
            1 => format!(" dr6={:#x}", exception.payload),
            _ => String::new(),
        };
        tracer.line(format_args!(
            "exception {} vector={}{error}{payload} rip={:#x} cpl={}",
            exception_name(exception.vector),
            exception.vector,
            self.cpu.rip,
            self.cpu.cpl()
        ));
    }

    /// An interrupt is about to be delivered, `software` where an instruction raised it.
    #[inline]
    pub(crate) fn trace_interrupt(&self, vector: u8, software: bool) {
        if self.cpu.tracer.is_some() {
            self.tell_interrupt(vector, software);
        }
    }

    #[cold]
    fn tell_interrupt(&self, vector: u8, software: bool) {
        if let Some(tracer) = self.tracer(TraceKind::Exceptions) {
            let origin = if software {
                "software-interrupt"
            } else {
                "interrupt"
            };
            tracer.line(format_args!(
                "{origin} vector={vector:#x} rip={:#x} cpl={}",
                self.cpu.rip,
                self.cpu.cpl()
            ));
        }
    }
}

/// An exception's usual name (Intel SDM vol. 3, table 6-1).
fn exception_name(vector: u8) -> &'static str {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP",
        "#PF", "#15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    NAMES.get(usize::from(vector)).copied().unwrap_or("#reserved")
}

/// Tells of ends of interrupts, which reach the monitor past everything else.
pub(crate) struct TracedIo<'a> {
    pub(crate) inner: &'a dyn GuestIo,
    vcpu: u32,
    lines: Arc<TraceLines>,
}

impl<'a> TracedIo<'a> {
    /// `None` where nobody wants to hear of them.
    pub(crate) fn around(inner: &'a dyn GuestIo, tracer: Option<&Tracer>) -> Option<Self> {
        let tracer = tracer.filter(|tracer| tracer.trace.has(TraceKind::Exits))?;
        Some(Self {
            inner,
            vcpu: tracer.vcpu,
            lines: tracer.trace.lines.clone(),
        })
    }
}

impl GuestIo for TracedIo<'_> {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.inner.mmio_read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.inner.mmio_write(gpa, data);
    }

    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.inner.port_read(port, data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        self.inner.port_write(port, data);
    }

    fn eoi(&self, vector: u8) {
        (self.lines)(format_args!(
            "vcpu{} exit end-of-interrupt vector={vector:#x}",
            self.vcpu
        ));
        self.inner.eoi(vector);
    }
}
