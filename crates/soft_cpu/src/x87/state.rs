//! The extended state as the state table has it.

use std::collections::BTreeMap;

use hypervisor::Error;
use hypervisor::x86_64::{Components, ExtendedState};

use super::area::{self, LEGACY, MXCSR, Pointers, ST, XMM};
use super::{X87, xsave};
use crate::cpu::Cpu;
use crate::vector::{MXCSR_MASK, VectorState};

/// Size of components 1 and 2: sixteen halves of vector registers.
const HALVES: usize = 256;

/// What the registers hold. Components in their initial configuration are left out.
pub(crate) fn extended_state(cpu: &Cpu) -> ExtendedState {
    let mut legacy = [0; LEGACY];
    // Here both pointers are part of the state, whatever instructions show of them.
    area::put_x87(&cpu.x87, Some(Pointers::Wide), &mut legacy);
    area::put_xmm(&cpu.vector, &mut legacy);
    let mut upper = vec![0; HALVES];
    area::put_halves(&cpu.vector, 2, &mut upper);
    let contents = [
        (0, legacy[..XMM].to_vec()),
        (1, legacy[XMM..XMM + HALVES].to_vec()),
        (2, upper),
    ];
    let used = xsave::in_use(cpu, cpu.vector.registers.len());
    let components = contents.into_iter().filter(|(number, _)| used >> number & 1 != 0);
    ExtendedState {
        mxcsr: cpu.vector.mxcsr,
        components: Components(components.collect::<BTreeMap<_, _>>()),
    }
}

/// Replaces all of it.
///
/// # Errors
/// [`Error::State`] for a component that this CPU lacks or that has another size, and for bits of MXCSR that do
/// not exist.
pub(crate) fn set_extended_state(cpu: &mut Cpu, state: &ExtendedState) -> Result<(), Error> {
    let refused = |reason| Error::State {
        element: "extended",
        reason,
    };
    if state.mxcsr & !MXCSR_MASK != 0 {
        return Err(refused(format!("MXCSR {:#x} has reserved bits", state.mxcsr)));
    }
    let mut x87 = X87::default();
    let mut vector = VectorState {
        mxcsr: state.mxcsr,
        ..VectorState::default()
    };
    for (&component, bytes) in &state.components.0 {
        match (component, bytes.len()) {
            (0, XMM) => {
                let mut legacy = [0; LEGACY];
                legacy[..XMM].copy_from_slice(bytes);
                legacy[MXCSR..ST].fill(0);
                x87 = area::get_x87(&legacy, Pointers::Wide);
            }
            (1, HALVES) => area::get_halves(&mut vector, 0, 16, bytes),
            (2, HALVES) => area::get_halves(&mut vector, 2, 16, bytes),
            (_, len) => return Err(refused(format!("no component {component} of {len} bytes"))),
        }
    }
    (cpu.x87, cpu.vector) = (x87, vector);
    Ok(())
}
