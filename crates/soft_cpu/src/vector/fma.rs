//! `VFMADDxxx` and its like.

use iced_x86::{Instruction, Mnemonic as M};

use super::drivers::handler;
use super::float::{self, Double, Environment, Format, Single, is_nan};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

/// Which operands are multiplied, and what is added.
#[derive(Clone, Copy)]
enum Order {
    /// The first by the third, plus the second.
    O132,
    /// The second by the first, plus the third.
    O213,
    /// The second by the third, plus the first.
    O231,
}

/// What is negated.
#[derive(Clone, Copy)]
enum Kind {
    Add,
    Subtract,
    NegatedAdd,
    NegatedSubtract,
    /// Subtracts in even elements, adds in odd ones.
    AddSubtract,
    /// Adds in even elements, subtracts in odd ones.
    SubtractAdd,
}

macro_rules! packed_forms {
    ($mnemonic:expr, $kind:ident, $order:ident, $ps:ident, $pd:ident) => {
        match $mnemonic {
            M::$ps => return Some(handler!(packed::<Single>, Kind::$kind, Order::$order)),
            M::$pd => return Some(handler!(packed::<Double>, Kind::$kind, Order::$order)),
            _ => {}
        }
    };
}

macro_rules! forms {
    ($mnemonic:expr, $kind:ident, $order:ident, $ps:ident, $pd:ident, $ss:ident, $sd:ident) => {
        packed_forms!($mnemonic, $kind, $order, $ps, $pd);
        match $mnemonic {
            M::$ss => return Some(handler!(scalar::<Single>, Kind::$kind, Order::$order)),
            M::$sd => return Some(handler!(scalar::<Double>, Kind::$kind, Order::$order)),
            _ => {}
        }
    };
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let m = instruction.mnemonic();
    forms!(m, Add, O132, Vfmadd132ps, Vfmadd132pd, Vfmadd132ss, Vfmadd132sd);
    forms!(m, Add, O213, Vfmadd213ps, Vfmadd213pd, Vfmadd213ss, Vfmadd213sd);
    forms!(m, Add, O231, Vfmadd231ps, Vfmadd231pd, Vfmadd231ss, Vfmadd231sd);
    forms!(
        m,
        Subtract,
        O132,
        Vfmsub132ps,
        Vfmsub132pd,
        Vfmsub132ss,
        Vfmsub132sd
    );
    forms!(
        m,
        Subtract,
        O213,
        Vfmsub213ps,
        Vfmsub213pd,
        Vfmsub213ss,
        Vfmsub213sd
    );
    forms!(
        m,
        Subtract,
        O231,
        Vfmsub231ps,
        Vfmsub231pd,
        Vfmsub231ss,
        Vfmsub231sd
    );
    forms!(
        m,
        NegatedAdd,
        O132,
        Vfnmadd132ps,
        Vfnmadd132pd,
        Vfnmadd132ss,
        Vfnmadd132sd
    );
    forms!(
        m,
        NegatedAdd,
        O213,
        Vfnmadd213ps,
        Vfnmadd213pd,
        Vfnmadd213ss,
        Vfnmadd213sd
    );
    forms!(
        m,
        NegatedAdd,
        O231,
        Vfnmadd231ps,
        Vfnmadd231pd,
        Vfnmadd231ss,
        Vfnmadd231sd
    );
    forms!(
        m,
        NegatedSubtract,
        O132,
        Vfnmsub132ps,
        Vfnmsub132pd,
        Vfnmsub132ss,
        Vfnmsub132sd
    );
    forms!(
        m,
        NegatedSubtract,
        O213,
        Vfnmsub213ps,
        Vfnmsub213pd,
        Vfnmsub213ss,
        Vfnmsub213sd
    );
    forms!(
        m,
        NegatedSubtract,
        O231,
        Vfnmsub231ps,
        Vfnmsub231pd,
        Vfnmsub231ss,
        Vfnmsub231sd
    );
    packed_forms!(m, AddSubtract, O132, Vfmaddsub132ps, Vfmaddsub132pd);
    packed_forms!(m, AddSubtract, O213, Vfmaddsub213ps, Vfmaddsub213pd);
    packed_forms!(m, AddSubtract, O231, Vfmaddsub231ps, Vfmaddsub231pd);
    packed_forms!(m, SubtractAdd, O132, Vfmsubadd132ps, Vfmsubadd132pd);
    packed_forms!(m, SubtractAdd, O213, Vfmsubadd213ps, Vfmsubadd213pd);
    packed_forms!(m, SubtractAdd, O231, Vfmsubadd231ps, Vfmsubadd231pd);
    None
}

impl Kind {
    /// Whether the product and the addend are negated in element `index`.
    #[inline]
    fn signs(self, index: usize) -> (bool, bool) {
        match self {
            Self::Add => (false, false),
            Self::Subtract => (false, true),
            Self::NegatedAdd => (true, false),
            Self::NegatedSubtract => (true, true),
            Self::AddSubtract => (false, index & 1 == 0),
            Self::SubtractAdd => (false, index & 1 != 0),
        }
    }
}

/// One element. NaNs keep their signs.
fn fuse<F: Format>(
    environment: &mut Environment,
    [first, second, third]: [u64; 3],
    order: Order,
    (negate_product, negate_addend): (bool, bool),
) -> u64 {
    let [a, b, c] = match order {
        Order::O132 => [first, third, second],
        Order::O213 => [second, first, third],
        Order::O231 => [second, third, first],
    };
    let negated = |bits: u64, negate: bool| {
        if negate && !is_nan::<F>(bits) {
            bits ^ F::SIGN
        } else {
            bits
        }
    };
    let operands = [negated(a, negate_product), b, negated(c, negate_addend)];
    float::multiply_add::<F>(environment, operands, [a, b, c])
}

fn packed<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    kind: Kind,
    order: Order,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let third = exec.vector_operand(instruction, 2, shape)?;
    let first = exec.vector(instruction.op0_register());
    let second = exec.vector(instruction.op1_register());
    let mut environment = exec.float_environment();
    let mut result = [0; 4];
    let width = F::BITS as usize;
    for index in 0..shape.size() * 8 / width {
        let (chunk, at) = (index * width / 64, index * width % 64);
        let operands = [first, second, third].map(|of| of[chunk] >> at & F::ALL);
        result[chunk] |= fuse::<F>(&mut environment, operands, order, kind.signs(index)) << at;
    }
    exec.commit_float(&environment)?;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}

/// The low element; the rest of 128 bits stays.
fn scalar<F: Format>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    kind: Kind,
    order: Order,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let third = exec.narrow_operand(instruction, 2, F::BITS as usize / 8)?;
    let mut result = exec.vector(instruction.op0_register());
    let second = exec.vector(instruction.op1_register());
    let mut environment = exec.float_environment();
    let operands = [result, second, third].map(|of| of[0] & F::ALL);
    let made = fuse::<F>(&mut environment, operands, order, kind.signs(0));
    exec.commit_float(&environment)?;
    result[0] = result[0] & !F::ALL | made;
    exec.set_vector(instruction.op0_register(), result, shape);
    Ok(())
}
