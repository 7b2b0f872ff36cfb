//! Instructions that compute a packed result from two operands.

use std::array::from_fn;

use iced_x86::{Code, Instruction};

use super::lanes::{
    by_bytes, by_double_words, by_words, bytes, double_words, from_bytes, from_double_words, from_words,
    neighbouring_double_words, neighbouring_words, words,
};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

/// Makes the handler of every instruction listed from what it computes of its two operands.
macro_rules! binary {
    ($code:expr, $($name:ident => $compute:expr,)*) => {
        match $code {
            $(Code::$name => Some(|exec, instruction| binary(exec, instruction, $compute)),)*
            _ => None,
        }
    };
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let code = instruction.code();
    arithmetic(code)
        .or_else(|| multiplication(code))
        .or_else(|| comparison(code))
        .or_else(|| arrangement(code))
        .or_else(|| shift(code))
        .or_else(|| horizontal(code))
}

fn binary(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    compute: impl FnOnce(u64, u64) -> u64,
) -> Result<(), Exception> {
    exec.check_mmx()?;
    let source = exec.read_mm(instruction, 1)?;
    let destination = exec.read_mm(instruction, 0)?;
    exec.finish_mm(instruction, compute(destination, source));
    Ok(())
}

fn arithmetic(code: Code) -> Option<Handler> {
    binary!(code,
        Paddb_mm_mmm64 => |a, b| by_bytes(a, b, u8::wrapping_add),
        Paddw_mm_mmm64 => |a, b| by_words(a, b, u16::wrapping_add),
        Paddd_mm_mmm64 => |a, b| by_double_words(a, b, u32::wrapping_add),
        Paddq_mm_mmm64 => u64::wrapping_add,
        Psubb_mm_mmm64 => |a, b| by_bytes(a, b, u8::wrapping_sub),
        Psubw_mm_mmm64 => |a, b| by_words(a, b, u16::wrapping_sub),
        Psubd_mm_mmm64 => |a, b| by_double_words(a, b, u32::wrapping_sub),
        Psubq_mm_mmm64 => u64::wrapping_sub,
        Paddusb_mm_mmm64 => |a, b| by_bytes(a, b, u8::saturating_add),
        Paddusw_mm_mmm64 => |a, b| by_words(a, b, u16::saturating_add),
        Psubusb_mm_mmm64 => |a, b| by_bytes(a, b, u8::saturating_sub),
        Psubusw_mm_mmm64 => |a, b| by_words(a, b, u16::saturating_sub),
        Paddsb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| (a as i8).saturating_add(b as i8) as u8),
        Paddsw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (a as i16).saturating_add(b as i16) as u16),
        Psubsb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| (a as i8).saturating_sub(b as i8) as u8),
        Psubsw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (a as i16).saturating_sub(b as i16) as u16),
        Pavgb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8),
        Pavgw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (u32::from(a) + u32::from(b)).div_ceil(2) as u16),
        Pabsb_mm_mmm64 => |_, b| by_bytes(b, 0, |b, _| (b as i8).unsigned_abs()),
        Pabsw_mm_mmm64 => |_, b| by_words(b, 0, |b, _| (b as i16).unsigned_abs()),
        Pabsd_mm_mmm64 => |_, b| by_double_words(b, 0, |b, _| (b as i32).unsigned_abs()),
        Psignb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| (a as i8).wrapping_mul((b as i8).signum()) as u8),
        Psignw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (a as i16).wrapping_mul((b as i16).signum()) as u16),
        Psignd_mm_mmm64 => |a, b| {
            by_double_words(a, b, |a, b| (a as i32).wrapping_mul((b as i32).signum()) as u32)
        },
        Psadbw_mm_mmm64 => |a, b| {
            bytes(a).into_iter().zip(bytes(b)).map(|(a, b)| u64::from(a.abs_diff(b))).sum()
        },
        Pand_mm_mmm64 => |a, b| a & b,
        Pandn_mm_mmm64 => |a, b| !a & b,
        Por_mm_mmm64 => |a, b| a | b,
        Pxor_mm_mmm64 => |a, b| a ^ b,
    )
}

/// A product of two signed words.
fn product(a: u16, b: u16) -> i32 {
    i32::from(a as i16) * i32::from(b as i16)
}

/// The sums of neighbouring products of words.
fn sums_of_products(a: u64, b: u64) -> u64 {
    let (a, b) = (words(a), words(b));
    from_double_words(from_fn(|lane| {
        let (low, high) = (2 * lane, 2 * lane + 1);
        product(a[low], b[low]).wrapping_add(product(a[high], b[high])) as u32
    }))
}

/// The saturated sums of neighbouring products of unsigned bytes and signed bytes.
fn sums_of_byte_products(a: u64, b: u64) -> u64 {
    let (a, b) = (bytes(a), bytes(b));
    let product = |lane: usize| i32::from(a[lane]) * i32::from(b[lane] as i8);
    from_words(from_fn(|lane| {
        signed_word(product(2 * lane) + product(2 * lane + 1))
    }))
}

fn multiplication(code: Code) -> Option<Handler> {
    binary!(code,
        Pmullw_mm_mmm64 => |a, b| by_words(a, b, u16::wrapping_mul),
        Pmulhw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (product(a, b) >> 16) as u16),
        Pmulhuw_mm_mmm64 => |a, b| by_words(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16),
        Pmulhrsw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (((product(a, b) >> 14) + 1) >> 1) as u16),
        Pmuludq_mm_mmm64 => |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff),
        Pmaddwd_mm_mmm64 => sums_of_products,
        Pmaddubsw_mm_mmm64 => sums_of_byte_products,
    )
}

fn comparison(code: Code) -> Option<Handler> {
    binary!(code,
        Pcmpeqb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| if a == b { u8::MAX } else { 0 }),
        Pcmpeqw_mm_mmm64 => |a, b| by_words(a, b, |a, b| if a == b { u16::MAX } else { 0 }),
        Pcmpeqd_mm_mmm64 => |a, b| by_double_words(a, b, |a, b| if a == b { u32::MAX } else { 0 }),
        Pcmpgtb_mm_mmm64 => |a, b| by_bytes(a, b, |a, b| if a as i8 > b as i8 { u8::MAX } else { 0 }),
        Pcmpgtw_mm_mmm64 => |a, b| by_words(a, b, |a, b| if a as i16 > b as i16 { u16::MAX } else { 0 }),
        Pcmpgtd_mm_mmm64 => |a, b| {
            by_double_words(a, b, |a, b| if a as i32 > b as i32 { u32::MAX } else { 0 })
        },
        Pmaxub_mm_mmm64 => |a, b| by_bytes(a, b, u8::max),
        Pminub_mm_mmm64 => |a, b| by_bytes(a, b, u8::min),
        Pmaxsw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (a as i16).max(b as i16) as u16),
        Pminsw_mm_mmm64 => |a, b| by_words(a, b, |a, b| (a as i16).min(b as i16) as u16),
    )
}

fn signed_byte(value: u16) -> u8 {
    (value as i16).clamp(i8::MIN.into(), i8::MAX.into()) as u8
}

fn unsigned_byte(value: u16) -> u8 {
    (value as i16).clamp(0, u8::MAX.into()) as u8
}

fn signed_word(value: i32) -> u16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as u16
}

/// The words of `a`, then those of `b`, each as a byte.
fn pack_words(a: u64, b: u64, convert: fn(u16) -> u8) -> u64 {
    let (a, b) = (words(a), words(b));
    from_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]].map(convert))
}

fn pack_double_words(a: u64, b: u64) -> u64 {
    let (a, b) = (double_words(a), double_words(b));
    from_words([a[0], a[1], b[0], b[1]].map(|value| signed_word(value as i32)))
}

/// The bytes of two halves in turn.
fn interleave_bytes(a: u32, b: u32) -> u64 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    from_bytes([a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]])
}

/// The words of two halves in turn.
fn interleave_words(a: u32, b: u32) -> u64 {
    from_words([a as u16, b as u16, (a >> 16) as u16, (b >> 16) as u16])
}

fn shuffle_bytes(a: u64, b: u64) -> u64 {
    let a = bytes(a);
    from_bytes(bytes(b).map(|index| {
        if index & 0x80 != 0 {
            0
        } else {
            a[usize::from(index & 7)]
        }
    }))
}

fn arrangement(code: Code) -> Option<Handler> {
    binary!(code,
        Packsswb_mm_mmm64 => |a, b| pack_words(a, b, signed_byte),
        Packuswb_mm_mmm64 => |a, b| pack_words(a, b, unsigned_byte),
        Packssdw_mm_mmm64 => pack_double_words,
        Punpcklbw_mm_mmm32 => |a, b| interleave_bytes(a as u32, b as u32),
        Punpcklwd_mm_mmm32 => |a, b| interleave_words(a as u32, b as u32),
        Punpckldq_mm_mmm32 => |a, b| from_double_words([a as u32, b as u32]),
        Punpckhbw_mm_mmm64 => |a, b| interleave_bytes((a >> 32) as u32, (b >> 32) as u32),
        Punpckhwd_mm_mmm64 => |a, b| interleave_words((a >> 32) as u32, (b >> 32) as u32),
        Punpckhdq_mm_mmm64 => |a, b| from_double_words([(a >> 32) as u32, (b >> 32) as u32]),
        Pshufb_mm_mmm64 => shuffle_bytes,
    )
}

/// Shifts words; by more bits than they have, nothing is left.
fn shift_words(value: u64, count: u64, shift: impl Fn(u16, u32) -> u16) -> u64 {
    if count > 15 {
        return 0;
    }
    by_words(value, 0, |lane, _| shift(lane, count as u32))
}

fn shift_double_words(value: u64, count: u64, shift: impl Fn(u32, u32) -> u32) -> u64 {
    if count > 31 {
        return 0;
    }
    by_double_words(value, 0, |lane, _| shift(lane, count as u32))
}

fn shift_quad_word(value: u64, count: u64, shift: impl Fn(u64, u32) -> u64) -> u64 {
    if count > 63 { 0 } else { shift(value, count as u32) }
}

/// Shifts words with their signs, which are all that is left of a shift by more bits than they have.
fn shift_signed_words(value: u64, count: u64) -> u64 {
    by_words(value, 0, |lane, _| (lane as i16 >> count.min(15)) as u16)
}

fn shift_signed_double_words(value: u64, count: u64) -> u64 {
    by_double_words(value, 0, |lane, _| (lane as i32 >> count.min(31)) as u32)
}

fn shift(code: Code) -> Option<Handler> {
    binary!(code,
        Psllw_mm_mmm64 => |a, count| shift_words(a, count, |lane, count| lane << count),
        Psllw_mm_imm8 => |a, count| shift_words(a, count, |lane, count| lane << count),
        Psrlw_mm_mmm64 => |a, count| shift_words(a, count, |lane, count| lane >> count),
        Psrlw_mm_imm8 => |a, count| shift_words(a, count, |lane, count| lane >> count),
        Psraw_mm_mmm64 => shift_signed_words,
        Psraw_mm_imm8 => shift_signed_words,
        Pslld_mm_mmm64 => |a, count| shift_double_words(a, count, |lane, count| lane << count),
        Pslld_mm_imm8 => |a, count| shift_double_words(a, count, |lane, count| lane << count),
        Psrld_mm_mmm64 => |a, count| shift_double_words(a, count, |lane, count| lane >> count),
        Psrld_mm_imm8 => |a, count| shift_double_words(a, count, |lane, count| lane >> count),
        Psrad_mm_mmm64 => shift_signed_double_words,
        Psrad_mm_imm8 => shift_signed_double_words,
        Psllq_mm_mmm64 => |a, count| shift_quad_word(a, count, |a, count| a << count),
        Psllq_mm_imm8 => |a, count| shift_quad_word(a, count, |a, count| a << count),
        Psrlq_mm_mmm64 => |a, count| shift_quad_word(a, count, |a, count| a >> count),
        Psrlq_mm_imm8 => |a, count| shift_quad_word(a, count, |a, count| a >> count),
    )
}

fn horizontal(code: Code) -> Option<Handler> {
    binary!(code,
        Phaddw_mm_mmm64 => |a, b| neighbouring_words(a, b, i16::wrapping_add),
        Phaddsw_mm_mmm64 => |a, b| neighbouring_words(a, b, i16::saturating_add),
        Phaddd_mm_mmm64 => |a, b| neighbouring_double_words(a, b, u32::wrapping_add),
        Phsubw_mm_mmm64 => |a, b| neighbouring_words(a, b, i16::wrapping_sub),
        Phsubsw_mm_mmm64 => |a, b| neighbouring_words(a, b, i16::saturating_sub),
        Phsubd_mm_mmm64 => |a, b| neighbouring_double_words(a, b, u32::wrapping_sub),
    )
}
