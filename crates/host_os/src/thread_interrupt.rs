//! Interrupting a thread's system call.

use crate::{Error, sys};

/// A thread whose blocking system calls can be interrupted from outside.
///
/// Made by the thread itself, and forgotten by everybody else before that thread ends: its owner keeps it under
/// a lock that [`RunningThread::interrupt`] is called under.
#[derive(Clone, Copy, Debug)]
pub struct RunningThread {
    inner: sys::ThreadId,
}

impl RunningThread {
    /// The calling thread, made ready to be interrupted.
    ///
    /// # Errors
    /// The system refuses a handler for the signal.
    pub fn current() -> Result<Self, Error> {
        Ok(Self {
            inner: sys::ThreadId::current()?,
        })
    }

    /// Makes the system call that the thread is in return `EINTR`. Without effect between two calls, so a flag
    /// that the call looks at must be set before.
    ///
    /// # Safety
    /// The thread must not have ended.
    pub unsafe fn interrupt(self) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.inner.interrupt() };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn interrupt_ends_a_blocking_read() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (send, receive) = mpsc::channel();
        let (done_send, done_receive) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            send.send(RunningThread::current().unwrap()).unwrap();
            let result = rustix::io::read(&reader, &mut [0_u8; 1]);
            done_send.send(result).unwrap();
        });
        let target = receive.recv().unwrap();

        let result = loop {
            // SAFETY: the thread has not been joined, so its id is its own.
            unsafe { target.interrupt() };
            if let Ok(result) = done_receive.recv_timeout(Duration::from_millis(10)) {
                break result;
            }
        };

        assert_eq!(result, Err(rustix::io::Errno::INTR));
        thread.join().unwrap();
        drop(writer);
    }
}
