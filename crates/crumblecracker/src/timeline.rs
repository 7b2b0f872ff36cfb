//! When what happened on the way from a command line to a command's first output.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Moments since the timeline's beginning. Clones are the same timeline. Marks of the guest come through a port that
/// its accesses reach at once, so all are by one clock, the host's.
#[derive(Clone, Debug)]
pub struct Timeline {
    begin: Instant,
    moments: Arc<Mutex<Vec<Moment>>>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, since the timeline's beginning.
    pub at: Duration,
    /// What.
    pub what: String,
}

/// The most that is kept: a guest can mark without end.
const MOST: usize = 4096;

impl Default for Timeline {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            moments: Arc::default(),
        }
    }
}

impl Timeline {
    /// Notes that `what` happened now. Beyond some thousands nothing is noted.
    pub fn mark(&self, what: impl Into<String>) {
        let at = self.begin.elapsed();
        let mut moments = self.lock();
        if moments.len() < MOST {
            let what = what.into();
            moments.push(Moment { at, what });
        }
    }

    /// All moments, in the order of time.
    pub fn moments(&self) -> Vec<Moment> {
        let mut moments = self.lock().clone();
        moments.sort_by_key(|moment| moment.at);
        moments
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Moment>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks of the guest itself.
impl device_backends::Marks for Timeline {
    fn mark(&self, what: &str) {
        Self::mark(self, format!("guest: {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order_and_bounded() {
        let timeline = Timeline::default();
        for number in 0..MOST + 10 {
            timeline.clone().mark(format!("{number}"));
        }
        let moments = timeline.moments();
        assert_eq!(moments.len(), MOST);
        assert!(moments.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert_eq!(moments[MOST - 1].what, (MOST - 1).to_string());
    }
}
