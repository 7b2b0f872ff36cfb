//! Packed moves inside and between registers.

use iced_x86::{Instruction, Mnemonic as M};

use super::drivers::{chunks1, handler, indexed_lanes2, lanes1, lanes2};
use super::lanes::{self, blend_by_sign, interleave, pack};
use super::operands::{Vector, lane, set_lane};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let mnemonic = instruction.mnemonic();
    packs(mnemonic)
        .or_else(|| unpacks(mnemonic))
        .or_else(|| shuffles(mnemonic))
        .or_else(|| permutations(mnemonic))
        .or_else(|| blends(mnemonic))
}

fn packs(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Packsswb | M::Vpacksswb => handler!(lanes2, |a, b, _| pack(a, b, lanes::saturate_i8)),
        M::Packuswb | M::Vpackuswb => handler!(lanes2, |a, b, _| pack(a, b, lanes::saturate_u8)),
        M::Packssdw | M::Vpackssdw => handler!(lanes2, |a, b, _| pack(a, b, lanes::saturate_i16)),
        M::Packusdw | M::Vpackusdw => handler!(lanes2, |a, b, _| pack(a, b, lanes::saturate_u16)),
        _ => return None,
    })
}

/// The upper half.
fn high(a: u128) -> u64 {
    (a >> 64) as u64
}

fn unpacks(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Punpcklbw | M::Vpunpcklbw => handler!(lanes2, |a, b, _| interleave::<u8>(a as u64, b as u64)),
        M::Punpcklwd | M::Vpunpcklwd => handler!(lanes2, |a, b, _| interleave::<u16>(a as u64, b as u64)),
        M::Punpckldq | M::Vpunpckldq | M::Unpcklps | M::Vunpcklps => {
            handler!(lanes2, |a, b, _| interleave::<u32>(a as u64, b as u64))
        }
        M::Punpcklqdq | M::Vpunpcklqdq | M::Unpcklpd | M::Vunpcklpd => {
            handler!(lanes2, |a, b, _| interleave::<u64>(a as u64, b as u64))
        }
        M::Punpckhbw | M::Vpunpckhbw => handler!(lanes2, |a, b, _| interleave::<u8>(high(a), high(b))),
        M::Punpckhwd | M::Vpunpckhwd => handler!(lanes2, |a, b, _| interleave::<u16>(high(a), high(b))),
        M::Punpckhdq | M::Vpunpckhdq | M::Unpckhps | M::Vunpckhps => {
            handler!(lanes2, |a, b, _| interleave::<u32>(high(a), high(b)))
        }
        M::Punpckhqdq | M::Vpunpckhqdq | M::Unpckhpd | M::Vunpckhpd => {
            handler!(lanes2, |a, b, _| interleave::<u64>(high(a), high(b)))
        }
        _ => return None,
    })
}

fn shuffles(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Pshufb | M::Vpshufb => handler!(lanes2, |a, b, _| lanes::shuffle_bytes(a, b)),
        M::Pshufd | M::Vpshufd => handler!(lanes1, |a, order, _| lanes::shuffle_doublewords(a, order)),
        M::Pshuflw | M::Vpshuflw => handler!(lanes1, |a, order, _| {
            u128::from(high(a)) << 64 | u128::from(lanes::shuffle_words(a as u64, order))
        }),
        M::Pshufhw | M::Vpshufhw => handler!(lanes1, |a, order, _| {
            u128::from(lanes::shuffle_words(high(a), order)) << 64 | u128::from(a as u64)
        }),
        M::Shufps | M::Vshufps => handler!(lanes2, lanes::shuffle_two),
        M::Shufpd | M::Vshufpd => handler!(indexed_lanes2, |a, b, order, half| {
            lanes::shuffle_quadwords(a, b, order >> (half * 2))
        }),
        M::Palignr | M::Vpalignr => handler!(lanes2, lanes::align),
        M::Movsldup | M::Vmovsldup => handler!(chunks1, |a| a & 0xffff_ffff | a << 32),
        M::Movshdup | M::Vmovshdup => handler!(chunks1, |a| a >> 32 | a >> 32 << 32),
        _ => return None,
    })
}

fn permutations(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Vpermilps => handler!(permute_in_lanes::<4>),
        M::Vpermilpd => handler!(permute_in_lanes::<8>),
        M::Vperm2f128 | M::Vperm2i128 => handler!(permute_halves),
        M::Vpermd | M::Vpermps => handler!(permute_doublewords),
        M::Vpermq | M::Vpermpd => handler!(permute_quadwords),
        _ => return None,
    })
}

fn blends(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Blendps | M::Vblendps => handler!(indexed_lanes2, |a, b, mask, half| {
            choose::<4>(a, b, mask >> (half * 4))
        }),
        M::Vpblendd => handler!(indexed_lanes2, |a, b, mask, half| {
            choose::<4>(a, b, mask >> (half * 4))
        }),
        M::Blendpd | M::Vblendpd => handler!(indexed_lanes2, |a, b, mask, half| {
            choose::<8>(a, b, mask >> (half * 2))
        }),
        M::Pblendw | M::Vpblendw => handler!(lanes2, choose::<2>),
        M::Pblendvb | M::Vpblendvb => handler!(blend_variable, blend_by_sign::<u8>),
        M::Blendvps | M::Vblendvps => handler!(blend_variable, blend_by_sign::<u32>),
        M::Blendvpd | M::Vblendvpd => handler!(blend_variable, blend_by_sign::<u64>),
        _ => return None,
    })
}

/// Lanes of `SIZE` bytes: of `b` where the bits of `mask` are set, else of `a`.
fn choose<const SIZE: usize>(a: u128, b: u128, mask: u8) -> u128 {
    let mut chosen = 0;
    for index in 0..16 / SIZE {
        if mask >> index & 1 != 0 {
            chosen |= (u128::MAX >> (128 - SIZE * 8)) << (index * SIZE * 8);
        }
    }
    a & !chosen | b & chosen
}

/// Blends by the signs of a third register: XMM0, or the last operand of VEX encodings.
fn blend_variable(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    f: impl Fn(u64, u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mask = if shape.vex {
        exec.vector(instruction.op3_register())
    } else {
        exec.cpu.vector.registers[0].0
    };
    let result = std::array::from_fn(|index| f(a[index], b[index], mask[index]));
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `VPERMILPx`: lanes of each half, named by an immediate or by another register.
fn permute_in_lanes<const SIZE: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let variable = instruction.op2_kind() != iced_x86::OpKind::Immediate8;
    let (a, control) = if variable {
        exec.sources(instruction, shape)?
    } else {
        let order = instruction.immediate8();
        let control = |half: usize| match SIZE {
            4 => spread_pairs(order),
            _ => u128::from(order >> (half * 2) & 1) << 1 | u128::from(order >> (half * 2 + 1) & 1) << 65,
        };
        let mut controls: Vector = [0; 4];
        set_lane(&mut controls, 0, control(0));
        set_lane(&mut controls, 1, control(1));
        (exec.vector_operand(instruction, 1, shape)?, controls)
    };
    let mut result = [0; 4];
    for half in 0..shape.chunks() / 2 {
        let (from, control) = (lane(&a, half), lane(&control, half));
        let made = match SIZE {
            4 => (0..4).fold(0, |made, index| {
                let chosen = (control >> (index * 32) & 3) as u32;
                made | (from >> (chosen * 32) & 0xffff_ffff) << (index * 32)
            }),
            // Of a quadword's selector only bit 1 counts.
            _ => (0..2).fold(0, |made, index| {
                let chosen = (control >> (index * 64 + 1) & 1) as u32;
                made | u128::from((from >> (chosen * 64)) as u64) << (index * 64)
            }),
        };
        set_lane(&mut result, half, made);
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// Two bits for each doubleword.
fn spread_pairs(order: u8) -> u128 {
    (0..4).fold(0, |spread, index| {
        spread | u128::from(order >> (index * 2) & 3) << (index * 32)
    })
}

/// `VPERM2x128`.
fn permute_halves(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mut result = [0; 4];
    for half in 0..2 {
        let control = instruction.immediate8() >> (half * 4);
        let from = if control & 2 == 0 { &a } else { &b };
        let value = if control & 8 == 0 {
            lane(from, usize::from(control & 1))
        } else {
            0
        };
        set_lane(&mut result, half, value);
    }
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `VPERMD`, `VPERMPS`: the first source names doublewords of the second.
fn permute_doublewords(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (control, from) = exec.sources(instruction, shape)?;
    let doubleword = |of: &Vector, index: usize| of[index / 2] >> (index % 2 * 32) & 0xffff_ffff;
    let chosen = |index| doubleword(&from, doubleword(&control, index) as usize & 7);
    let result = std::array::from_fn(|chunk| chosen(chunk * 2) | chosen(chunk * 2 + 1) << 32);
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `VPERMQ`, `VPERMPD`.
fn permute_quadwords(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let from = exec.vector_operand(instruction, 1, shape)?;
    let order = usize::from(instruction.immediate8());
    let result = std::array::from_fn(|chunk| from[order >> (chunk * 2) & 3]);
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}
