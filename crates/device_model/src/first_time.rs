//! What a guest can provoke without end is told once.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something happens for the first time, for messages that a guest would otherwise flood a log with.
#[derive(Debug, Default)]
pub struct FirstTime {
    was: AtomicBool,
}

impl FirstTime {
    /// True for the first caller only.
    pub fn is_now(&self) -> bool {
        !self.was.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_time_is_once() {
        let first = FirstTime::default();

        assert_eq!(
            [first.is_now(), first.is_now(), first.is_now()],
            [true, false, false]
        );
    }
}
