//! Signals to one thread.

use std::io;
use std::sync::OnceLock;

use crate::Error;

/// A POSIX thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadId(libc::pthread_t);

/// Does nothing: that there is a handler is what makes a system call return.
extern "C" fn ignore(_: libc::c_int) {}

/// A signal that nothing else uses: the first real-time signal that the C library leaves to programs.
fn signal_number() -> libc::c_int {
    #[cfg(target_os = "linux")]
    return libc::SIGRTMIN();
    #[cfg(not(target_os = "linux"))]
    return libc::SIGUSR2;
}

/// Installs the handler, once; an error is the `errno` of that once.
fn install_handler() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        // Without SA_RESTART: the call that is interrupted must return.
        action.sa_flags = 0;
        // SAFETY: `action` is complete, its handler does nothing, and no old action is asked for.
        match unsafe { libc::sigaction(signal_number(), &raw const action, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
        }
    });
    installed
        .map_err(io::Error::from_raw_os_error)
        .map_err(Error::os("install a signal handler"))
}

impl ThreadId {
    pub(crate) fn current() -> Result<Self, Error> {
        install_handler()?;
        // A program that embeds this may start threads with every signal blocked.
        // SAFETY: all-zero bytes are a valid `sigset_t`, which is then filled before use.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid for writes, and the signal's number is one that exists.
        let failed = unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal_number());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
        };
        if failed != 0 {
            return Err(Error::os("unblock a signal")(io::Error::from_raw_os_error(
                failed,
            )));
        }
        // SAFETY: always succeeds.
        Ok(Self(unsafe { libc::pthread_self() }))
    }

    /// # Safety
    /// The thread must not have ended.
    pub(crate) unsafe fn interrupt(self) {
        // SAFETY: the thread exists by the caller's promise; the handler is installed.
        unsafe { libc::pthread_kill(self.0, signal_number()) };
    }
}
