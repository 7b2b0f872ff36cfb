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

#[cfg(test)]
mod tests {
    use super::Exception;
    use crate::cpu::Cpu;
    use crate::cpu::flags::*;
    use crate::testing::integer::*;

    /// RAX after an instruction on RAX and RBX, and the status flags.
    fn computed(code: &[u8], rax: u64, rbx: u64, status: u64) -> (u64, u64) {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, rax), (Cpu::RBX, rbx)]);
        machine.cpu.set_status(status);
        machine.run(code).unwrap();
        (machine.cpu.gpr[Cpu::RAX], machine.status())
    }

    #[test]
    fn add_of_every_width_carries_and_overflows_at_its_top() {
        let full = 0x1122_3344_5566_7788;
        for (code, rax, rbx, sum, status) in [
            (&[0x00, 0xd8][..], full | 0xff, 1, full & !0xff, CF | ZF | PF | AF),
            (&[0x66, 0x01, 0xd8], 0x1_7fff, 1, 0x1_8000, OF | SF | PF | AF),
            (&[0x01, 0xd8], full | 0xffff_ffff, 1, 0, CF | ZF | PF | AF),
            (
                &[0x48, 0x01, 0xd8],
                i64::MAX as u64,
                1,
                1 << 63,
                OF | SF | PF | AF,
            ),
            (&[0x48, 0x83, 0xc0, 0xff], 1, 0, 0, CF | ZF | PF | AF),
        ] {
            assert_eq!(computed(code, rax, rbx, 0), (sum, status), "{code:02x?}");
        }
    }

    #[test]
    fn subtractions_borrow_as_unsigned_and_overflow_as_signed() {
        for (code, rax, rbx, status, result) in [
            (&[0x48, 0x29, 0xd8][..], 0, 1, 0, (u64::MAX, CF | AF | SF | PF)),
            (&[0x28, 0xd8], 0x80, 1, 0, (0x7f, OF | AF)),
            (&[0x48, 0x19, 0xd8], 5, 4, CF, (0, ZF | PF)),
            (&[0x39, 0xd8], u64::MAX, 0xffff_ffff, 0, (u64::MAX, ZF | PF)),
            (&[0x48, 0xf7, 0xd8], 0, 0, CF, (0, ZF | PF)),
        ] {
            assert_eq!(computed(code, rax, rbx, status), result, "{code:02x?}");
        }
    }

    #[test]
    fn logic_clears_carry_overflow_and_adjust() {
        let all = STATUS;
        assert_eq!(computed(&[0x48, 0x31, 0xc0], 5, 0, all), (0, ZF | PF));
        assert_eq!(
            computed(&[0x21, 0xd8], u64::MAX, 0x8000_0001, all),
            (0x8000_0001, SF)
        );
        assert_eq!(computed(&[0x84, 0xc0], 0x80, 0, all), (0x80, SF));
        assert_eq!(computed(&[0x0c, 0x03], 0, 0, all), (3, PF));
    }

    #[test]
    fn inc_dec_and_not_keep_the_carry() {
        assert_eq!(computed(&[0xfe, 0xc0], 0xff, 0, CF), (0, CF | ZF | PF | AF));
        assert_eq!(computed(&[0x48, 0xff, 0xc8], 0, 0, 0), (u64::MAX, SF | PF | AF));
        assert_eq!(computed(&[0xf7, 0xd0], 0, 0, STATUS), (0xffff_ffff, STATUS));
    }

    #[test]
    fn byte_registers_with_and_without_rex_are_other_ones() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RAX, 0x1200), (Cpu::RSP, 0x20)]);

        // add ah, ah and add spl, spl
        machine.run(&[0x00, 0xe4]).unwrap();
        machine.run(&[0x40, 0x00, 0xe4]).unwrap();

        assert_eq!(
            (machine.cpu.gpr[Cpu::RAX], machine.cpu.gpr[Cpu::RSP]),
            (0x2400, 0x40)
        );
    }

    #[test]
    fn memory_operands_are_changed_locked_or_not() {
        let mut machine = Machine::new(64);
        machine.set_gprs(&[(Cpu::RSI, DATA), (Cpu::RAX, 3)]);
        machine.set_quad(DATA + 8, 4);

        machine.run(&[0x48, 0x01, 0x46, 0x08]).unwrap();
        machine.run(&[0xf0, 0x48, 0x01, 0x46, 0x08]).unwrap();
        machine.run(&[0x48, 0x83, 0x6e, 0x08, 0x01]).unwrap();
        machine.run(&[0x48, 0xf7, 0x5e, 0x08]).unwrap();

        assert_eq!(machine.quad(DATA + 8), 9_u64.wrapping_neg());
    }

    #[test]
    fn lock_prefix_where_it_does_not_belong_is_undefined() {
        let mut machine = Machine::new(64);
        let to_register = machine.run(&[0xf0, 0x01, 0xd8]);
        let compare = machine.run(&[0xf0, 0x39, 0x06]);
        assert_eq!(
            (to_register, compare),
            (Err(Exception::UNDEFINED), Err(Exception::UNDEFINED))
        );
    }

    #[test]
    fn adcx_and_adox_carry_through_their_own_flag() {
        let adcx = computed(&[0x66, 0x48, 0x0f, 0x38, 0xf6, 0xc3], u64::MAX, 0, CF | OF | SF);
        let adox = computed(&[0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xc3], 1, 1, CF | OF | SF);
        assert_eq!(adcx, (0, CF | OF | SF));
        assert_eq!(adox, (3, CF | SF));
    }
}
