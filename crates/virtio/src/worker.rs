//! The thread a device works on, and what wakes it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::Error;

/// Wakes device threads. Clones wake the same threads; waking costs a system call only when one sleeps.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    raised: u64,
    stopping: bool,
}

impl Signals {
    /// Raises signals: bit n is the device's signal n. One sleeping thread wakes.
    pub(crate) fn raise(&self, bits: u64) {
        self.lock().raised |= bits;
        self.shared.changed.notify_one();
    }

    /// Takes all raised signals, sleeping until there is one. `None` when the thread is to end.
    pub(crate) fn wait(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if state.raised != 0 {
                return Some(std::mem::take(&mut state.raised));
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether threads are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Makes the signals those of new threads. Only while no thread waits.
    pub(crate) fn restart(&self) {
        *self.lock() = State::default();
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.shared.changed.notify_all();
    }

    /// Both fields are meaningful at every step, so poisoning does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device thread and its result. Dropping it ends the thread.
pub(crate) struct Worker<T> {
    signals: Signals,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts `run` on a thread called `name`; it must return soon after [`Signals::wait`] yields `None`.
    pub(crate) fn spawn(
        name: &str,
        signals: &Signals,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Error> {
        let builder = thread::Builder::new().name(name.to_owned());
        Ok(Self {
            signals: signals.clone(),
            thread: Some(builder.spawn(run).map_err(Error::Thread)?),
        })
    }

    /// Ends the thread and returns its result, `None` if it panicked.
    pub(crate) fn finish(mut self) -> Option<T> {
        self.join()
    }
}

impl<T> Worker<T> {
    fn join(&mut self) -> Option<T> {
        self.signals.stop();
        let result = self.thread.take()?.join();
        if result.is_err() {
            tracing::error!("a virtio device thread panicked");
        }
        result.ok()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.join();
    }
}
