//! The thread a device works on, and what wakes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use device_model::Event;

use crate::{Doorbell, Error};

/// Just too short for a large page, which the host could else give to the first byte touched.
const STACK_LEN: usize = 0x1f_0000;

/// Wakes device threads. Clones wake the same threads; waking costs a system call only when one sleeps.
#[derive(Clone)]
pub(crate) struct Signals {
    state: Arc<Mutex<State>>,
    /// What sleepers sleep on. Who sets it without raising a signal means all of them.
    event: Event,
}

#[derive(Default)]
struct State {
    raised: u64,
    stopping: bool,
    sleeping: usize,
}

/// Every signal: somebody who cannot say which has set the event.
const ALL: u64 = u64::MAX;

impl Signals {
    /// Signals of which none is raised.
    ///
    /// # Errors
    /// The host has no more events.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            state: Arc::default(),
            event: Event::new().map_err(|error| Error::Event(Box::new(error)))?,
        })
    }

    /// Lets `doorbell` raise `bits`; a hypervisor may ring it by itself, which raises all.
    pub(crate) fn answer(&self, doorbell: &Doorbell, bits: u64) {
        let signals = self.clone();
        doorbell.connect(self.event.clone(), move || signals.raise(bits));
    }

    /// Raises signals: bit n is the device's signal n. One sleeping thread wakes.
    pub(crate) fn raise(&self, bits: u64) {
        let mut state = self.lock();
        state.raised |= bits;
        if state.sleeping > 0 {
            drop(state);
            self.event.signal();
        }
    }

    /// Takes all raised signals, sleeping until there is one. `None` when the thread is to end.
    pub(crate) fn wait(&self) -> Option<u64> {
        let mut state = self.lock();
        if !state.stopping && state.raised == 0 {
            state.sleeping += 1;
            drop(state);
            let woken = self.event.wait(None);
            state = self.lock();
            state.sleeping -= 1;
            if let Err(error) = woken {
                tracing::error!(%error, "a virtio device thread cannot sleep and ends");
                return None;
            }
        }
        if state.stopping {
            // One of those who sleep took the event; the next needs it too.
            self.event.signal();
            return None;
        }
        match std::mem::take(&mut state.raised) {
            0 => Some(ALL),
            raised => Some(raised),
        }
    }

    /// Whether threads are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Makes the signals those of new threads. Only while no thread waits.
    pub(crate) fn restart(&self) {
        *self.lock() = State::default();
        self.event.take();
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.event.signal();
    }

    /// The fields are meaningful at every step, so poisoning does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let builder = thread::Builder::new().name(name.to_owned()).stack_size(STACK_LEN);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn wait_yields_all_signals_raised_before() {
        let signals = Signals::new().unwrap();
        signals.raise(1);
        signals.raise(4);
        assert_eq!(signals.wait(), Some(5));
    }

    #[test]
    fn raise_wakes_a_sleeping_thread_and_finish_ends_it() {
        let signals = Signals::new().unwrap();
        let (sender, seen) = mpsc::channel();
        let thread = signals.clone();
        let worker = Worker::spawn("test", &signals, move || {
            let mut count = 0;
            while let Some(bits) = thread.wait() {
                sender.send(bits).unwrap();
                count += 1;
            }
            count
        });
        for bits in [1, 2, 1 << 63] {
            signals.raise(bits);
            assert_eq!(seen.recv(), Ok(bits));
        }
        assert_eq!(worker.unwrap().finish(), Some(3));
    }

    #[test]
    fn doorbell_that_a_hypervisor_rings_raises_all() {
        let signals = Signals::new().unwrap();
        let doorbell = Doorbell::default();
        signals.answer(&doorbell, 2);
        doorbell.event().unwrap().signal();
        assert_eq!(signals.wait(), Some(ALL));
        doorbell.notify();
        assert_eq!(signals.wait(), Some(2));
    }

    #[test]
    fn stop_ends_every_thread_that_sleeps() {
        let signals = Signals::new().unwrap();
        let spawn = |_| {
            let thread = signals.clone();
            Worker::spawn("test", &signals, move || while thread.wait().is_some() {})
        };
        let workers: Vec<_> = (0..3).map(|n| spawn(n).unwrap()).collect();
        assert!(workers.into_iter().all(|worker| worker.finish().is_some()));
    }

    #[test]
    fn restart_makes_stopped_signals_usable_again() {
        let signals = Signals::new().unwrap();
        signals.raise(1);
        signals.stop();
        assert!(signals.is_stopping());
        assert_eq!(signals.wait(), None);
        signals.restart();
        signals.raise(2);
        assert_eq!(signals.wait(), Some(2));
    }

    #[test]
    fn worker_that_panics_yields_nothing() {
        let signals = Signals::new().unwrap();
        let worker = Worker::<()>::spawn("test", &signals, || panic!("for the test"));
        assert!(worker.unwrap().finish().is_none());
    }
}
