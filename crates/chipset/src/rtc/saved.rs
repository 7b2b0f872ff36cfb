//! The state of the clock: time is the host's.

use saved_state::{Error, record, require};

use super::Rtc;
use super::registers::INDEX_MASK;

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// The one register that a guest writes.
    pub(super) struct SavedRtc {
        1 index: u8,
    }
}

impl SavedRtc {
    pub(super) fn of(rtc: &Rtc) -> Self {
        let Rtc { clock: _, index } = rtc;
        Self { index: *index }
    }

    pub(super) fn put_into(self, rtc: &mut Rtc) -> Result<(), Error> {
        let Self { index } = self;
        require(index & !INDEX_MASK == 0, "the index of the RTC")?;
        rtc.index = index;
        Ok(())
    }
}
