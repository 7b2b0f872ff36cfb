//! How other threads get a vCPU's attention, wherever it is: in guest code, asleep in `HLT`, or not running.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// `run` is to return.
pub(crate) const KICK: u32 = 1 << 0;
/// The local APIC has something: an interrupt, NMI, INIT or SIPI.
pub(crate) const EVENT: u32 = 1 << 1;
/// Stores must take the long way again: the log of dirty pages was read, or a page came to hold code.
pub(crate) const FORGET_WRITES: u32 = 1 << 2;
/// A device or another vCPU stored to code that this one may have decoded: see [`Attention::take_changed_code`].
pub(crate) const CODE_CHANGED: u32 = 1 << 3;
/// Somebody wants to know where guest code is.
pub(crate) const SAMPLE: u32 = 1 << 4;
/// Another vCPU wants to be alone with guest memory.
pub(crate) const PAUSE: u32 = 1 << 5;

/// A word that guest code looks at before every block, and a place to sleep.
#[derive(Debug)]
pub(crate) struct Attention {
    word: AtomicU32,
    /// The vCPU is not in guest code, and will look at the word before it is again.
    outside: AtomicBool,
    /// How often [`FORGET_WRITES`] was done.
    forgotten: AtomicU64,
    changed_code: Mutex<Vec<u64>>,
    sleeping: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            word: AtomicU32::default(),
            outside: AtomicBool::new(true),
            forgotten: AtomicU64::default(),
            changed_code: Mutex::default(),
            sleeping: AtomicBool::default(),
            lock: Mutex::default(),
            wake: Condvar::default(),
        }
    }
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

    /// Tells that the page of code at `gpa` was stored to.
    pub(crate) fn code_changed(&self, gpa: u64) {
        self.changed_code
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(gpa);
        self.post(CODE_CHANGED);
    }

    /// The pages of which [`CODE_CHANGED`] tells.
    pub(crate) fn take_changed_code(&self) -> Vec<u64> {
        std::mem::take(&mut *self.changed_code.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, which stay to be taken.
    pub(crate) fn changed_code(&self) -> Vec<u64> {
        self.changed_code
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The vCPU leaves guest code, or comes back to it; then it looks at the word first.
    pub(crate) fn set_outside(&self, outside: bool) {
        self.outside.store(outside, Ordering::SeqCst);
    }

    /// Whether the vCPU is not in guest code.
    pub(crate) fn is_outside(&self) -> bool {
        self.outside.load(Ordering::SeqCst)
    }

    /// [`FORGET_WRITES`] was done.
    pub(crate) fn note_forgotten(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks for [`FORGET_WRITES`]; what comes back tells [`Attention::has_forgotten`] whether it was done.
    pub(crate) fn ask_to_forget(&self) -> u64 {
        let before = self.forgotten.load(Ordering::SeqCst);
        self.post(FORGET_WRITES);
        before
    }

    /// Whether what was asked then is done, or will be before the next guest instruction.
    pub(crate) fn has_forgotten(&self, before: u64) -> bool {
        self.is_outside() || self.forgotten.load(Ordering::SeqCst) != before
    }

    /// Takes [`FORGET_WRITES`] alone, where it was asked.
    pub(crate) fn take_forget_writes(&self) -> bool {
        self.word.fetch_and(!FORGET_WRITES, Ordering::SeqCst) & FORGET_WRITES != 0
    }

    /// Whether `run` is to return.
    pub(crate) fn is_kicked(&self) -> bool {
        self.word.load(Ordering::SeqCst) & KICK != 0
    }

    /// The word itself, for translated code.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }
}
