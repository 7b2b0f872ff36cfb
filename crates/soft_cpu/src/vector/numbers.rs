//! Arithmetic and comparisons of floating-point numbers.

use iced_x86::{Code as C, Instruction, Mnemonic as M};

use super::drivers::handler;
use super::float::{self, Double, Environment, Format, Rounding, Single};
use super::float_drivers::{packed1, packed2, scalar1, scalar2};
use super::operands::Vector;
use crate::cpu::flags;
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let mnemonic = instruction.mnemonic();
    four(mnemonic)
        .or_else(|| roots(mnemonic))
        .or_else(|| comparisons(instruction))
        .or_else(|| across(mnemonic))
}

/// Handlers of an operation on two numbers in its four forms.
macro_rules! forms2 {
    ($mnemonic:expr, $operation:ident, $ps:ident $vps:ident $pd:ident $vpd:ident $ss:ident $vss:ident $sd:ident $vsd:ident) => {
        match $mnemonic {
            M::$ps | M::$vps => return Some(handler!(packed2::<Single>, float::$operation::<Single>)),
            M::$pd | M::$vpd => return Some(handler!(packed2::<Double>, float::$operation::<Double>)),
            M::$ss | M::$vss => return Some(handler!(scalar2::<Single>, float::$operation::<Single>)),
            M::$sd | M::$vsd => return Some(handler!(scalar2::<Double>, float::$operation::<Double>)),
            _ => {}
        }
    };
}

fn four(mnemonic: M) -> Option<Handler> {
    forms2!(mnemonic, add, Addps Vaddps Addpd Vaddpd Addss Vaddss Addsd Vaddsd);
    forms2!(mnemonic, subtract, Subps Vsubps Subpd Vsubpd Subss Vsubss Subsd Vsubsd);
    forms2!(mnemonic, multiply, Mulps Vmulps Mulpd Vmulpd Mulss Vmulss Mulsd Vmulsd);
    forms2!(mnemonic, divide, Divps Vdivps Divpd Vdivpd Divss Vdivss Divsd Vdivsd);
    forms2!(mnemonic, minimum, Minps Vminps Minpd Vminpd Minss Vminss Minsd Vminsd);
    forms2!(mnemonic, maximum, Maxps Vmaxps Maxpd Vmaxpd Maxss Vmaxss Maxsd Vmaxsd);
    None
}

fn roots(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Sqrtps | M::Vsqrtps => handler!(packed1::<Single>, float::square_root::<Single>),
        M::Sqrtpd | M::Vsqrtpd => handler!(packed1::<Double>, float::square_root::<Double>),
        M::Sqrtss | M::Vsqrtss => handler!(scalar1::<Single>, float::square_root::<Single>),
        M::Sqrtsd | M::Vsqrtsd => handler!(scalar1::<Double>, float::square_root::<Double>),
        M::Rcpps | M::Vrcpps => handler!(packed1::<Single>, |_, a| float::reciprocal(a)),
        M::Rcpss | M::Vrcpss => handler!(scalar1::<Single>, |_, a| float::reciprocal(a)),
        M::Rsqrtps | M::Vrsqrtps => handler!(packed1::<Single>, |_, a| float::reciprocal_root(a)),
        M::Rsqrtss | M::Vrsqrtss => handler!(scalar1::<Single>, |_, a| float::reciprocal_root(a)),
        M::Roundps | M::Vroundps => handler!(round_packed::<Single>),
        M::Roundpd | M::Vroundpd => handler!(round_packed::<Double>),
        M::Roundss | M::Vroundss => handler!(round_scalar::<Single>),
        M::Roundsd | M::Vroundsd => handler!(round_scalar::<Double>),
        _ => return None,
    })
}

fn comparisons(instruction: &Instruction) -> Option<Handler> {
    if instruction.code() == C::Cmpsd_xmm_xmmm64_imm8 {
        // The mnemonic is a string instruction's as well.
        return Some(handler!(compare_scalar::<Double>));
    }
    Some(match instruction.mnemonic() {
        M::Cmpps | M::Vcmpps => handler!(compare_packed::<Single>),
        M::Cmppd | M::Vcmppd => handler!(compare_packed::<Double>),
        M::Cmpss | M::Vcmpss => handler!(compare_scalar::<Single>),
        M::Vcmpsd => handler!(compare_scalar::<Double>),
        M::Comiss | M::Vcomiss => handler!(compare_to_flags::<Single>, true),
        M::Comisd | M::Vcomisd => handler!(compare_to_flags::<Double>, true),
        M::Ucomiss | M::Vucomiss => handler!(compare_to_flags::<Single>, false),
        M::Ucomisd | M::Vucomisd => handler!(compare_to_flags::<Double>, false),
        _ => return None,
    })
}

fn across(mnemonic: M) -> Option<Handler> {
    Some(match mnemonic {
        M::Haddps | M::Vhaddps => handler!(horizontal_singles, float::add::<Single>),
        M::Hsubps | M::Vhsubps => handler!(horizontal_singles, float::subtract::<Single>),
        M::Haddpd | M::Vhaddpd => handler!(horizontal_doubles, float::add::<Double>),
        M::Hsubpd | M::Vhsubpd => handler!(horizontal_doubles, float::subtract::<Double>),
        M::Addsubps | M::Vaddsubps => handler!(alternate::<Single>),
        M::Addsubpd | M::Vaddsubpd => handler!(alternate::<Double>),
        M::Dpps | M::Vdpps => handler!(dot_product_singles),
        M::Dppd | M::Vdppd => handler!(dot_product_doubles),
        _ => return None,
    })
}

/// How `ROUNDxx` rounds, by its immediate, and whether it notes that it did (Intel SDM vol. 2, ROUNDPD).
fn rounding_of(environment: &Environment, control: u8) -> (Rounding, bool) {
    let rounding = if control & 4 != 0 {
        environment.rounding
    } else {
        Rounding::of(control.into())
    };
    (rounding, control & 8 == 0)
}

fn round<F: Format>(environment: &mut Environment, a: u64, control: u8) -> u64 {
    let (rounding, notes) = rounding_of(environment, control);
    float::round_to_integral::<F>(environment, a, rounding, notes)
}

fn round_packed<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let control = instruction.immediate8();
    packed1::<F>(exec, instruction, |environment, a| {
        round::<F>(environment, a, control)
    })
}

fn round_scalar<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let control = instruction.immediate8();
    scalar1::<F>(exec, instruction, |environment, a| {
        round::<F>(environment, a, control)
    })
}

/// The predicate of `CMPxx`: legacy encodings know eight.
fn predicate(exec: &Exec<'_>, instruction: &Instruction) -> Result<u8, Exception> {
    let known = if exec.shape(instruction)?.vex { 0x1f } else { 7 };
    Ok(instruction.immediate8() & known)
}

fn compare_packed<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let number = predicate(exec, instruction)?;
    packed2::<F>(exec, instruction, |environment, a, b| {
        if float::predicate::<F>(environment, a, b, number) {
            F::ALL
        } else {
            0
        }
    })
}

fn compare_scalar<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let number = predicate(exec, instruction)?;
    scalar2::<F>(exec, instruction, |environment, a, b| {
        if float::predicate::<F>(environment, a, b, number) {
            F::ALL
        } else {
            0
        }
    })
}

/// `COMISx`, `UCOMISx`.
fn compare_to_flags<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    signals: bool,
) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let a = exec.vector(instruction.op0_register())[0] & F::ALL;
    let b = exec.narrow_operand(instruction, 1, F::BITS as usize / 8)?[0] & F::ALL;
    let mut environment = exec.float_environment();
    let status = match float::order::<F>(&mut environment, a, b, signals) {
        None => flags::ZF | flags::PF | flags::CF,
        Some(std::cmp::Ordering::Less) => flags::CF,
        Some(std::cmp::Ordering::Equal) => flags::ZF,
        Some(std::cmp::Ordering::Greater) => 0,
    };
    exec.commit_float(&environment)?;
    exec.cpu.set_status(status);
    Ok(())
}

/// The two numbers of a chunk.
#[inline]
fn singles(chunk: u64) -> (u64, u64) {
    (chunk & 0xffff_ffff, chunk >> 32)
}

/// `HADDPS`, `HSUBPS`.
fn horizontal_singles(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mut environment = exec.float_environment();
    let mut pair = |chunk| {
        let (low, high) = singles(chunk);
        operation(&mut environment, low, high)
    };
    let mut result = [0; 4];
    for half in (0..shape.chunks()).step_by(2) {
        result[half] = pair(a[half]) | pair(a[half + 1]) << 32;
        result[half + 1] = pair(b[half]) | pair(b[half + 1]) << 32;
    }
    exec.commit_float(&environment)?;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `HADDPD`, `HSUBPD`.
fn horizontal_doubles(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let mut environment = exec.float_environment();
    let mut result = [0; 4];
    for half in (0..shape.chunks()).step_by(2) {
        result[half] = operation(&mut environment, a[half], a[half + 1]);
        result[half + 1] = operation(&mut environment, b[half], b[half + 1]);
    }
    exec.commit_float(&environment)?;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `ADDSUBPx`: even elements are subtracted, odd ones added.
fn alternate<F: Format>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let mut odd = false;
    packed2::<F>(exec, instruction, |environment, a, b| {
        odd = !odd;
        if odd {
            float::subtract::<F>(environment, a, b)
        } else {
            float::add::<F>(environment, a, b)
        }
    })
}

/// `DPPS`: the products that the immediate names, added two by two, where it says so. Each step reports its
/// exceptions before the next (Intel SDM vol. 2, DPPS).
fn dot_product_singles(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let control = instruction.immediate8();
    let halves = shape.chunks() / 2;
    let element = |of: &Vector, index: usize| of[index / 2] >> (index % 2 * 32) & 0xffff_ffff;
    let mut environment = exec.float_environment();
    let products: [u64; 8] = std::array::from_fn(|index| {
        if index / 4 >= halves || control >> (index % 4 + 4) & 1 == 0 {
            return 0;
        }
        float::multiply::<Single>(&mut environment, element(&a, index), element(&b, index))
    });
    exec.end_float_step(&mut environment)?;
    let pairs: [u64; 4] = std::array::from_fn(|index| {
        float::add::<Single>(&mut environment, products[index * 2], products[index * 2 + 1])
    });
    exec.end_float_step(&mut environment)?;
    let sums: [u64; 2] = std::array::from_fn(|index| {
        float::add::<Single>(&mut environment, pairs[index * 2], pairs[index * 2 + 1])
    });
    exec.commit_float(&environment)?;
    let place = |half: usize, index: usize| if control >> index & 1 != 0 { sums[half] } else { 0 };
    let result = std::array::from_fn(|chunk| {
        let (half, index) = (chunk / 2, chunk % 2 * 2);
        place(half, index) | place(half, index + 1) << 32
    });
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// `DPPD`.
fn dot_product_doubles(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (a, b) = exec.sources(instruction, shape)?;
    let control = instruction.immediate8();
    let mut environment = exec.float_environment();
    let products: [u64; 2] = std::array::from_fn(|index| {
        if control >> (index + 4) & 1 == 0 {
            return 0;
        }
        float::multiply::<Double>(&mut environment, a[index], b[index])
    });
    exec.end_float_step(&mut environment)?;
    let sum = float::add::<Double>(&mut environment, products[0], products[1]);
    exec.commit_float(&environment)?;
    let place = |index: u32| if control >> index & 1 != 0 { sum } else { 0 };
    exec.set_vector(instruction.op0_register(), [place(0), place(1), 0, 0], shape);
    Ok(())
}
