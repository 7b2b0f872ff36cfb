//! `PCMPESTRx` and `PCMPISTRx`: comparisons of strings (Intel SDM vol. 2, 4.1).

use iced_x86::{Code as C, Instruction, Mnemonic as M};

use super::drivers::handler;
use super::operands::{Shape, Vector, lane, low};
use crate::cpu::{Cpu, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Pcmpestri | M::Pcmpestri64 | M::Vpcmpestri | M::Vpcmpestri64 => {
            handler!(compare_strings, explicit_lengths, give_index)
        }
        M::Pcmpestrm | M::Pcmpestrm64 | M::Vpcmpestrm | M::Vpcmpestrm64 => {
            handler!(compare_strings, explicit_lengths, give_mask)
        }
        M::Pcmpistri | M::Vpcmpistri => handler!(compare_strings, implicit_lengths, give_index),
        M::Pcmpistrm | M::Vpcmpistrm => handler!(compare_strings, implicit_lengths, give_mask),
        _ => return None,
    })
}

/// The characters of one operand, as numbers whose order is that of the format.
struct Text {
    characters: [i32; 16],
    /// How many are in the string.
    len: usize,
}

/// What the immediate says about characters.
#[derive(Clone, Copy)]
struct Characters {
    words: bool,
    signed: bool,
}

impl Characters {
    fn of(control: u8) -> Self {
        Self {
            words: control & 1 != 0,
            signed: control & 2 != 0,
        }
    }

    /// How many fill a register.
    fn count(self) -> usize {
        if self.words { 8 } else { 16 }
    }

    fn split(self, operand: u128) -> [i32; 16] {
        std::array::from_fn(|index| match (self.words, self.signed) {
            _ if index >= self.count() => 0,
            (false, false) => i32::from((operand >> (index * 8)) as u8),
            (false, true) => i32::from((operand >> (index * 8)) as i8),
            (true, false) => i32::from((operand >> (index * 16)) as u16),
            (true, true) => i32::from((operand >> (index * 16)) as i16),
        })
    }
}

/// The lengths that EAX and EDX (or RAX and RDX) give, without their signs.
fn explicit_lengths(exec: &Exec<'_>, instruction: &Instruction, count: usize, _: [&[i32]; 2]) -> [usize; 2] {
    let wide = matches!(
        instruction.code(),
        C::Pcmpestri64_xmm_xmmm128_imm8
            | C::Pcmpestrm64_xmm_xmmm128_imm8
            | C::VEX_Vpcmpestri64_xmm_xmmm128_imm8
            | C::VEX_Vpcmpestrm64_xmm_xmmm128_imm8
    );
    [Cpu::RAX, Cpu::RDX].map(|register| {
        let value = exec.cpu.gpr[register];
        let len = if wide {
            (value as i64).unsigned_abs()
        } else {
            (value as i32).unsigned_abs().into()
        };
        len.min(count as u64) as usize
    })
}

/// Strings that end before a zero.
fn implicit_lengths(_: &Exec<'_>, _: &Instruction, count: usize, operands: [&[i32]; 2]) -> [usize; 2] {
    operands.map(|characters| {
        let end = characters[..count].iter().position(|&character| character == 0);
        end.unwrap_or(count)
    })
}

type Lengths = fn(&Exec<'_>, &Instruction, usize, [&[i32]; 2]) -> [usize; 2];
type Give = fn(&mut Exec<'_>, Shape, Characters, u8, u32);

fn compare_strings(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    lengths: Lengths,
    give: Give,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let second: Vector = exec.narrow_operand(instruction, 1, 16)?;
    let first = exec.vector(instruction.op0_register());
    let control = instruction.immediate8();
    let kind = Characters::of(control);
    let [a, b] = [first, second].map(|operand| kind.split(lane(&operand, 0)));
    let count = kind.count();
    let [a_len, b_len] = lengths(exec, instruction, count, [&a, &b]);
    let a = Text {
        characters: a,
        len: a_len,
    };
    let b = Text {
        characters: b,
        len: b_len,
    };
    let all = (1_u32 << count) - 1;
    let inside = (1_u32 << b_len) - 1;
    let found = aggregate(&a, &b, count, control >> 2 & 3);
    let result = match control >> 4 & 3 {
        1 => found ^ all,
        3 => found ^ inside,
        _ => found,
    };
    give(exec, shape, kind, control, result);
    let flag = |condition: bool, flag: u64| if condition { flag } else { 0 };
    exec.cpu.set_status(
        flag(result != 0, flags::CF)
            | flag(b_len < count, flags::ZF)
            | flag(a_len < count, flags::SF)
            | flag(result & 1 != 0, flags::OF),
    );
    Ok(())
}

/// One bit for each character of `b`.
fn aggregate(a: &Text, b: &Text, count: usize, how: u8) -> u32 {
    let set = &a.characters[..a.len];
    let holds = |index: usize| {
        let character = b.characters[index];
        let inside = index < b.len;
        match how {
            // Equal to any.
            0 => inside && set.contains(&character),
            // In one of the ranges.
            1 => {
                inside
                    && set
                        .chunks_exact(2)
                        .any(|pair| (pair[0]..=pair[1]).contains(&character))
            }
            // Equal to the one in the same place; behind both ends all are.
            2 if inside && index < a.len => character == a.characters[index],
            2 => !inside && index >= a.len,
            // The string begins here, as far as the register goes.
            _ => set
                .iter()
                .zip(index..count)
                .all(|(&wanted, at)| at < b.len && b.characters[at] == wanted),
        }
    };
    (0..count).fold(0, |bits, index| bits | u32::from(holds(index)) << index)
}

/// Gives ECX the index of the lowest or highest bit, or the number of characters where there is none.
fn give_index(exec: &mut Exec<'_>, _: Shape, kind: Characters, control: u8, result: u32) {
    let index = match (result, control & 0x40 != 0) {
        (0, _) => kind.count() as u32,
        (_, false) => result.trailing_zeros(),
        (_, true) => 31 - result.leading_zeros(),
    };
    exec.cpu.gpr[Cpu::RCX] = index.into();
}

/// Gives XMM0 the bits, each alone or as wide as a character.
fn give_mask(exec: &mut Exec<'_>, shape: Shape, kind: Characters, control: u8, result: u32) {
    let mask = match (control & 0x40 != 0, kind.words) {
        (false, _) => result.into(),
        (true, words) => {
            let (width, ones) = if words { (16, 0xffff) } else { (8, 0xff) };
            (0..kind.count()).fold(0, |mask, index| {
                mask | (u128::from(result >> index & 1) * ones) << (index * width)
            })
        }
    };
    exec.set_vector(iced_x86::Register::XMM0, low(mask), shape);
}
