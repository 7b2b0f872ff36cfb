//! Loads and stores of chosen elements: masked moves and gathers.

use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

use super::drivers::handler;
use super::operands::{Shape, Vector, to_bytes};
use crate::cpu::{Mode, SegReg};
use crate::exception::Exception;
use crate::exec::{Exec, Handler, address_mask, mask, sign_extend};
use crate::memory::Access;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Maskmovdqu | M::Vmaskmovdqu => handler!(store_bytes),
        M::Vmaskmovps | M::Vpmaskmovd => handler!(masked::<4>),
        M::Vmaskmovpd | M::Vpmaskmovq => handler!(masked::<8>),
        M::Vgatherdps | M::Vpgatherdd => handler!(gather::<4, 4>),
        M::Vgatherdpd | M::Vpgatherdq => handler!(gather::<4, 8>),
        M::Vgatherqps | M::Vpgatherqd => handler!(gather::<8, 4>),
        M::Vgatherqpd | M::Vpgatherqq => handler!(gather::<8, 8>),
        _ => return None,
    })
}

/// Element `index` of `SIZE` bytes, zero-extended.
#[inline]
fn element<const SIZE: usize>(of: &Vector, index: usize) -> u64 {
    of[index * SIZE / 8] >> (index * SIZE % 8 * 8) & mask(SIZE)
}

#[inline]
fn set_element<const SIZE: usize>(of: &mut Vector, index: usize, value: u64) {
    let at = index * SIZE % 8 * 8;
    let chunk = &mut of[index * SIZE / 8];
    *chunk = *chunk & !(mask(SIZE) << at) | (value & mask(SIZE)) << at;
}

/// Whether the sign of element `index` is set.
#[inline]
fn chosen<const SIZE: usize>(by: &Vector, index: usize) -> bool {
    element::<SIZE>(by, index) >> (SIZE * 8 - 1) != 0
}

/// `MASKMOVDQU`: bytes to (R)DI. Memory faults as if all bytes were chosen: seen on Zen.
fn store_bytes(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    exec.shape(instruction)?;
    let bytes = to_bytes(&exec.vector(instruction.op1_register()));
    let by = exec.vector(instruction.op2_register());
    let (segment, offset) = exec.string_address(instruction);
    let start = exec.linear(segment, offset, 16, Access::Write)?;
    exec.check_aligned(start, 8)?;
    let set = exec.cpu.mode.set;
    exec.linear_probe(set, start, 16, Access::Write)?;
    for index in (0..16).filter(|&index| chosen::<1>(&by, index)) {
        let at = exec.behind(start, index as u64);
        exec.linear_store(set, at, 1, bytes[index].into())?;
    }
    Ok(())
}

/// `VMASKMOVPx`, `VPMASKMOVx`: elements that are not chosen load as zero, are not stored, and never fault.
fn masked<const SIZE: usize>(exec: &mut Exec<'_>, instruction: &Instruction) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let by = exec.vector(instruction.op1_register());
    let start = exec.effective_address(instruction);
    let width = address_mask(instruction, exec.cpu.mode.bits);
    let stores = instruction.op0_kind() == OpKind::Memory;
    let access = if stores { Access::Write } else { Access::Read };
    let set = exec.cpu.mode.set;
    let chosen_elements = || (0..shape.size() / SIZE).filter(|&index| chosen::<SIZE>(&by, index));
    if !stores {
        let mut value = [0; 4];
        for index in chosen_elements() {
            let at = exec.element_address::<SIZE>(start, width, index, access)?;
            set_element::<SIZE>(&mut value, index, exec.linear_load(set, at, SIZE)?);
        }
        exec.set_vector(instruction.op0_register(), value, shape);
        return Ok(());
    }
    let value = exec.vector(instruction.op2_register());
    for index in chosen_elements() {
        let at = exec.element_address::<SIZE>(start, width, index, access)?;
        exec.linear_probe(set, at, SIZE as u64, access)?;
    }
    for index in chosen_elements() {
        let at = exec.element_address::<SIZE>(start, width, index, access)?;
        exec.linear_store(set, at, SIZE, element::<SIZE>(&value, index))?;
    }
    Ok(())
}

impl Exec<'_> {
    /// The linear address of one element. These accesses are never checked for alignment, so it is asked for byte
    /// by byte.
    fn element_address<const SIZE: usize>(
        &self,
        (segment, offset): (SegReg, u64),
        width: u64,
        index: usize,
        access: Access,
    ) -> Result<u64, Exception> {
        let first = offset.wrapping_add((index * SIZE) as u64) & width;
        self.linear(segment, first.wrapping_add(SIZE as u64 - 1), 1, access)?;
        self.linear(segment, first, 1, access)
    }
}

/// `VGATHERxx`, `VPGATHERxx`: elements of `SIZE` bytes at addresses with indices of `INDEX` bytes. What was loaded
/// before a fault stays loaded, and is not chosen any more (Intel SDM vol. 2, VGATHERDPS).
fn gather<const INDEX: usize, const SIZE: usize>(
    exec: &mut Exec<'_>,
    instruction: &Instruction,
) -> Result<(), Exception> {
    let shape = exec.shape(instruction)?;
    let (destination, by) = (instruction.op0_register(), instruction.op2_register());
    let indices = exec.vector(instruction.memory_index());
    let (mut value, mut choice) = (exec.vector(destination), exec.vector(by));
    let wide = shape.wide || instruction.memory_index().is_ymm();
    let count = if wide { 32 } else { 16 } / SIZE.max(INDEX);
    let mut result = Ok(());
    for index in 0..count {
        if chosen::<SIZE>(&choice, index) {
            match exec.gather_one::<SIZE>(instruction, sign_extend(element::<INDEX>(&indices, index), INDEX))
            {
                Ok(loaded) => set_element::<SIZE>(&mut value, index, loaded),
                Err(exception) => {
                    result = Err(exception);
                    break;
                }
            }
        }
        set_element::<SIZE>(&mut choice, index, 0);
    }
    if result.is_ok() {
        choice = [0; 4];
        value = clear_above(value, count * SIZE);
    }
    let all = Shape {
        vex: true,
        wide: true,
    };
    exec.set_vector(destination, value, all);
    exec.set_vector(by, choice, all);
    result
}

/// With nothing from byte `size` on.
fn clear_above(value: Vector, size: usize) -> Vector {
    std::array::from_fn(|chunk| if chunk * 8 < size { value[chunk] } else { 0 })
}

impl Exec<'_> {
    fn gather_one<const SIZE: usize>(
        &mut self,
        instruction: &Instruction,
        index: u64,
    ) -> Result<u64, Exception> {
        let (segment, start) = self.effective_address(instruction);
        let scaled = index.wrapping_mul(instruction.memory_index_scale().into());
        let width = match instruction.memory_base() {
            Register::None => instruction.memory_displ_size() as usize,
            base => base.size(),
        };
        let offset = start.wrapping_add(scaled) & Mode::mask(width as u8 * 8);
        let at = self.element_address::<SIZE>((segment, offset), u64::MAX, 0, Access::Read)?;
        self.linear_load(self.cpu.mode.set, at, SIZE)
    }
}
