//! VM time: monotonic, and standing still while the VM is paused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The clock devices read. Clones are the same clock. It starts paused at zero.
#[derive(Clone, Default)]
pub struct VmClock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    passed: Duration,
    running_since: Option<Instant>,
}

impl VmClock {
    /// VM time since power-on.
    pub fn now(&self) -> Duration {
        let state = self.lock();
        state.passed
            + state
                .running_since
                .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Lets time pass. Without effect while it does.
    pub fn resume(&self) {
        self.lock().running_since.get_or_insert_with(Instant::now);
    }

    /// Makes time stand still. Without effect while it does.
    pub fn pause(&self) {
        let mut state = self.lock();
        if let Some(since) = state.running_since.take() {
            state.passed += since.elapsed();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_while_paused_stands_still() {
        let clock = VmClock::default();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.resume();
        std::thread::sleep(Duration::from_millis(2));
        clock.pause();
        let stopped = clock.now();
        assert!(stopped >= Duration::from_millis(2));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
    }
}
