//! Packed integers: arithmetic, comparisons, logic, shifts.

use iced_x86::{Instruction, Mnemonic as M};

use super::drivers::{byte_shifts, chunks1, chunks2, handler, indexed_lanes2, lanes1, lanes2, shifts};
use super::lanes::{self, compare, horizontal, map2, shift_left, shift_right};
use super::operands::Vector;
use crate::cpu::flags;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let mnemonic = instruction.mnemonic();
    arithmetic(mnemonic)
        .or_else(|| products(mnemonic))
        .or_else(|| comparisons(mnemonic))
        .or_else(|| logic(mnemonic))
        .or_else(|| across(mnemonic))
        .or_else(|| shift(mnemonic))
}

fn arithmetic(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Paddb | M::Vpaddb => handler!(chunks2, |a, b| map2::<u8>(a, b, u8::wrapping_add)),
        M::Paddw | M::Vpaddw => handler!(chunks2, |a, b| map2::<u16>(a, b, u16::wrapping_add)),
        M::Paddd | M::Vpaddd => handler!(chunks2, |a, b| map2::<u32>(a, b, u32::wrapping_add)),
        M::Paddq | M::Vpaddq => handler!(chunks2, u64::wrapping_add),
        M::Psubb | M::Vpsubb => handler!(chunks2, |a, b| map2::<u8>(a, b, u8::wrapping_sub)),
        M::Psubw | M::Vpsubw => handler!(chunks2, |a, b| map2::<u16>(a, b, u16::wrapping_sub)),
        M::Psubd | M::Vpsubd => handler!(chunks2, |a, b| map2::<u32>(a, b, u32::wrapping_sub)),
        M::Psubq | M::Vpsubq => handler!(chunks2, u64::wrapping_sub),
        M::Paddsb | M::Vpaddsb => handler!(chunks2, |a, b| map2::<i8>(a, b, i8::saturating_add)),
        M::Paddsw | M::Vpaddsw => handler!(chunks2, |a, b| map2::<i16>(a, b, i16::saturating_add)),
        M::Paddusb | M::Vpaddusb => handler!(chunks2, |a, b| map2::<u8>(a, b, u8::saturating_add)),
        M::Paddusw | M::Vpaddusw => handler!(chunks2, |a, b| map2::<u16>(a, b, u16::saturating_add)),
        M::Psubsb | M::Vpsubsb => handler!(chunks2, |a, b| map2::<i8>(a, b, i8::saturating_sub)),
        M::Psubsw | M::Vpsubsw => handler!(chunks2, |a, b| map2::<i16>(a, b, i16::saturating_sub)),
        M::Psubusb | M::Vpsubusb => handler!(chunks2, |a, b| map2::<u8>(a, b, u8::saturating_sub)),
        M::Psubusw | M::Vpsubusw => handler!(chunks2, |a, b| map2::<u16>(a, b, u16::saturating_sub)),
        M::Pavgb | M::Vpavgb => handler!(chunks2, lanes::average8),
        M::Pavgw | M::Vpavgw => handler!(chunks2, lanes::average16),
        M::Pabsb | M::Vpabsb => handler!(chunks1, lanes::absolute8),
        M::Pabsw | M::Vpabsw => handler!(chunks1, lanes::absolute16),
        M::Pabsd | M::Vpabsd => handler!(chunks1, lanes::absolute32),
        M::Psignb | M::Vpsignb => handler!(chunks2, lanes::sign8),
        M::Psignw | M::Vpsignw => handler!(chunks2, lanes::sign16),
        M::Psignd | M::Vpsignd => handler!(chunks2, lanes::sign32),
        _ => return None,
    })
}

fn products(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Pmullw | M::Vpmullw => handler!(chunks2, |a, b| map2::<u16>(a, b, u16::wrapping_mul)),
        M::Pmulld | M::Vpmulld => handler!(chunks2, |a, b| map2::<u32>(a, b, u32::wrapping_mul)),
        M::Pmulhw | M::Vpmulhw => handler!(chunks2, lanes::multiply_high_signed),
        M::Pmulhuw | M::Vpmulhuw => handler!(chunks2, lanes::multiply_high),
        M::Pmulhrsw | M::Vpmulhrsw => handler!(chunks2, lanes::multiply_rounded),
        M::Pmuludq | M::Vpmuludq => handler!(chunks2, lanes::multiply_even),
        M::Pmuldq | M::Vpmuldq => handler!(chunks2, lanes::multiply_even_signed),
        M::Pmaddwd | M::Vpmaddwd => handler!(chunks2, lanes::multiply_add_words),
        M::Pmaddubsw | M::Vpmaddubsw => handler!(chunks2, lanes::multiply_add_bytes),
        M::Psadbw | M::Vpsadbw => handler!(chunks2, lanes::sum_of_differences),
        M::Mpsadbw | M::Vmpsadbw => handler!(indexed_lanes2, |a, b, control, half| {
            // The upper half of a wide register has its own three bits.
            lanes::sums_of_differences(a, b, control >> (half * 3))
        }),
        M::Phminposuw | M::Vphminposuw => handler!(lanes1, |a, _, _| lanes::smallest_word(a)),
        _ => return None,
    })
}

fn comparisons(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Pcmpeqb | M::Vpcmpeqb => handler!(chunks2, |a, b| compare::<u8>(a, b, |x, y| x == y)),
        M::Pcmpeqw | M::Vpcmpeqw => handler!(chunks2, |a, b| compare::<u16>(a, b, |x, y| x == y)),
        M::Pcmpeqd | M::Vpcmpeqd => handler!(chunks2, |a, b| compare::<u32>(a, b, |x, y| x == y)),
        M::Pcmpeqq | M::Vpcmpeqq => handler!(chunks2, |a, b| compare::<u64>(a, b, |x, y| x == y)),
        M::Pcmpgtb | M::Vpcmpgtb => handler!(chunks2, |a, b| compare::<i8>(a, b, |x, y| x > y)),
        M::Pcmpgtw | M::Vpcmpgtw => handler!(chunks2, |a, b| compare::<i16>(a, b, |x, y| x > y)),
        M::Pcmpgtd | M::Vpcmpgtd => handler!(chunks2, |a, b| compare::<i32>(a, b, |x, y| x > y)),
        M::Pcmpgtq | M::Vpcmpgtq => handler!(chunks2, |a, b| compare::<i64>(a, b, |x, y| x > y)),
        M::Pminsb | M::Vpminsb => handler!(chunks2, |a, b| map2::<i8>(a, b, Ord::min)),
        M::Pminsw | M::Vpminsw => handler!(chunks2, |a, b| map2::<i16>(a, b, Ord::min)),
        M::Pminsd | M::Vpminsd => handler!(chunks2, |a, b| map2::<i32>(a, b, Ord::min)),
        M::Pminub | M::Vpminub => handler!(chunks2, |a, b| map2::<u8>(a, b, Ord::min)),
        M::Pminuw | M::Vpminuw => handler!(chunks2, |a, b| map2::<u16>(a, b, Ord::min)),
        M::Pminud | M::Vpminud => handler!(chunks2, |a, b| map2::<u32>(a, b, Ord::min)),
        M::Pmaxsb | M::Vpmaxsb => handler!(chunks2, |a, b| map2::<i8>(a, b, Ord::max)),
        M::Pmaxsw | M::Vpmaxsw => handler!(chunks2, |a, b| map2::<i16>(a, b, Ord::max)),
        M::Pmaxsd | M::Vpmaxsd => handler!(chunks2, |a, b| map2::<i32>(a, b, Ord::max)),
        M::Pmaxub | M::Vpmaxub => handler!(chunks2, |a, b| map2::<u8>(a, b, Ord::max)),
        M::Pmaxuw | M::Vpmaxuw => handler!(chunks2, |a, b| map2::<u16>(a, b, Ord::max)),
        M::Pmaxud | M::Vpmaxud => handler!(chunks2, |a, b| map2::<u32>(a, b, Ord::max)),
        _ => return None,
    })
}

fn logic(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Pand | M::Vpand | M::Andps | M::Vandps | M::Andpd | M::Vandpd => {
            handler!(chunks2, |a, b| a & b)
        }
        M::Pandn | M::Vpandn | M::Andnps | M::Vandnps | M::Andnpd | M::Vandnpd => {
            handler!(chunks2, |a, b| !a & b)
        }
        M::Por | M::Vpor | M::Orps | M::Vorps | M::Orpd | M::Vorpd => handler!(chunks2, |a, b| a | b),
        M::Pxor | M::Vpxor | M::Xorps | M::Vxorps | M::Xorpd | M::Vxorpd => {
            handler!(chunks2, |a, b| a ^ b)
        }
        M::Ptest | M::Vptest => handler!(test, u64::MAX),
        M::Vtestps => handler!(test, 0x8000_0000_8000_0000),
        M::Vtestpd => handler!(test, 0x8000_0000_0000_0000),
        _ => return None,
    })
}

fn across(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Phaddw | M::Vphaddw => {
            handler!(lanes2, |a, b, _| horizontal::<u16>(a, b, u16::wrapping_add))
        }
        M::Phaddd | M::Vphaddd => {
            handler!(lanes2, |a, b, _| horizontal::<u32>(a, b, u32::wrapping_add))
        }
        M::Phaddsw | M::Vphaddsw => {
            handler!(lanes2, |a, b, _| horizontal::<i16>(a, b, i16::saturating_add))
        }
        M::Phsubw | M::Vphsubw => {
            handler!(lanes2, |a, b, _| horizontal::<u16>(a, b, u16::wrapping_sub))
        }
        M::Phsubd | M::Vphsubd => {
            handler!(lanes2, |a, b, _| horizontal::<u32>(a, b, u32::wrapping_sub))
        }
        M::Phsubsw | M::Vphsubsw => {
            handler!(lanes2, |a, b, _| horizontal::<i16>(a, b, i16::saturating_sub))
        }
        _ => return None,
    })
}

fn shift(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Psllw | M::Vpsllw => handler!(shifts, shift_left::<u16>),
        M::Pslld | M::Vpslld => handler!(shifts, shift_left::<u32>),
        M::Psllq | M::Vpsllq => handler!(shifts, shift_left::<u64>),
        M::Psrlw | M::Vpsrlw => handler!(shifts, shift_right::<u16>),
        M::Psrld | M::Vpsrld => handler!(shifts, shift_right::<u32>),
        M::Psrlq | M::Vpsrlq => handler!(shifts, shift_right::<u64>),
        M::Psraw | M::Vpsraw => handler!(shifts, lanes::shift_right_signed16),
        M::Psrad | M::Vpsrad => handler!(shifts, lanes::shift_right_signed32),
        M::Pslldq | M::Vpslldq => handler!(byte_shifts, lanes::bytes_left),
        M::Psrldq | M::Vpsrldq => handler!(byte_shifts, lanes::bytes_right),
        M::Vpsllvd => handler!(chunks2, |a, b| {
            map2::<u32>(a, b, |x, count| x.checked_shl(count).unwrap_or(0))
        }),
        M::Vpsrlvd => handler!(chunks2, |a, b| {
            map2::<u32>(a, b, |x, count| x.checked_shr(count).unwrap_or(0))
        }),
        M::Vpsravd => handler!(chunks2, |a, b| {
            map2::<u32>(a, b, |x, count| (x as i32 >> count.min(31)) as u32)
        }),
        M::Vpsllvq => handler!(chunks2, |a, count| if count > 63 { 0 } else { a << count }),
        M::Vpsrlvq => handler!(chunks2, |a, count| if count > 63 { 0 } else { a >> count }),
        _ => return None,
    })
}

/// `PTEST`, `VTESTPx`: ZF where no bit of both is set, CF where every bit of the second is set in the first, as far
/// as `considered` goes.
fn test(exec: &mut Exec<'_>, instruction: &Instruction, considered: u64) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let a: Vector = exec.vector(instruction.op0_register());
    let b = exec.vector_operand(instruction, 1, shape)?;
    let (mut both, mut missing) = (0, 0);
    for (a, b) in a.into_iter().zip(b).take(shape.chunks()) {
        both |= a & b & considered;
        missing |= !a & b & considered;
    }
    let zero = if both == 0 { flags::ZF } else { 0 };
    let carry = if missing == 0 { flags::CF } else { 0 };
    exec.cpu.set_status(zero | carry);
    Ok(())
}
