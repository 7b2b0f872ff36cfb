//! The stack: pushes, pops, frames, and the flags on it.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VM};
use super::operands::{by_word_size, is_register, size_of};
use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};
use crate::memory::Access;

/// RFLAGS.VIF and RFLAGS.VIP (Intel SDM vol. 3, 2.3).
const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;
/// CR4.VME.
const CR4_VME: u64 = 1 << 0;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match instruction.mnemonic() {
        Mnemonic::Push => match instruction.op0_kind() {
            // Segment registers have no size here.
            OpKind::Register => by_word_size!(size, push_register),
            OpKind::Memory => by_word_size!(size, push_memory),
            _ => by_word_size!(size, push_immediate),
        },
        Mnemonic::Pop if is_register(instruction, 0) => by_word_size!(size, pop_register),
        Mnemonic::Pop => by_word_size!(size, pop_memory),
        Mnemonic::Pusha => Some(push_all::<2>),
        Mnemonic::Pushad => Some(push_all::<4>),
        Mnemonic::Popa => Some(pop_all::<2>),
        Mnemonic::Popad => Some(pop_all::<4>),
        Mnemonic::Enter => match instruction.code() {
            Code::Enterw_imm16_imm8 => Some(enter::<2>),
            Code::Enterd_imm16_imm8 => Some(enter::<4>),
            _ => Some(enter::<8>),
        },
        Mnemonic::Leave => match instruction.code() {
            Code::Leavew => Some(leave::<2>),
            Code::Leaved => Some(leave::<4>),
            _ => Some(leave::<8>),
        },
        Mnemonic::Pushf => Some(push_flags::<2>),
        Mnemonic::Pushfd => Some(push_flags::<4>),
        Mnemonic::Pushfq => Some(push_flags::<8>),
        Mnemonic::Popf => Some(pop_flags::<2>),
        Mnemonic::Popfd => Some(pop_flags::<4>),
        Mnemonic::Popfq => Some(pop_flags::<8>),
        _ => None,
    }
}

/// The register is read before the stack pointer moves, which matters to `PUSH rSP`.
fn push_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.register::<S>(instruction.op0_register());
    exec.push(S, value)
}

fn push_memory<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.load_operand::<S>(instruction)?;
    exec.push(S, value)
}

fn push_immediate<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.push(S, instruction.immediate(0) & mask(S))
}

fn pop_register<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = exec.pop(S)?;
    exec.set_register::<S>(instruction.op0_register(), value);
    Ok(())
}

/// An address that is relative to the stack pointer is worked out after the pop.
fn pop_memory<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let before = exec.cpu.gpr[Cpu::RSP];
    let value = exec.pop(S)?;
    let stored = exec.store_operand::<S>(instruction, value);
    if stored.is_err() {
        exec.cpu.gpr[Cpu::RSP] = before;
    }
    stored
}

fn push_all<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let top = exec.stack_pointer();
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let place = |number: usize| top.wrapping_sub((number as u64 + 1) * S as u64) & stack_mask;
    for number in 0..8 {
        let linear = exec.linear(SegReg::Ss, place(number), S as u64, Access::Write)?;
        exec.linear_probe(exec.cpu.mode.set, linear, S as u64, Access::Write)?;
    }
    for number in 0..8 {
        exec.store(SegReg::Ss, place(number), S, exec.number::<S>(number))?;
    }
    exec.set_stack_pointer(place(7));
    Ok(())
}

/// What was pushed for the stack pointer is passed over.
fn pop_all<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let mut values = [0; 8];
    for (depth, value) in values.iter_mut().enumerate() {
        *value = exec.peek(depth as u64 * S as u64, S)?;
    }
    let top = exec.stack_pointer().wrapping_add(8 * S as u64);
    for (depth, value) in values.into_iter().enumerate() {
        let number = 7 - depth;
        if number != Cpu::RSP {
            exec.set_number::<S>(number, value);
        }
    }
    exec.set_stack_pointer(top);
    Ok(())
}

fn enter<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let room = u64::from(instruction.immediate16());
    let level = u64::from(instruction.immediate8_2nd()) % 32;
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let step = S as u64;
    let top = exec.stack_pointer().wrapping_sub(step) & stack_mask;
    let base = exec.cpu.gpr[Cpu::RBP] & stack_mask;
    exec.store(SegReg::Ss, top, S, exec.number::<S>(Cpu::RBP))?;
    for outer in 1..level {
        let from = base.wrapping_sub(outer * step) & stack_mask;
        let pointer = exec.load(SegReg::Ss, from, S)?;
        exec.store(
            SegReg::Ss,
            top.wrapping_sub(outer * step) & stack_mask,
            S,
            pointer,
        )?;
    }
    if level > 0 {
        exec.store(SegReg::Ss, top.wrapping_sub(level * step) & stack_mask, S, top)?;
    }
    let end = top.wrapping_sub(level * step + room) & stack_mask;
    // The new top must be writable, though nothing is written there (Intel SDM vol. 2, ENTER).
    let linear = exec.linear(SegReg::Ss, end, step, Access::Write)?;
    exec.linear_probe(exec.cpu.mode.set, linear, step, Access::Write)?;
    exec.set_number::<S>(Cpu::RBP, top);
    exec.set_stack_pointer(end);
    Ok(())
}

fn leave<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let stack_mask = Mode::mask(exec.cpu.mode.stack_bits);
    let base = exec.cpu.gpr[Cpu::RBP] & stack_mask;
    let outer = exec.load(SegReg::Ss, base, S)?;
    exec.set_stack_pointer(base.wrapping_add(S as u64));
    exec.set_number::<S>(Cpu::RBP, outer);
    Ok(())
}

/// Whether this is virtual-8086 code that must not touch IF; `Err` where the instruction is not for it at all.
fn virtual_interrupts<const S: usize>(exec: &Exec<'_>) -> Result<bool, Exception> {
    let cpu = &*exec.cpu;
    if cpu.rflags & VM == 0 || cpu.rflags & IOPL == IOPL {
        return Ok(false);
    }
    if S == 2 && cpu.cr4 & CR4_VME != 0 {
        return Ok(true);
    }
    Err(Exception::PROTECTION)
}

fn push_flags<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let mut image = exec.cpu.rflags & !(VM | RF);
    if virtual_interrupts::<S>(exec)? {
        // IOPL reads as 3, and IF as VIF (Intel SDM vol. 3, 20.3).
        let virtual_if = if image & VIF == 0 { 0 } else { IF };
        image = image & !IF | IOPL | virtual_if;
    }
    exec.push(S, image)
}

/// Who may change what: Intel SDM vol. 2, POPF.
fn pop_flags<const S: usize>(exec: &mut Exec<'_>, _: &Instruction) -> Result<(), Exception> {
    let virtually = virtual_interrupts::<S>(exec)?;
    let value = exec.peek(0, S)?;
    let old = exec.cpu.rflags;
    let mut changed = STATUS | TF | DF | NT | if S == 2 { 0 } else { AC | ID };
    let level = u64::from(exec.cpu.cpl());
    if level == 0 {
        changed |= IOPL;
    }
    if level <= (old & IOPL) >> 12 {
        changed |= IF;
    }
    let mut new = old & !(changed | RF) | value & changed;
    if virtually {
        if value & TF != 0 || value & IF != 0 && old & VIP != 0 {
            return Err(Exception::PROTECTION);
        }
        let virtual_if = if value & IF == 0 { 0 } else { VIF };
        new = new & !VIF | virtual_if;
    }
    let top = exec.stack_pointer().wrapping_add(S as u64);
    exec.set_stack_pointer(top);
    exec.cpu.set_rflags(new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::flags;
    use crate::testing::integer::*;

    #[test]
    fn push_and_pop_of_the_stack_pointer_take_the_old_and_keep_the_new() {
        let mut machine = Machine::new(64);
        machine.run(&[0x54]).unwrap();
        assert_eq!(machine.quad(TOP - 8), TOP);
        machine.run(&[0x5c]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP);
    }

    #[test]
    fn pop_to_memory_relative_to_the_stack_pointer_uses_the_new_one() {
        let mut machine = Machine::new(64);
        machine.set_quad(TOP, 0x1234);
        machine.run(&[0x8f, 0x44, 0x24, 0x08]).unwrap();
        assert_eq!(
            (machine.quad(TOP + 0x10), machine.cpu.gpr[Cpu::RSP]),
            (0x1234, TOP + 8)
        );
    }

    #[test]
    fn pop_to_memory_that_faults_leaves_the_stack_pointer() {
        let mut machine = Machine::new(32);
        machine.page_without(DATA);
        machine.cpu.gpr[Cpu::RSI] = DATA;
        assert!(machine.run(&[0x8f, 0x06]).is_err());
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP);
    }

    #[test]
    fn pushed_immediates_are_extended_to_the_operand_size() {
        let mut machine = Machine::new(64);
        machine.run(&[0x6a, 0xfe]).unwrap();
        assert_eq!(machine.quad(TOP - 8), u64::MAX - 1);
        machine.run(&[0x66, 0x6a, 0xfe]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP - 10);
    }

    #[test]
    fn push_on_a_16_bit_stack_wraps_and_keeps_the_upper_half() {
        let mut machine = Machine::new(32);
        let mut stack = *machine.cpu.segment(SegReg::Ss);
        stack
            .attributes
            .remove(hypervisor::x86_64::SegmentAttributes::BIG);
        stack.base = STACK;
        machine.cpu.set_segment(SegReg::Ss, stack);
        machine.set_gprs(&[(Cpu::RSP, 0xabcd_0002), (Cpu::RAX, 0x1122_3344)]);

        machine.run(&[0x66, 0x50]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RSP], 0xabcd_0000);
        machine.run(&[0x50]).unwrap();

        assert_eq!(machine.cpu.gpr[Cpu::RSP], 0xabcd_fffc);
        assert_eq!(machine.bytes(STACK + 0xfffc, 4), [0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn pusha_and_popa_carry_all_but_the_stack_pointer() {
        let mut machine = Machine::new(32);
        let before = [1, 2, 3, 4, TOP, 6, 7, 8];
        machine.cpu.gpr[..8].copy_from_slice(&before);

        machine.run(&[0x60]).unwrap();
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP - 32);
        assert_eq!(machine.quad(TOP - 24), TOP << 32 | 6);
        machine.cpu.gpr[..4].fill(0);
        machine.run(&[0x61]).unwrap();

        assert_eq!(machine.cpu.gpr[..8], before);
    }

    #[test]
    fn enter_with_levels_copies_the_outer_frames_pointers() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RBP] = TOP + 0x40;
        machine.set_quad(TOP + 0x38, 0x1111);

        machine.run(&[0xc8, 0x20, 0x00, 0x02]).unwrap();

        let stack = [8, 16, 24].map(|below| machine.quad(TOP - below));
        assert_eq!(stack, [TOP + 0x40, 0x1111, TOP - 8]);
        assert_eq!(machine.cpu.gpr[Cpu::RBP], TOP - 8);
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP - 24 - 0x20);
        machine.run(&[0xc9]).unwrap();
        assert_eq!(
            (machine.cpu.gpr[Cpu::RBP], machine.cpu.gpr[Cpu::RSP]),
            (TOP + 0x40, TOP)
        );
    }

    #[test]
    fn enter_to_a_missing_page_faults_before_anything_changes() {
        let mut machine = Machine::new(32);
        machine.page_without(STACK + 0x7000);
        machine.set_gprs(&[(Cpu::RSP, STACK + 0x8010), (Cpu::RBP, 7)]);

        let result = machine.run(&[0xc8, 0x20, 0x00, 0x00]);

        assert_eq!(result, Err(Exception::page_fault(STACK + 0x7fec, 2)));
        assert_eq!(
            (machine.cpu.gpr[Cpu::RSP], machine.cpu.gpr[Cpu::RBP]),
            (STACK + 0x8010, 7)
        );
    }

    #[test]
    fn popf_at_level_0_changes_everything_but_what_nobody_may() {
        let mut machine = Machine::new(64);
        machine.set_quad(TOP, u64::MAX);
        machine.run(&[0x9d]).unwrap();
        let allowed = STATUS | DF | TF | NT | IF | IOPL | AC | ID;
        assert_eq!(machine.cpu.rflags, allowed | flags::FIXED);
    }

    #[test]
    fn popf_at_level_3_keeps_iopl_and_without_it_the_interrupt_flag() {
        let mut machine = Machine::new(64);
        machine.set_user();
        machine.set_quad(TOP, 0);
        machine.cpu.set_rflags(IF);
        machine.run(&[0x9d]).unwrap();
        assert_eq!(machine.cpu.rflags, IF | flags::FIXED);
        machine.cpu.set_rflags(IF | IOPL);
        machine.set_quad(TOP + 8, 0);
        machine.run(&[0x9d]).unwrap();
        assert_eq!(machine.cpu.rflags, IOPL | flags::FIXED);
    }

    #[test]
    fn popf_of_16_bits_keeps_the_flags_above() {
        let mut machine = Machine::new(64);
        machine.cpu.set_rflags(AC | ID);
        machine.set_quad(TOP, flags::CF);
        machine.run(&[0x66, 0x9d]).unwrap();
        assert_eq!(machine.cpu.rflags, AC | ID | flags::CF | flags::FIXED);
    }

    #[test]
    fn pushf_hides_resume_and_virtual_8086_flags() {
        let mut machine = Machine::new(32);
        machine.cpu.set_rflags(RF | VM | IOPL | flags::CF);
        machine.run(&[0x9c]).unwrap();
        assert_eq!(
            machine.quad(TOP - 4) & 0xffff_ffff,
            IOPL | flags::CF | flags::FIXED
        );
    }

    #[test]
    fn flags_in_virtual_8086_code_without_iopl_are_protected_or_virtual() {
        let mut machine = Machine::new(32);
        machine.cpu.set_rflags(VM | IF);
        assert_eq!(machine.run(&[0x66, 0x9c]), Err(Exception::PROTECTION));
        assert_eq!(machine.run(&[0x66, 0x9d]), Err(Exception::PROTECTION));
        machine.cpu.cr4 |= CR4_VME;
        assert_eq!(machine.run(&[0x66, 0x9c]), Ok(()));
        assert_eq!(machine.quad(TOP - 2) & 0xffff, IOPL | flags::FIXED);
        machine.set_quad(TOP - 2, IF);
        assert_eq!(machine.run(&[0x66, 0x9d]), Ok(()));
        assert_eq!(machine.cpu.rflags & (VIF | IF | VM), VIF | IF | VM);
    }
}
