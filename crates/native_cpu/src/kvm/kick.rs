//! Interrupting a vCPU from another thread.
//!
//! `immediate_exit` in the shared run page makes the next KVM_RUN return at once; a signal interrupts one
//! that is under way (api.rst, "5. The kvm_run structure"). Set in this order they leave no gap, and KVM
//! finishes a half-done access before it looks at the flag.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_os::RunningThread;
use hypervisor::{Error, Kick};
use kvm_bindings::kvm_run;

use super::host_os_error;

/// Where the vCPU is now.
struct Target {
    /// `immediate_exit` in the run page; null once the vCPU is gone.
    immediate_exit: *const AtomicU8,
    /// A kick came and `run` has not yet returned for it.
    pending: bool,
    /// The thread inside [`hypervisor::Vcpu::run`].
    thread: Option<RunningThread>,
}

// SAFETY: the pointer is only followed under the lock, while the vCPU that owns the page lives.
unsafe impl Send for Target {}

/// The handle given out, shared with the vCPU.
pub(super) struct Kicker {
    target: Mutex<Target>,
}

impl Kicker {
    pub(super) fn new(run: &mut kvm_run) -> Self {
        let immediate_exit = (&raw mut run.immediate_exit).cast_const().cast();
        Self {
            target: Mutex::new(Target {
                immediate_exit,
                pending: false,
                thread: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is about to run the vCPU, until the guard is dropped. Kicks after that wait for the
    /// next run.
    pub(super) fn enter(&self) -> Result<Inside<'_>, Error> {
        let thread = RunningThread::current().map_err(host_os_error("make a thread interruptible"))?;
        self.lock().thread = Some(thread);
        Ok(Inside { kicker: self })
    }

    /// KVM_RUN was interrupted: whether by a kick, which is then heeded, or by some other signal.
    pub(super) fn take(&self) -> bool {
        let mut target = self.lock();
        target.set_immediate_exit(0);
        std::mem::take(&mut target.pending)
    }

    /// The run page is about to go.
    pub(super) fn retire(&self) {
        self.lock().immediate_exit = std::ptr::null();
    }
}

impl Target {
    fn set_immediate_exit(&self, value: u8) {
        // SAFETY: null, or a byte of the run page, which is mapped until `retire` has taken the lock; the
        // kernel reads it as a single byte.
        if let Some(byte) = unsafe { self.immediate_exit.as_ref() } {
            byte.store(value, Ordering::SeqCst);
        }
    }
}

/// A thread is inside `run`.
pub(super) struct Inside<'a> {
    kicker: &'a Kicker,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.kicker.lock().thread = None;
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        let mut target = self.lock();
        target.pending = true;
        target.set_immediate_exit(1);
        if let Some(thread) = target.thread {
            // SAFETY: the thread has entered and, as the lock is held, not left: it has not ended.
            unsafe { thread.interrupt() };
        }
    }
}
