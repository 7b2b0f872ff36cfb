//! One vCPU alone with guest memory, for what no single instruction of the host does as one step: a locked access over
//! the end of a page, or of eight bytes.
//!
//! A lock that such accesses take would keep them apart from each other alone: translated code of another vCPU stores to
//! either page, or exchanges aligned words in it, without asking anybody. So all others stop first, where guest code looks
//! at its attention, and wait until the access is over. On hardware it is no different: the bus is locked, and everybody
//! waits. What devices store meanwhile is not held up; to them no lock of a processor reaches on PCI either.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::attention::{Attention, PAUSE};
use crate::exec::Exec;

/// Whether some vCPU of a VM is alone, or about to be.
#[derive(Debug, Default)]
pub(crate) struct Exclusive(AtomicBool);

impl Exclusive {
    fn try_take(&self) -> Option<Turn<'_>> {
        let free = self
            .0
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst);
        free.is_ok().then(|| Turn(self))
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Ends with this.
struct Turn<'a>(&'a Exclusive);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::SeqCst);
    }
}

impl Exec<'_> {
    /// Does `access` while no other vCPU of this VM is in guest code.
    pub(crate) fn alone<T>(&mut self, access: impl FnOnce(&mut Self) -> T) -> T {
        let apic = self.cpu.apic.clone();
        let others = apic.other_attentions();
        let Some(interconnect) = apic.interconnect().filter(|_| !others.is_empty()) else {
            return access(self);
        };
        let mine = apic.attention();
        // Another one may be alone, or two want to be: who waits does nothing to memory.
        mine.set_outside(true);
        let turn = loop {
            if let Some(turn) = interconnect.exclusive().try_take() {
                break turn;
            }
            std::thread::yield_now();
        };
        mine.set_outside(false);
        // Who saw this vCPU outside takes what it asked for done before guest code goes on, which is in the middle of an
        // instruction here.
        self.forget_writes_where_asked(mine);
        others.iter().for_each(|other| other.post(PAUSE));
        for other in &others {
            // A vCPU that is to stop waits for nobody: whoever stops it may have to wait for it with the other in hand.
            while !other.is_outside() && !mine.is_kicked() {
                self.forget_writes_where_asked(mine);
                std::thread::yield_now();
            }
        }
        let result = access(self);
        drop(turn);
        result
    }

    /// Waits, where another vCPU is alone, until it no longer is. What is asked meanwhile must be looked at before guest
    /// code runs, a further [`PAUSE`] among it.
    pub(crate) fn pause(&mut self, attention: &Attention) {
        attention.set_outside(true);
        if let Some(interconnect) = self.cpu.apic.interconnect() {
            while interconnect.exclusive().is_taken() {
                std::thread::yield_now();
            }
        }
        attention.set_outside(false);
    }

    /// Sends stores the long way again where another vCPU waits for that.
    pub(crate) fn forget_writes_where_asked(&mut self, mine: &Attention) {
        if mine.take_forget_writes() {
            self.cpu.tlb.forget_writes(None);
            mine.note_forgotten();
        }
    }
}
