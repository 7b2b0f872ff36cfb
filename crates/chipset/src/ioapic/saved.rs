//! The state of the I/O APIC: what the guest programmed, and the wires.

use saved_state::{Error, record, require};

use super::registers::*;
use super::{Line, Window};

pub(super) const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;

record! {
    /// [`Window`] and all [`Line`]s.
    pub(super) struct SavedIoApic {
        1 select: u8,
        2 id: u8,
        3 lines: Vec<SavedLine>,
    }
}

record! {
    /// A [`Line`].
    pub(super) struct SavedLine {
        1 entry: u64,
        2 high: bool,
    }
}

impl SavedIoApic {
    pub(super) fn of(window: &Window, lines: &[Line]) -> Self {
        let Window { select, id } = window;
        Self {
            select: *select,
            id: *id,
            lines: lines.iter().map(SavedLine::of).collect(),
        }
    }

    pub(super) fn put_into(self, window: &mut Window, lines: &mut [Line]) -> Result<(), Error> {
        let Self {
            select,
            id,
            lines: saved,
        } = self;
        require(id & !ID_MASK == 0, "the id of the I/O APIC")?;
        require(saved.len() == lines.len(), "the number of I/O APIC lines")?;
        *window = Window { select, id };
        for (line, saved) in lines.iter_mut().zip(saved) {
            *line = saved.into_line()?;
        }
        Ok(())
    }
}

impl SavedLine {
    fn of(line: &Line) -> Self {
        let Line { entry, high } = line;
        Self {
            entry: *entry,
            high: *high,
        }
    }

    fn into_line(self) -> Result<Line, Error> {
        let Self { entry, high } = self;
        let mut line = Line { entry, high };
        let exists = entry & !(EXISTING & !DELIVERY_STATUS) == 0;
        require(exists, "a redirection entry of the I/O APIC")?;
        // Only what is level-triggered is in service, and whatever it owes was sent at once.
        let in_service = !line.is(REMOTE_IRR) || line.is(LEVEL);
        let served = in_service && line.service_level().is_none();
        require(served, "the service of an I/O APIC line")?;
        Ok(line)
    }
}
