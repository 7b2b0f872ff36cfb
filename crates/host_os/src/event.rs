//! Events: wake somebody, once for any number of signals.

use std::sync::Arc;
use std::time::Duration;

use crate::{Error, sys};

/// A flag that threads wait for and that the operating system can set by itself. Clones are the same event.
///
/// Signals before a wait are not lost; several of them are one.
#[derive(Clone, Debug)]
pub struct Event {
    inner: Arc<sys::Event>,
}

impl Event {
    /// A new event, not signalled.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(sys::Event::new()?),
        })
    }

    /// Sets it. Never blocks.
    pub fn signal(&self) {
        self.inner.signal();
    }

    /// Waits until it is set, at most `timeout` where given, and clears it. `false` when the time is over.
    ///
    /// # Errors
    /// The system's refusal to wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        self.inner.wait(timeout)
    }

    /// Clears it without waiting; `true` when it was set.
    pub fn take(&self) -> bool {
        self.inner.take()
    }

    /// The system's object, as the system numbers it: a file descriptor or a `HANDLE`. Open as long as this
    /// event or a clone of it lives.
    pub fn raw_handle(&self) -> usize {
        self.inner.raw_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_after_two_signals_returns_once() {
        let event = Event::new().unwrap();
        event.signal();
        event.clone().signal();

        assert!(event.wait(Some(Duration::from_secs(5))).unwrap());
        assert!(!event.wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn wait_is_woken_by_another_thread() {
        let event = Event::new().unwrap();
        let other = event.clone();
        let thread = std::thread::spawn(move || other.signal());

        assert!(event.wait(None).unwrap());
        thread.join().unwrap();
        assert!(!event.take());
    }
}
