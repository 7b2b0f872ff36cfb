//! The thread that serves a UART when its stream has news.
//!
//! A stream's waker must neither block nor call back into the stream, so it only rings here.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Uart;
use crate::Error;

#[derive(Default)]
pub(super) struct Doorbell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    closed: bool,
}

impl Doorbell {
    pub(super) fn ring(&self) {
        self.lock().rung = true;
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for a ring; false once closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.rung && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.rung = false;
        !state.closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread. It does not keep the UART alive.
pub(super) fn spawn(name: &str, doorbell: Arc<Doorbell>, uart: &Arc<Mutex<Uart>>) -> Result<(), Error> {
    let uart = Arc::downgrade(uart);
    let serve = move || {
        while doorbell.wait() {
            let Some(uart) = uart.upgrade() else { return };
            uart.lock().unwrap_or_else(PoisonError::into_inner).pump();
        }
    };
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(64 << 10);
    let started = thread.spawn(serve).map_err(|source| Error::Thread {
        device: name.to_owned(),
        source,
    });
    started.map(drop)
}
