//! Additions, subtractions, comparisons and logic.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::{self, CF, OF, STATUS};
use super::operands::{by_size, by_wide_size, immediate, is_register, size_of};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};

/// An operation on two operands whose result goes to the first, if anywhere.
trait Binary {
    /// Whether the result is stored.
    const STORES: bool = true;
    /// The result and all status flags.
    fn apply<const S: usize>(a: u64, b: u64, carry: u64) -> (u64, u64);
}

/// An operation on one operand.
trait Unary {
    /// The result and all status flags, of which `status` are the present ones.
    fn apply<const S: usize>(a: u64, status: u64) -> (u64, u64);
}

struct Add;
struct Adc;
struct Sub;
struct Sbb;
struct Cmp;
struct And;
struct Or;
struct Xor;
struct Test;
struct Not;
struct Neg;
struct Inc;
struct Dec;

impl Binary for Add {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        flags::add::<S>(a, b, 0)
    }
}

impl Binary for Adc {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, carry: u64) -> (u64, u64) {
        flags::add::<S>(a, b, carry)
    }
}

impl Binary for Sub {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        flags::subtract::<S>(a, b, 0)
    }
}

impl Binary for Sbb {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, carry: u64) -> (u64, u64) {
        flags::subtract::<S>(a, b, carry)
    }
}

impl Binary for Cmp {
    const STORES: bool = false;
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        flags::subtract::<S>(a, b, 0)
    }
}

impl Binary for And {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        (a & b, flags::of_result::<S>(a & b))
    }
}

impl Binary for Or {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        (a | b, flags::of_result::<S>(a | b))
    }
}

impl Binary for Xor {
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        (a ^ b, flags::of_result::<S>(a ^ b))
    }
}

impl Binary for Test {
    const STORES: bool = false;
    #[inline]
    fn apply<const S: usize>(a: u64, b: u64, _: u64) -> (u64, u64) {
        (a & b, flags::of_result::<S>(a & b))
    }
}

impl Unary for Not {
    #[inline]
    fn apply<const S: usize>(a: u64, status: u64) -> (u64, u64) {
        (!a & mask(S), status)
    }
}

impl Unary for Neg {
    #[inline]
    fn apply<const S: usize>(a: u64, _: u64) -> (u64, u64) {
        flags::subtract::<S>(0, a, 0)
    }
}

impl Unary for Inc {
    #[inline]
    fn apply<const S: usize>(a: u64, status: u64) -> (u64, u64) {
        let (result, new) = flags::add::<S>(a, 1, 0);
        (result, new & !CF | status & CF)
    }
}

impl Unary for Dec {
    #[inline]
    fn apply<const S: usize>(a: u64, status: u64) -> (u64, u64) {
        let (result, new) = flags::subtract::<S>(a, 1, 0);
        (result, new & !CF | status & CF)
    }
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Add => binary::<Add>(instruction),
        Mnemonic::Adc => binary::<Adc>(instruction),
        Mnemonic::Sub => binary::<Sub>(instruction),
        Mnemonic::Sbb => binary::<Sbb>(instruction),
        Mnemonic::Cmp => binary::<Cmp>(instruction),
        Mnemonic::And => binary::<And>(instruction),
        Mnemonic::Or => binary::<Or>(instruction),
        Mnemonic::Xor => binary::<Xor>(instruction),
        Mnemonic::Test => binary::<Test>(instruction),
        Mnemonic::Not => unary::<Not>(instruction),
        Mnemonic::Neg => unary::<Neg>(instruction),
        Mnemonic::Inc => unary::<Inc>(instruction),
        Mnemonic::Dec => unary::<Dec>(instruction),
        Mnemonic::Adcx => by_wide_size!(size_of(instruction, 0), add_through, CF),
        Mnemonic::Adox => by_wide_size!(size_of(instruction, 0), add_through, OF),
        _ => None,
    }
}

fn binary<O: Binary>(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Register) => by_size!(size, register_register, O),
        (OpKind::Register, OpKind::Memory) => by_size!(size, register_memory, O),
        (OpKind::Register, _) => by_size!(size, register_immediate, O),
        (OpKind::Memory, OpKind::Register) => by_size!(size, memory_register, O),
        (OpKind::Memory, _) => by_size!(size, memory_immediate, O),
        _ => None,
    }
}

fn unary<O: Unary>(instruction: &Instruction) -> Option<Handler> {
    let size = size_of(instruction, 0);
    if is_register(instruction, 0) {
        by_size!(size, unary_register, O)
    } else {
        by_size!(size, unary_memory, O)
    }
}

#[inline]
fn to_register<O: Binary, const S: usize>(exec: &mut Exec<'_>, instruction: &Instruction, b: u64) {
    let register = instruction.op0_register();
    let a = exec.register::<S>(register);
    let (result, status) = O::apply::<S>(a, b, exec.cpu.rflags & CF);
    if O::STORES {
        exec.set_register::<S>(register, result);
    }
    exec.cpu.set_status(status);
}

#[inline]
fn to_memory<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
    b: u64,
) -> Result<(), Exception> {
    let carry = exec.cpu.rflags & CF;
    let a = if O::STORES {
        let locked = instruction.has_lock_prefix();
        exec.update_operand::<S>(instruction, locked, |a| O::apply::<S>(a, b, carry).0)?
            .0
    } else {
        exec.load_operand::<S>(instruction)?
    };
    exec.cpu.set_status(O::apply::<S>(a, b, carry).1);
    Ok(())
}

fn register_register<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.register::<S>(instruction.op1_register());
    to_register::<O, S>(exec, instruction, b);
    Ok(())
}

fn register_immediate<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    to_register::<O, S>(exec, instruction, immediate::<S>(instruction));
    Ok(())
}

fn register_memory<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.load_operand::<S>(instruction)?;
    to_register::<O, S>(exec, instruction, b);
    Ok(())
}

fn memory_register<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.register::<S>(instruction.op1_register());
    to_memory::<O, S>(exec, instruction, b)
}

fn memory_immediate<O: Binary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    to_memory::<O, S>(exec, instruction, immediate::<S>(instruction))
}

fn unary_register<O: Unary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let register = instruction.op0_register();
    let (result, status) = O::apply::<S>(exec.register::<S>(register), exec.cpu.rflags & STATUS);
    exec.set_register::<S>(register, result);
    exec.cpu.set_status(status);
    Ok(())
}

fn unary_memory<O: Unary, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let present = exec.cpu.rflags & STATUS;
    let locked = instruction.has_lock_prefix();
    let (a, _) = exec.update_operand::<S>(instruction, locked, |a| O::apply::<S>(a, present).0)?;
    exec.cpu.set_status(O::apply::<S>(a, present).1);
    Ok(())
}

/// `ADCX` and `ADOX`: a carry through one flag of its own, all others stay.
fn add_through<const FLAG: u64, const S: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let b = exec.read_sized::<S>(instruction, 1)?;
    let register = instruction.op0_register();
    let carry = u64::from(exec.cpu.rflags & FLAG != 0);
    let (sum, status) = flags::add::<S>(exec.register::<S>(register), b, carry);
    exec.set_register::<S>(register, sum);
    let out = flags::flag_if(status & CF != 0, FLAG);
    exec.cpu.rflags = exec.cpu.rflags & !FLAG | out;
    Ok(())
}
