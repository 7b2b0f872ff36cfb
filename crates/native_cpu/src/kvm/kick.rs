//! Interrupting a vCPU from another thread.
//!
//! `immediate_exit` in the shared run page makes the next KVM_RUN return at once; a signal interrupts one
//! that is under way (api.rst, "5. The kvm_run structure"). Both together leave no gap.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use hypervisor::Kick;
use kvm_bindings::kvm_run;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal that interrupts KVM_RUN. Its handler does nothing: it exists so that the call returns.
fn kick_signal() -> libc::c_int {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // Real-time signals can always be given a handler; if this one cannot, a kick waits for the next exit.
        let _ = register_signal_handler(SIGRTMIN(), ignore);
    });
    SIGRTMIN()
}

/// Where the vCPU is now.
struct Target {
    /// `immediate_exit` in the run page; null once the vCPU is gone.
    immediate_exit: *const AtomicU8,
    /// The thread inside [`hypervisor::Vcpu::run`].
    thread: Option<libc::pthread_t>,
}

// SAFETY: the pointer is only followed under the lock, while the vCPU that owns the page lives.
unsafe impl Send for Target {}

/// The handle given out, shared with the vCPU.
pub(super) struct Kicker {
    target: Mutex<Target>,
    signal: libc::c_int,
}

impl Kicker {
    pub(super) fn new(run: &mut kvm_run) -> Self {
        let immediate_exit: *mut u8 = &raw mut run.immediate_exit;
        let target = Target {
            immediate_exit: immediate_exit.cast_const().cast(),
            thread: None,
        };
        Self {
            target: Mutex::new(target),
            signal: kick_signal(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is about to run the vCPU.
    pub(super) fn enter(&self) {
        // SAFETY: pthread_self has no preconditions.
        self.lock().thread = Some(unsafe { libc::pthread_self() });
    }

    /// The calling thread runs it no more; kicks from now on wait for the next run.
    pub(super) fn leave(&self) {
        self.lock().thread = None;
    }

    /// A kick has been heeded.
    pub(super) fn clear(&self) {
        self.set(0);
    }

    /// The run page is about to go.
    pub(super) fn retire(&self) {
        let mut target = self.lock();
        target.immediate_exit = std::ptr::null();
        target.thread = None;
    }

    fn set(&self, value: u8) -> Option<libc::pthread_t> {
        let target = self.lock();
        // SAFETY: null or a byte of the run page, which is mapped until `retire` has taken the lock; the
        // kernel reads it as a single byte.
        if let Some(byte) = unsafe { target.immediate_exit.as_ref() } {
            byte.store(value, Ordering::SeqCst);
        }
        target.thread
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.set(1);
        let target = self.lock();
        if let Some(thread) = target.thread {
            // SAFETY: the thread has entered and, as the lock is held, not left: it exists.
            unsafe { libc::pthread_kill(thread, self.signal) };
        }
    }
}
