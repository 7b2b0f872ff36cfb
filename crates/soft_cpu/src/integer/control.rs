//! Near jumps, calls and returns, loops, and what does nothing but raise an exception.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::ZF;
use super::operands::{by_word_size, size_of};
use crate::cpu::{Cpu, Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask, sign_extend, undefined};
use crate::memory::{Access, is_canonical};

impl Exec<'_> {
    /// Goes on at `target`, an offset in the code segment.
    #[inline]
    pub(super) fn jump(&mut self, target: u64) -> Result<(), Exception> {
        self.check_target(target)?;
        self.cpu.rip = target;
        Ok(())
    }

    /// Whether code can be at `target`: the branch itself faults where it cannot.
    #[inline]
    fn check_target(&self, target: u64) -> Result<(), Exception> {
        let there = if self.cpu.mode.bits == 64 {
            is_canonical(target)
        } else {
            target <= self.cpu.segment(SegReg::Cs).limit.into()
        };
        if there { Ok(()) } else { Err(Exception::PROTECTION) }
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    let direct = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    match instruction.mnemonic() {
        Mnemonic::Jmp if direct => Some(jump_direct),
        Mnemonic::Jmp if is_far(instruction) => None,
        Mnemonic::Jmp => by_word_size!(size, jump_indirect),
        Mnemonic::Call if direct => by_word_size!(size, call_direct),
        Mnemonic::Call if is_far(instruction) => None,
        Mnemonic::Call => by_word_size!(size, call_indirect),
        Mnemonic::Ret => by_word_size!(return_size(instruction), return_near),
        Mnemonic::Loop => counting(instruction, Until::Zero),
        Mnemonic::Loope => counting(instruction, Until::NotEqual),
        Mnemonic::Loopne => counting(instruction, Until::Equal),
        Mnemonic::Jcxz => Some(jump_if_zero::<2>),
        Mnemonic::Jecxz => Some(jump_if_zero::<4>),
        Mnemonic::Jrcxz => Some(jump_if_zero::<8>),
        Mnemonic::Bound if size == 2 => Some(bound::<2>),
        Mnemonic::Bound => Some(bound::<4>),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Some(undefined),
        _ => None,
    }
}

/// Whether a jump or call goes through a far pointer.
fn is_far(instruction: &Instruction) -> bool {
    instruction.is_jmp_far()
        || instruction.is_call_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
}

/// Width of the return address of `RET`: its operand size, which the stack pointer's step tells.
fn return_size(instruction: &Instruction) -> usize {
    use iced_x86::Code;
    match instruction.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    }
}

fn jump_direct(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.jump(instruction.near_branch64())
}

fn jump_indirect<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.read_sized::<S>(instruction, 0)?;
    exec.jump(target)
}

#[inline]
fn call<const S: usize>(exec: &mut Exec<'_>, target: u64) -> Result<(), Exception> {
    if let Err(exception) = exec.check_target(target) {
        // What is wrong with the stack comes first, but nothing is pushed: seen on Zen.
        let top = exec.stack_pointer().wrapping_sub(S as u64) & Mode::mask(exec.cpu.mode.stack_bits);
        let linear = exec.linear(SegReg::Ss, top, S as u64, Access::Write)?;
        exec.linear_probe(exec.cpu.mode.set, linear, S as u64, Access::Write)?;
        return Err(exception);
    }
    exec.push(S, exec.cpu.rip)?;
    exec.cpu.rip = target;
    Ok(())
}

fn call_direct<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    call::<S>(exec, instruction.near_branch64())
}

fn call_indirect<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.read_sized::<S>(instruction, 0)?;
    call::<S>(exec, target)
}

/// With an immediate that many more bytes are popped.
fn return_near<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let target = exec.peek(0, S)?;
    exec.jump(target)?;
    let more = if instruction.op_count() == 0 {
        0
    } else {
        instruction.immediate16().into()
    };
    let top = exec.stack_pointer().wrapping_add(S as u64 + more);
    exec.set_stack_pointer(top);
    Ok(())
}

/// What ends a loop besides its counter.
enum Until {
    Zero,
    NotEqual,
    Equal,
}

fn counting(instruction: &Instruction, until: Until) -> Option<Handler> {
    use iced_x86::Code as C;
    let size = match instruction.code() {
        C::Loop_rel8_16_CX | C::Loop_rel8_32_CX => 2,
        C::Loope_rel8_16_CX | C::Loope_rel8_32_CX => 2,
        C::Loopne_rel8_16_CX | C::Loopne_rel8_32_CX => 2,
        C::Loop_rel8_16_RCX | C::Loop_rel8_64_RCX => 8,
        C::Loope_rel8_16_RCX | C::Loope_rel8_64_RCX => 8,
        C::Loopne_rel8_16_RCX | C::Loopne_rel8_64_RCX => 8,
        _ => 4,
    };
    match until {
        Until::Zero => by_word_size!(size, count_down, 0, 0),
        Until::NotEqual => by_word_size!(size, count_down, ZF, ZF),
        Until::Equal => by_word_size!(size, count_down, ZF, 0),
    }
}

/// `LOOPcc`: goes on while the counter is not zero and the flags in `LOOKED_AT` are `WANTED`.
fn count_down<const LOOKED_AT: u64, const WANTED: u64, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let left = exec.number::<S>(Cpu::RCX).wrapping_sub(1) & mask(S);
    if left != 0 && exec.cpu.rflags & LOOKED_AT == WANTED {
        exec.jump(instruction.near_branch64())?;
    }
    exec.set_number::<S>(Cpu::RCX, left);
    Ok(())
}

fn jump_if_zero<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    if exec.number::<S>(Cpu::RCX) == 0 {
        return exec.jump(instruction.near_branch64());
    }
    Ok(())
}

/// A signed index against the two bounds in memory.
fn bound<const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let (segment, offset) = exec.effective_address(instruction);
    let lower = exec.load(segment, offset, S)?;
    let next = offset.wrapping_add(S as u64) & crate::exec::address_mask(instruction, exec.cpu.mode.bits);
    let upper = exec.load(segment, next, S)?;
    let signed = |value| sign_extend(value, S) as i64;
    let index = signed(exec.register::<S>(instruction.op0_register()));
    if index < signed(lower) || index > signed(upper) {
        return Err(Exception::BOUND);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::integer::*;

    const FAR_OUT: u64 = 1 << 63;

    #[test]
    fn jumps_to_no_canonical_address_fault_at_the_jump() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RAX] = FAR_OUT;
        machine.set_quad(TOP, FAR_OUT);
        for code in [&[0xff, 0xe0][..], &[0xff, 0xd0], &[0xc3], &[0xc2, 8, 0]] {
            assert_eq!(machine.run(code), Err(Exception::PROTECTION), "{code:02x?}");
            assert_eq!(machine.passed(), 0);
            assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP);
        }
    }

    #[test]
    fn jump_behind_the_limit_of_the_code_segment_faults() {
        let mut machine = Machine::new(16);
        let far = machine.run(&[0x66, 0xe9, 0x00, 0x00, 0x01, 0x00]);
        assert_eq!(far, Err(Exception::PROTECTION));
    }

    #[test]
    fn jump_in_16_bit_code_wraps_at_64_kib() {
        let mut machine = Machine::new(16);
        machine.run(&[0xe9, 0x00, 0xf8]).unwrap();
        assert_eq!(machine.cpu.rip, 3);
    }

    #[test]
    fn call_and_return_go_there_and_back() {
        let mut machine = Machine::new(64);

        machine.run(&[0xe8, 0x10, 0, 0, 0]).unwrap();

        assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RSP]), (0x15, TOP - 8));
        assert_eq!(machine.quad(TOP - 8), START + 5);
        machine.run(&[0xc2, 0x20, 0x00]).unwrap();
        assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RSP]), (5, TOP + 0x20));
    }

    #[test]
    fn call_through_memory_relative_to_the_stack_reads_before_it_pushes() {
        let mut machine = Machine::new(64);
        machine.set_quad(TOP, START + 0x40);
        machine.run(&[0xff, 0x14, 0x24]).unwrap();
        assert_eq!((machine.passed(), machine.quad(TOP - 8)), (0x40, START + 3));
    }

    #[test]
    fn operand_size_prefix_in_64_bit_code_makes_near_branches_16_bits_wide() {
        let mut machine = Machine::new(64);
        machine.run(&[0x66, 0xe8, 0x10, 0x00]).unwrap();
        assert_eq!(machine.cpu.rip, (START + 0x14) & 0xffff);
        assert_eq!(machine.cpu.gpr[Cpu::RSP], TOP - 2);
    }

    #[test]
    fn loops_count_at_the_width_of_addresses() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RCX] = 1 << 32;

        machine.run(&[0xe2, 0x10]).unwrap();
        assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RCX]), (0x12, 0xffff_ffff));
        machine.run(&[0x67, 0xe2, 0x10]).unwrap();
        assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RCX]), (0x13, 0xffff_fffe));
        machine.cpu.gpr[Cpu::RCX] = 1;
        machine.run(&[0xe2, 0x10]).unwrap();
        assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RCX]), (2, 0));
    }

    #[test]
    fn loops_with_a_condition_end_by_the_zero_flag_too() {
        let mut machine = Machine::new(64);
        for (code, flags, passed) in [(0xe1, ZF, 0x12), (0xe1, 0, 2), (0xe0, ZF, 2), (0xe0, 0, 0x12)] {
            machine.cpu.gpr[Cpu::RCX] = 5;
            machine.cpu.set_status(flags);
            machine.run(&[code, 0x10]).unwrap();
            assert_eq!((machine.passed(), machine.cpu.gpr[Cpu::RCX]), (passed, 4));
        }
    }

    #[test]
    fn jumps_on_a_counter_of_zero_look_at_its_width() {
        let mut machine = Machine::new(64);
        machine.cpu.gpr[Cpu::RCX] = 1 << 32;
        machine.run(&[0xe3, 0x10]).unwrap();
        assert_eq!(machine.passed(), 2);
        machine.run(&[0x67, 0xe3, 0x10]).unwrap();
        assert_eq!(machine.passed(), 0x13);
    }

    #[test]
    fn bound_outside_of_signed_bounds_is_reported() {
        let mut machine = Machine::new(32);
        machine.set_gprs(&[(Cpu::RSI, DATA), (Cpu::RAX, -5_i64 as u64)]);
        machine.set_bytes(DATA, &[0xfb, 0xff, 0xff, 0xff, 5, 0, 0, 0]);
        assert_eq!(machine.run(&[0x62, 0x06]), Ok(()));
        machine.cpu.gpr[Cpu::RAX] = 6;
        assert_eq!(machine.run(&[0x62, 0x06]), Err(Exception::BOUND));
    }
}
