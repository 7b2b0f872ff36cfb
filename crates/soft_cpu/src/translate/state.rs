//! What a vCPU keeps for its translated code.

use super::pages::{CODE_PAGES, UNVERIFIED};
use crate::cpu::TlbSet;
use crate::exception::Exception;

/// Entries of the jump caches: of code as it usually runs, and of what kernels do while they may access user memory;
/// powers of two.
const JUMPS: usize = 4096;
const OPEN_JUMPS: usize = 512;

/// How many entries the jump cache of a TLB set has.
pub(crate) const fn jump_entries(set: TlbSet) -> usize {
    match set {
        TlbSet::Supervisor | TlbSet::User => JUMPS,
        TlbSet::SupervisorOpen => OPEN_JUMPS,
    }
}

/// Where a jump cache has `rip`. Its low bits alone would not do: functions begin at multiples of 16.
pub(crate) fn jump_slot(set: TlbSet, rip: u64) -> usize {
    let low = rip as u32;
    ((low >> JUMP_SHIFT) ^ low) as usize % jump_entries(set)
}

/// Which bits are mixed into the lowest.
pub(crate) const JUMP_SHIFT: u8 = 7;

/// Where the code for one address is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct JumpEntry {
    pub(crate) rip: u64,
    pub(crate) code: u64,
}

/// What is in slot `slot` where nothing is: an address that belongs into another, so that no jump finds it, wherever a
/// guest may want to go.
const fn empty(slot: usize) -> JumpEntry {
    JumpEntry {
        rip: if slot == 0 { 1 } else { 0 },
        code: 0,
    }
}

/// A jump cache in which nothing is.
const fn empty_jumps<const N: usize>() -> [JumpEntry; N] {
    let mut jumps = [empty(1); N];
    jumps[0] = empty(0);
    jumps
}

/// Fields that translated code reads and writes.
#[repr(C)]
pub(crate) struct TranslatorState {
    /// Address of the word of the vCPU's attention.
    pub(crate) attention: u64,
    /// The native stack pointer while guest code runs.
    pub(crate) native_rsp: u64,
    /// Where to begin, and where to go on after a call of the slow path.
    pub(crate) target: u64,
    /// The six status flags as `SETO AL` and `LAHF` give them, valid while translated code runs.
    pub(crate) status: u64,
    /// The block whose slow path is taken, and the number of the instruction in it.
    pub(crate) place: u32,
    pub(crate) op: u32,
    /// The exit that was taken, by its number; [`NO_LINK`] where it cannot be linked.
    pub(crate) link: u32,
    /// The code page that was not known to be where it was, by its number; [`NO_PAGE`] where none.
    pub(crate) page: u32,
    /// Not 0 while guest vector registers and MXCSR are in the host's.
    pub(crate) vectors_held: u32,
    /// MXCSR for everything that is not guest code.
    pub(crate) host_mxcsr: u32,
    /// Not 0 while an interrupt waits for RFLAGS.IF.
    pub(crate) waiting: u32,
    /// The `Exec` that translated code works for.
    pub(crate) exec: usize,
    /// What the slow path raised.
    pub(crate) exception: Option<Exception>,
    /// When each code page was last looked up, as the generation of then.
    pub(crate) verified: [u64; CODE_PAGES],
    /// The jump caches, by [`jump_slot`].
    pub(crate) user_jumps: [JumpEntry; JUMPS],
    pub(crate) supervisor_jumps: [JumpEntry; JUMPS],
    pub(crate) open_jumps: [JumpEntry; OPEN_JUMPS],
}

/// No exit.
pub(crate) const NO_LINK: u32 = u32::MAX;
/// No code page.
pub(crate) const NO_PAGE: u32 = u32::MAX;

impl TranslatorState {
    pub(crate) fn new() -> Self {
        Self {
            attention: 0,
            native_rsp: 0,
            target: 0,
            status: 0,
            place: 0,
            op: 0,
            link: NO_LINK,
            page: NO_PAGE,
            vectors_held: 0,
            host_mxcsr: 0x1f80,
            waiting: 0,
            exec: 0,
            exception: None,
            verified: [UNVERIFIED; CODE_PAGES],
            user_jumps: empty_jumps(),
            supervisor_jumps: empty_jumps(),
            open_jumps: empty_jumps(),
        }
    }

    /// Where code of one TLB set is.
    pub(crate) fn jumps(&mut self, set: TlbSet) -> &mut [JumpEntry] {
        match set {
            TlbSet::User => &mut self.user_jumps,
            TlbSet::Supervisor => &mut self.supervisor_jumps,
            TlbSet::SupervisorOpen => &mut self.open_jumps,
        }
    }

    /// The same, to be looked at.
    pub(crate) fn jumps_of(&self, set: TlbSet) -> &[JumpEntry] {
        match set {
            TlbSet::User => &self.user_jumps,
            TlbSet::Supervisor => &self.supervisor_jumps,
            TlbSet::SupervisorOpen => &self.open_jumps,
        }
    }

    /// Forgets where code is.
    pub(crate) fn forget_jumps(&mut self) {
        for set in [TlbSet::User, TlbSet::Supervisor, TlbSet::SupervisorOpen] {
            self.forget_jumps_of(set);
        }
    }

    /// Forgets where the code at `rip` is, if that is at `code`.
    pub(crate) fn forget_jump(&mut self, rip: u64, code: u64) {
        for set in [TlbSet::User, TlbSet::Supervisor, TlbSet::SupervisorOpen] {
            let slot = jump_slot(set, rip);
            let entry = &mut self.jumps(set)[slot];
            if entry.code == code {
                *entry = empty(slot);
            }
        }
    }

    /// Forgets where code of one TLB set is.
    pub(crate) fn forget_jumps_of(&mut self, set: TlbSet) {
        let jumps = self.jumps(set);
        jumps.fill(empty(1));
        jumps[0] = empty(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_entry_is_found_by_no_address_of_its_slot() {
        for set in [TlbSet::User, TlbSet::SupervisorOpen] {
            for slot in 0..jump_entries(set) {
                assert_ne!(jump_slot(set, empty(slot).rip), slot);
            }
        }
    }
}
