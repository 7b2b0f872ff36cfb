//! Port I/O.

use iced_x86::{Code, Instruction, OpKind, Register};

use crate::cpu::{Cpu, SegReg, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};
use crate::memory::Access;
use crate::observe::DeviceAccess;

use hypervisor::x86_64::SegmentAttributes as A;

/// Elements that one execution of a repeated instruction moves before it lets interrupts in.
const ELEMENTS: u32 = 1024;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Code as C;
    match instruction.code() {
        C::In_AL_imm8 | C::In_AL_DX => Some(input::<1>),
        C::In_AX_imm8 | C::In_AX_DX => Some(input::<2>),
        C::In_EAX_imm8 | C::In_EAX_DX => Some(input::<4>),
        C::Out_imm8_AL | C::Out_DX_AL => Some(output::<1>),
        C::Out_imm8_AX | C::Out_DX_AX => Some(output::<2>),
        C::Out_imm8_EAX | C::Out_DX_EAX => Some(output::<4>),
        C::Insb_m8_DX => Some(string::<1, true>),
        C::Insw_m16_DX => Some(string::<2, true>),
        C::Insd_m32_DX => Some(string::<4, true>),
        C::Outsb_DX_m8 => Some(string::<1, false>),
        C::Outsw_DX_m16 => Some(string::<2, false>),
        C::Outsd_DX_m32 => Some(string::<4, false>),
        _ => None,
    }
}

/// The port that operand `index` names.
pub(super) fn port_operand(cpu: &Cpu, instruction: &Instruction, index: u32) -> u16 {
    if instruction.op_kind(index) == OpKind::Register {
        cpu.gpr[Cpu::RDX] as u16
    } else {
        instruction.immediate8().into()
    }
}

fn input<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let port = port_operand(exec.cpu, instruction, 1);
    exec.check_port(port, S)?;
    let value = exec.port_in::<S>(port);
    let register = match S {
        1 => Register::AL,
        2 => Register::AX,
        _ => Register::EAX,
    };
    exec.set_gpr(register, value);
    Ok(())
}

fn output<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let port = port_operand(exec.cpu, instruction, 0);
    exec.check_port(port, S)?;
    exec.port_out::<S>(port, exec.cpu.gpr[Cpu::RAX]);
    Ok(())
}

/// `INS` and `OUTS`, repeated or not.
fn string<const S: usize, const IN: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let address = address_size(instruction, if IN { 0 } else { 1 });
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let counter = Counter {
        number: Cpu::RCX,
        size: address,
    };
    if repeated && counter.get(exec) == 0 {
        return Ok(());
    }
    exec.check_port(exec.cpu.gpr[Cpu::RDX] as u16, S)?;
    if !repeated {
        return element::<S, IN>(exec, instruction, address);
    }
    let most = if exec.is_debugged() { 1 } else { ELEMENTS };
    for _ in 0..most {
        element::<S, IN>(exec, instruction, address)?;
        let left = counter.get(exec).wrapping_sub(1) & mask(address);
        counter.set(exec, left);
        if left == 0 {
            return Ok(());
        }
    }
    exec.cpu.rip = instruction.ip();
    Ok(())
}

/// Width of SI or DI, which is operand `index`.
fn address_size(instruction: &Instruction, index: u32) -> usize {
    match instruction.op_kind(index) {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
        _ => 8,
    }
}

/// RCX, RSI or RDI, as wide as addresses are.
struct Counter {
    number: usize,
    size: usize,
}

impl Counter {
    fn get(&self, exec: &Exec<'_>) -> u64 {
        exec.cpu.gpr[self.number] & mask(self.size)
    }

    fn set(&self, exec: &mut Exec<'_>, value: u64) {
        let slot = &mut exec.cpu.gpr[self.number];
        *slot = match self.size {
            2 => *slot & !0xffff | value & 0xffff,
            size => value & mask(size),
        };
    }

    /// Moves on by one element, up or down.
    fn advance(&self, exec: &mut Exec<'_>, element: u64) {
        let step = if exec.cpu.rflags & flags::DF == 0 {
            element
        } else {
            element.wrapping_neg()
        };
        let next = self.get(exec).wrapping_add(step);
        self.set(exec, next);
    }
}

/// One element. The port is read only when what it says can be stored.
fn element<const S: usize, const IN: bool>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    address: usize,
) -> Result<(), Exception> {
    let pointer = Counter {
        number: if IN { Cpu::RDI } else { Cpu::RSI },
        size: address,
    };
    let port = exec.cpu.gpr[Cpu::RDX] as u16;
    let at = pointer.get(exec);
    if IN {
        let set = exec.cpu.mode.set;
        let linear = exec.linear(SegReg::Es, at, S as u64, Access::Write)?;
        exec.linear_probe(set, linear, S as u64, Access::Write)?;
        let value = exec.port_in::<S>(port);
        exec.linear_store(set, linear, S, value)?;
    } else {
        let value = exec.load(exec.string_segment(instruction), at, S)?;
        exec.port_out::<S>(port, value);
    }
    pointer.advance(exec, S as u64);
    Ok(())
}

impl Exec<'_> {
    fn port_in<const S: usize>(&mut self, port: u16) -> u64 {
        let mut bytes = [0; 8];
        self.io.port_read(port, &mut bytes[..S]);
        self.trace_access(DeviceAccess::PortRead(port), &bytes[..S]);
        u64::from_le_bytes(bytes)
    }

    fn port_out<const S: usize>(&mut self, port: u16, value: u64) {
        let bytes = &value.to_le_bytes()[..S];
        self.trace_access(DeviceAccess::PortWrite(port), bytes);
        self.io.port_write(port, bytes);
    }

    /// #GP where the program may not use these ports: neither RFLAGS.IOPL lets it nor the task's permission map
    /// (Intel SDM vol. 1, 19.5.2).
    fn check_port(&mut self, port: u16, size: usize) -> Result<(), Exception> {
        let iopl = (self.cpu.rflags & flags::IOPL) >> 12;
        if !self.protected() || u64::from(self.cpu.cpl()) <= iopl {
            return Ok(());
        }
        self.check_permission_map(port, size)
    }

    fn check_permission_map(&mut self, port: u16, size: usize) -> Result<(), Exception> {
        /// Where the task state segment says where its map begins.
        const MAP_BASE: u64 = 102;
        let tr = self.cpu.tr;
        let wide = (tr.attributes & A::TYPE).bits() & 8 != 0;
        let limit = u64::from(tr.limit);
        if !wide || limit < MAP_BASE + 1 {
            return Err(Exception::PROTECTION);
        }
        let map = self.table_read(tr.base, MAP_BASE, 2)?;
        // Always two bytes: the bits of one access may be in both.
        let at = map + u64::from(port / 8);
        if at + 1 > limit {
            return Err(Exception::PROTECTION);
        }
        let bits = self.table_read(tr.base, at, 2)? >> (port % 8);
        if bits & ((1 << size) - 1) != 0 {
            return Err(Exception::PROTECTION);
        }
        Ok(())
    }
}
