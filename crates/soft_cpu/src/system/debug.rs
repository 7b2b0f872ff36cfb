//! Debug registers, breakpoints and single steps (Intel SDM vol. 3, chapter 18).
//!
//! While any breakpoint is enabled or RFLAGS.TF is set, the vCPU's loop executes one instruction at a time by
//! [`Exec::run_debugged`]. What an instruction is going to access is worked out before it is executed, so that
//! loads and stores need not look for breakpoints. A breakpoint on the operand of an instruction that loads SS is
//! not reported: nothing may come between that and the next instruction.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use super::ports::port_operand;
use crate::cpu::{Cpu, SegReg, control, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, segment_register};

/// DR6: an access to a debug register was detected; a single step.
const DR6_DETECTED: u64 = 1 << 13;
const DR6_STEP: u64 = 1 << 14;
/// Bits of DR6 that are stored, among them the one for task switches; and those that read as set.
const DR6_STORED: u64 = 0xe00f;
const DR6_FIXED: u64 = 0xffff_0ff0;
/// DR7: enables of all four, accesses to debug registers are detected.
const DR7_ENABLES: u64 = 0xff;
const DR7_DETECT: u64 = 1 << 13;
const DR7_STORED: u64 = 0xffff_23ff;
const DR7_FIXED: u64 = 0x400;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let debug =
        |index| instruction.op_kind(index) == OpKind::Register && instruction.op_register(index).is_dr();
    match instruction.mnemonic() {
        Mnemonic::Mov if debug(0) => Some(load),
        Mnemonic::Mov if debug(1) => Some(store),
        _ => None,
    }
}

/// What every `MOV` from and to debug registers checks; gives the register's number.
fn check(exec: &Exec<'_>, register: Register) -> Result<usize, Exception> {
    let number = match register.number() {
        number @ (0..=3 | 6 | 7) => number,
        number @ (4 | 5) if exec.cpu.cr4 & control::CR4_DE == 0 => number + 2,
        _ => return Err(Exception::UNDEFINED),
    };
    exec.check_privilege()?;
    if exec.cpu.debug.dr7 & DR7_DETECT != 0 {
        return Err(Exception::debug(DR6_DETECTED, false));
    }
    Ok(number)
}

fn load(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let number = check(exec, instruction.op0_register())?;
    let value = exec.gpr(instruction.op1_register());
    let debug = &mut exec.cpu.debug;
    match number {
        0..=3 => debug.dr[number] = value,
        _ if value >> 32 != 0 => return Err(Exception::PROTECTION),
        6 => debug.dr6 = value & DR6_STORED | DR6_FIXED,
        _ => debug.dr7 = value & DR7_STORED | DR7_FIXED,
    }
    Ok(())
}

fn store(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let number = check(exec, instruction.op1_register())?;
    let debug = &exec.cpu.debug;
    let value = match number {
        0..=3 => debug.dr[number],
        6 => debug.dr6,
        _ => debug.dr7,
    };
    exec.set_gpr(instruction.op0_register(), value);
    Ok(())
}

/// What a breakpoint is for: R/W0 to R/W3 of DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Execution,
    Writes,
    Ports,
    Accesses,
}

/// One enabled breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Breakpoint {
    /// Its bit in DR6.
    bit: u64,
    watched: Watched,
    start: u64,
    len: u64,
}

impl Breakpoint {
    fn overlaps(&self, start: u64, len: u64) -> bool {
        // By distance, because addresses wrap.
        start.wrapping_sub(self.start) < self.len || self.start.wrapping_sub(start) < len
    }
}

impl Cpu {
    /// Whether any breakpoint is enabled.
    fn has_breakpoints(&self) -> bool {
        self.debug.dr7 & DR7_ENABLES != 0
    }

    fn breakpoints(&self) -> impl Iterator<Item = Breakpoint> + '_ {
        let dr7 = self.debug.dr7;
        let enabled = (0..4_usize).filter(move |index| dr7 >> (index * 2) & 3 != 0);
        enabled.map(move |index| {
            let fields = dr7 >> (16 + index * 4);
            let len = [1, 2, 8, 4][(fields >> 2 & 3) as usize];
            Breakpoint {
                bit: 1 << index,
                watched: match fields & 3 {
                    0 => Watched::Execution,
                    1 => Watched::Writes,
                    2 => Watched::Ports,
                    _ => Watched::Accesses,
                },
                start: self.debug.dr[index] & !(len - 1),
                len,
            }
        })
    }

    /// A linear address as wide as addresses are.
    fn wide_as_linear(&self, address: u64) -> u64 {
        if self.mode.bits == 64 {
            address
        } else {
            address & 0xffff_ffff
        }
    }
}

impl Exec<'_> {
    /// Whether instructions must be executed one by one.
    pub(crate) fn is_debugged(&self) -> bool {
        self.has_breakpoints() || self.cpu.rflags & flags::TF != 0
    }

    /// Whether any breakpoint is enabled.
    pub(super) fn has_breakpoints(&self) -> bool {
        self.cpu.has_breakpoints()
    }

    /// Executes the instruction at RIP, and raises what debugging it calls for.
    pub(crate) fn run_debugged(&mut self) -> Result<(), Exception> {
        if !self.is_debugged() {
            return self.run_instruction();
        }
        // It spares one instruction; the instruction may set it again for the next.
        let spared = self.cpu.rflags & flags::RF != 0;
        self.cpu.rflags &= !flags::RF;
        let hit = if spared { 0 } else { self.code_breakpoints() };
        if hit != 0 {
            return Err(Exception::debug(hit, false));
        }
        let slot = self.find_block()?;
        let Some(op) = self.op_at(slot, 0) else {
            return Ok(());
        };
        let stepping = self.cpu.rflags & flags::TF != 0;
        let mut hit = self.data_breakpoints(&op.instruction) | self.port_breakpoints(&op.instruction);
        self.run_instruction()?;
        if stepping && self.is_step(&op.instruction) {
            hit |= DR6_STEP;
        }
        if hit == 0 || self.cpu.events.shadow_mov_ss {
            return Ok(());
        }
        Err(Exception::debug(hit, true))
    }

    /// Whether an instruction that began with RFLAGS.TF set is followed by a trap: those that enter a handler are
    /// not where they clear the flag, and with DEBUGCTL.BTF only those are that branch (18.4.4).
    fn is_step(&self, instruction: &Instruction) -> bool {
        use Mnemonic as M;
        if self.cpu.msrs.steps_by_branch() && self.cpu.rip == instruction.next_ip() {
            return false;
        }
        let enters = matches!(
            instruction.mnemonic(),
            M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter
        );
        !enters || self.cpu.rflags & flags::TF != 0
    }

    fn code_breakpoints(&self) -> u64 {
        let cpu = &*self.cpu;
        let linear = cpu.wide_as_linear(self.code_base().wrapping_add(cpu.rip));
        cpu.breakpoints()
            .filter(|breakpoint| breakpoint.watched == Watched::Execution && breakpoint.start == linear)
            .fold(0, |hit, breakpoint| hit | breakpoint.bit)
    }

    fn data_breakpoints(&self, instruction: &Instruction) -> u64 {
        if !self.has_breakpoints() || self.repeats_no_more(instruction) {
            return 0;
        }
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        info.used_memory()
            .iter()
            .fold(0, |hit, used| hit | self.breakpoints_of(used))
    }

    /// The breakpoints that one access hits.
    fn breakpoints_of(&self, used: &UsedMemory) -> u64 {
        let writes = match used.access() {
            OpAccess::Read | OpAccess::CondRead => false,
            OpAccess::None | OpAccess::NoMemAccess => return 0,
            _ => true,
        };
        let value = |register: Register, _, _| Some(self.address_part(register));
        let Some(address) = used.virtual_address(0, value) else {
            return 0;
        };
        let address = self.cpu.wide_as_linear(address);
        let len = used.memory_size().size().max(1) as u64;
        let hits = |breakpoint: &Breakpoint| {
            let watched = match breakpoint.watched {
                Watched::Accesses => true,
                Watched::Writes => writes,
                Watched::Execution | Watched::Ports => false,
            };
            watched && breakpoint.overlaps(address, len)
        };
        self.cpu
            .breakpoints()
            .filter(hits)
            .fold(0, |hit, breakpoint| hit | breakpoint.bit)
    }

    /// A segment's base or a register's value, as addresses are made of them.
    fn address_part(&self, register: Register) -> u64 {
        if !register.is_segment_register() {
            return self.gpr(register);
        }
        let segment = segment_register(register);
        match segment {
            SegReg::Fs | SegReg::Gs => self.cpu.segment(segment).base,
            _ if self.cpu.mode.bits == 64 => 0,
            _ => self.cpu.segment(segment).base,
        }
    }

    fn port_breakpoints(&self, instruction: &Instruction) -> u64 {
        use Mnemonic as M;
        let (operand, element) = match instruction.mnemonic() {
            M::In => (1, 0),
            M::Out => (0, 1),
            M::Insb | M::Insw | M::Insd => (1, 0),
            M::Outsb | M::Outsw | M::Outsd => (0, 1),
            _ => return 0,
        };
        if self.cpu.cr4 & control::CR4_DE == 0 || self.repeats_no_more(instruction) {
            return 0;
        }
        let port = port_operand(self.cpu, instruction, operand).into();
        let len = self.operand_size(instruction, element) as u64;
        self.cpu
            .breakpoints()
            .filter(|breakpoint| breakpoint.watched == Watched::Ports && breakpoint.overlaps(port, len))
            .fold(0, |hit, breakpoint| hit | breakpoint.bit)
    }

    /// Whether this is a repeated string instruction whose counter is zero: it accesses nothing.
    fn repeats_no_more(&self, instruction: &Instruction) -> bool {
        let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
        let size = instruction
            .op_kinds()
            .find_map(|kind| match kind {
                OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
                OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
                _ => None,
            })
            .unwrap_or(8);
        repeated && instruction.is_string_instruction() && self.cpu.gpr[Cpu::RCX] & mask(size) == 0
    }
}
