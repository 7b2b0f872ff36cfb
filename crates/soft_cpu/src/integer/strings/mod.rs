//! String instructions (Intel SDM vol. 1, 7.3.9), one element or many.

mod elements;
mod stretches;
#[cfg(test)]
mod tests;

use iced_x86::{Code, Instruction, OpKind};

use crate::cpu::{Cpu, flags};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, mask};
use elements::{Cmps, Element, Lods, Movs, Scas, Stos};

/// Work that one execution of a repeated instruction does before it lets interrupts in, in bytes.
const WORK: u64 = 64 * 1024;
/// What an element counts as that is moved by itself.
const ELEMENT: u64 = 16;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Code as C;
    match instruction.code() {
        C::Movsb_m8_m8 => by_address_size::<Movs, 1>(instruction),
        C::Movsw_m16_m16 => by_address_size::<Movs, 2>(instruction),
        C::Movsd_m32_m32 => by_address_size::<Movs, 4>(instruction),
        C::Movsq_m64_m64 => by_address_size::<Movs, 8>(instruction),
        C::Stosb_m8_AL => by_address_size::<Stos, 1>(instruction),
        C::Stosw_m16_AX => by_address_size::<Stos, 2>(instruction),
        C::Stosd_m32_EAX => by_address_size::<Stos, 4>(instruction),
        C::Stosq_m64_RAX => by_address_size::<Stos, 8>(instruction),
        C::Lodsb_AL_m8 => by_address_size::<Lods, 1>(instruction),
        C::Lodsw_AX_m16 => by_address_size::<Lods, 2>(instruction),
        C::Lodsd_EAX_m32 => by_address_size::<Lods, 4>(instruction),
        C::Lodsq_RAX_m64 => by_address_size::<Lods, 8>(instruction),
        C::Scasb_AL_m8 => by_address_size::<Scas, 1>(instruction),
        C::Scasw_AX_m16 => by_address_size::<Scas, 2>(instruction),
        C::Scasd_EAX_m32 => by_address_size::<Scas, 4>(instruction),
        C::Scasq_RAX_m64 => by_address_size::<Scas, 8>(instruction),
        C::Cmpsb_m8_m8 => by_address_size::<Cmps, 1>(instruction),
        C::Cmpsw_m16_m16 => by_address_size::<Cmps, 2>(instruction),
        C::Cmpsd_m32_m32 => by_address_size::<Cmps, 4>(instruction),
        C::Cmpsq_m64_m64 => by_address_size::<Cmps, 8>(instruction),
        _ => None,
    }
}

fn by_address_size<E: Element, const S: usize>(instruction: &Instruction) -> Option<Handler> {
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    Some(match (address_size(instruction), repeats) {
        (2, false) => once::<E, S, 2>,
        (2, true) => repeated::<E, S, 2>,
        (4, false) => once::<E, S, 4>,
        (4, true) => repeated::<E, S, 4>,
        (_, false) => once::<E, S, 8>,
        (_, true) => repeated::<E, S, 8>,
    })
}

/// Width of SI and DI.
fn address_size(instruction: &Instruction) -> usize {
    let sizes = instruction.op_kinds().filter_map(|kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
        _ => None,
    });
    sizes.last().unwrap_or(8)
}

impl Exec<'_> {
    /// Moves SI or DI by one element of `S` bytes in the direction that DF gives.
    #[inline]
    fn advance<const S: usize, const A: usize>(&mut self, number: usize) {
        let at = self.number::<A>(number);
        let next = if self.cpu.rflags & flags::DF == 0 {
            at.wrapping_add(S as u64)
        } else {
            at.wrapping_sub(S as u64)
        };
        self.set_number::<A>(number, next & mask(A));
    }
}

fn once<E: Element, const S: usize, const A: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    E::step::<S, A>(exec, instruction).map(|_| ())
}

fn repeated<E: Element, const S: usize, const A: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    // A single step is one element, and breakpoints are looked for at each.
    let mut work = if exec.is_debugged() { 1 } else { WORK };
    loop {
        let left = exec.number::<A>(Cpu::RCX);
        if left == 0 {
            return Ok(());
        }
        if work == 0 {
            exec.cpu.rip = instruction.ip();
            return Ok(());
        }
        let at_once = E::stretch::<S, A>(exec, instruction, left.min(work / S as u64))?;
        if at_once != 0 {
            exec.set_number::<A>(Cpu::RCX, left - at_once);
            work -= at_once * S as u64;
            continue;
        }
        let goes_on = E::step::<S, A>(exec, instruction)?;
        exec.set_number::<A>(Cpu::RCX, left - 1);
        if !goes_on {
            return Ok(());
        }
        work = work.saturating_sub(ELEMENT);
    }
}
