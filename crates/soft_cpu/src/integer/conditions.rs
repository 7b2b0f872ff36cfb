//! What depends on a condition of the status flags: `Jcc`, `SETcc`, `CMOVcc`.

use iced_x86::{ConditionCode, FlowControl, Instruction, OpKind};

use super::flags::{CF, OF, PF, SF, ZF};
use super::operands::{is_register, size_of};
use crate::exception::Exception;
use crate::exec::{Exec, Handler};

/// Picks the instance of a handler for a condition, 0 to 15 as encoded.
macro_rules! by_condition {
    ($condition:expr, $handler:ident $(, $parameter:tt)*) => {
        match $condition {
            0 => Some($handler::<$($parameter,)* 0> as Handler),
            1 => Some($handler::<$($parameter,)* 1> as Handler),
            2 => Some($handler::<$($parameter,)* 2> as Handler),
            3 => Some($handler::<$($parameter,)* 3> as Handler),
            4 => Some($handler::<$($parameter,)* 4> as Handler),
            5 => Some($handler::<$($parameter,)* 5> as Handler),
            6 => Some($handler::<$($parameter,)* 6> as Handler),
            7 => Some($handler::<$($parameter,)* 7> as Handler),
            8 => Some($handler::<$($parameter,)* 8> as Handler),
            9 => Some($handler::<$($parameter,)* 9> as Handler),
            10 => Some($handler::<$($parameter,)* 10> as Handler),
            11 => Some($handler::<$($parameter,)* 11> as Handler),
            12 => Some($handler::<$($parameter,)* 12> as Handler),
            13 => Some($handler::<$($parameter,)* 13> as Handler),
            14 => Some($handler::<$($parameter,)* 14> as Handler),
            15 => Some($handler::<$($parameter,)* 15> as Handler),
            _ => None,
        }
    };
}

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let code = instruction.condition_code();
    // LOOPE and LOOPNE have conditions as well, and handlers elsewhere.
    if code == ConditionCode::None || instruction.is_loopcc() {
        return None;
    }
    // iced's order is the encodings', after `None`.
    let condition = code as u8 - 1;
    if instruction.flow_control() == FlowControl::ConditionalBranch {
        return by_condition!(condition, jump_if);
    }
    let size = size_of(instruction, 0);
    if instruction.op_count() == 1 && size == 1 {
        return by_condition!(condition, set_if);
    }
    match (size, is_register(instruction, 0)) {
        (2, true) => by_condition!(condition, move_if, 2),
        (4, true) => by_condition!(condition, move_if, 4),
        (8, true) => by_condition!(condition, move_if, 8),
        // FCMOVcc.
        _ => None,
    }
}

/// Whether condition `C` holds (Intel SDM vol. 1, appendix B).
#[inline]
fn holds<const C: u8>(flags: u64) -> bool {
    let less = flags >> 7 & 1 != flags >> 11 & 1;
    let positive = match C >> 1 {
        0 => flags & OF != 0,
        1 => flags & CF != 0,
        2 => flags & ZF != 0,
        3 => flags & (CF | ZF) != 0,
        4 => flags & SF != 0,
        5 => flags & PF != 0,
        6 => less,
        _ => less || flags & ZF != 0,
    };
    positive == (C & 1 == 0)
}

fn jump_if<const C: u8>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    if holds::<C>(exec.cpu.rflags) {
        return exec.jump(instruction.near_branch64());
    }
    Ok(())
}

fn set_if<const C: u8>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let value = holds::<C>(exec.cpu.rflags).into();
    if instruction.op0_kind() == OpKind::Register {
        exec.set_register::<1>(instruction.op0_register(), value);
        return Ok(());
    }
    exec.store_operand::<1>(instruction, value)
}

/// The source is read, and the upper half of a 64-bit register cleared, whether the condition holds or not.
fn move_if<const S: usize, const C: u8>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let source = exec.read_sized::<S>(instruction, 1)?;
    let register = instruction.op0_register();
    let value = if holds::<C>(exec.cpu.rflags) {
        source
    } else {
        exec.register::<S>(register)
    };
    exec.set_register::<S>(register, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::cpu::flags::STATUS;
    use crate::testing::integer::*;

    /// What the conditions say, in the words of Intel SDM vol. 1, table B-1.
    fn expected(condition: u8, flags: u64) -> bool {
        let [cf, pf, zf, sf, of] = [CF, PF, ZF, SF, OF].map(|flag| flags & flag != 0);
        [
            of,
            !of,
            cf,
            !cf,
            zf,
            !zf,
            cf || zf,
            !cf && !zf,
            sf,
            !sf,
            pf,
            !pf,
            sf != of,
            sf == of,
            zf || sf != of,
            !zf && sf == of,
        ][usize::from(condition)]
    }

    /// All combinations of the status flags.
    fn combinations() -> impl Iterator<Item = u64> {
        (0..0x1000).filter(|flags| flags & !STATUS == 0)
    }

    #[test]
    fn every_condition_with_every_combination_of_flags_sets_jumps_and_moves_alike() {
        let mut machine = Machine::new(64);
        for (condition, flags) in (0..16).flat_map(|c| combinations().map(move |flags| (c, flags))) {
            let holds = expected(condition, flags);
            machine.cpu.set_status(flags);
            machine.set_gprs(&[(Cpu::RAX, 0xff), (Cpu::RBX, 1 << 40 | 1), (Cpu::RCX, 1 << 40 | 2)]);

            machine.run(&[0x0f, 0x90 | condition, 0xc0]).unwrap();
            machine.run(&[0x0f, 0x40 | condition, 0xd9]).unwrap();
            machine.run(&[0x70 | condition, 0x10]).unwrap();

            let moved = 1 + u64::from(holds);
            assert_eq!(
                machine.cpu.gpr[Cpu::RAX],
                u64::from(holds),
                "{condition} {flags:#x}"
            );
            assert_eq!(machine.cpu.gpr[Cpu::RBX], moved, "{condition} {flags:#x}");
            assert_eq!(
                machine.passed(),
                2 + 0x10 * u64::from(holds),
                "{condition} {flags:#x}"
            );
        }
    }

    #[test]
    fn conditional_move_that_does_not_happen_reads_its_source_all_the_same() {
        let mut machine = Machine::new(32);
        machine.page_without(DATA);
        machine.cpu.gpr[Cpu::RSI] = DATA;
        let result = machine.run(&[0x0f, 0x44, 0x06]);
        assert_eq!(result, Err(Exception::page_fault(DATA, 0)));
    }
}
