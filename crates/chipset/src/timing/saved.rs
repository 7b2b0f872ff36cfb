//! The state of the timing port: a line that has not ended.

use saved_state::{Error, record, require};

use super::Timing;
use super::registers::{LINE_MAX, is_printable};

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// [`Timing`].
    pub(super) struct SavedTiming {
        1 line: String,
    }
}

impl SavedTiming {
    pub(super) fn of(timing: &Timing) -> Self {
        let Timing {
            port: _,
            marks: _,
            line,
        } = timing;
        Self { line: line.clone() }
    }

    pub(super) fn put_into(self, timing: &mut Timing) -> Result<(), Error> {
        let Self { line } = self;
        let possible = line.len() <= LINE_MAX && line.bytes().all(is_printable);
        require(possible, "a line of the timing port")?;
        timing.line = line;
        Ok(())
    }
}
