//! Instructions that this CPU does not have, told once each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use iced_x86::{Instruction, Mnemonic};

use crate::exec::Exec;
use crate::memory::PAGE_OFFSET;

/// The most that are remembered; others are not told any more.
const MOST: usize = 256;
/// The longest instruction in bytes.
const MAX_LEN: usize = 15;

/// What the vCPUs of a VM have told.
#[derive(Debug, Default)]
pub(crate) struct Undefined {
    seen: Mutex<HashSet<Vec<u8>>>,
}

impl Undefined {
    /// Whether these bytes are to be told: not before, and not after [`MOST`] others.
    pub(super) fn is_new(&self, bytes: &[u8]) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.len() < MOST && seen.insert(bytes.to_vec())
    }
}

impl Exec<'_> {
    /// Tells of an instruction that raises #UD, where it was not told yet.
    #[cold]
    pub(crate) fn tell_undefined(&self, instruction: &Instruction) {
        // These are there to raise it.
        if matches!(
            instruction.mnemonic(),
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2
        ) {
            return;
        }
        let len = instruction.len().clamp(1, MAX_LEN);
        let base = self.code_base();
        let at = |offset| self.look_at_byte(base.wrapping_add(instruction.ip()).wrapping_add(offset));
        let bytes: Vec<u8> = (0..len as u64).map_while(at).collect();
        if self.cpu.undefined.is_new(&bytes) {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            tracing::info!(
                "the guest used an instruction that its CPU does not have: bytes {} at rip={:#x} cpl={}",
                hex.join(" "),
                instruction.ip(),
                self.cpu.cpl()
            );
        }
    }

    fn look_at_byte(&self, linear: u64) -> Option<u8> {
        let mut byte = [0];
        let gpa = self.look_up(linear)?;
        debug_assert!(gpa & PAGE_OFFSET == linear & PAGE_OFFSET);
        self.memory.ram().read(gpa, &mut byte).then_some(byte[0])
    }
}
