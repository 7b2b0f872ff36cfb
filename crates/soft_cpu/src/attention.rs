//! How other threads get a vCPU's attention, wherever it is: in guest code, asleep in `HLT`, or not running.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// `run` is to return.
pub(crate) const KICK: u32 = 1 << 0;
/// The local APIC has something: an interrupt, NMI, INIT or SIPI.
pub(crate) const EVENT: u32 = 1 << 1;
/// Stores must take the long way again: the log of dirty pages was read, or a page came to hold code.
pub(crate) const FORGET_WRITES: u32 = 1 << 2;
/// Another vCPU stored to code that this one may have decoded: see [`crate::vm::SharedCode`].
pub(crate) const CODE_CHANGED: u32 = 1 << 3;

/// A word that guest code looks at before every block, and a place to sleep.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    word: AtomicU32,
    sleeping: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Attention {
    /// Asks for it. Never blocks for long.
    pub(crate) fn post(&self, bits: u32) {
        self.word.fetch_or(bits, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) {
            let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_one();
        }
    }

    /// Whether anything was asked since the last [`Attention::take`].
    #[inline]
    pub(crate) fn wanted(&self) -> bool {
        self.word.load(Ordering::Relaxed) != 0
    }

    /// What was asked; from now on it is not.
    pub(crate) fn take(&self) -> u32 {
        self.word.swap(0, Ordering::SeqCst)
    }

    /// Sleeps until something is asked, at most until `deadline`.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.store(true, Ordering::SeqCst);
        while self.word.load(Ordering::SeqCst) == 0 {
            held = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    self.wake
                        .wait_timeout(held, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.wake.wait(held).unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// The word itself, for translated code.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }
}
