//! Which pages of RAM a guest uses when it goes on from a snapshot, and having them in advance.

use std::ops::Range;
use std::thread;

use guest_memory::GuestMemory;

use crate::{Error, Machine};

/// Another range is mapped ahead with the one before it where so little is between them: mapping these, too, takes less
/// time than another call.
const GAP: u64 = 4 * guest_memory::PAGE_SIZE;

/// Pages of RAM, as ranges of guest-physical addresses in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedPages {
    /// Those that were written.
    pub written: Vec<Range<u64>>,
    /// Those that were used in any way; of use, and known, only where the backend maps pages ahead.
    pub used: Option<Vec<Range<u64>>>,
}

/// Tells which pages of a machine's RAM have been used. It keeps the RAM, not the machine.
pub struct PageWatch {
    memory: GuestMemory,
    maps_ahead: bool,
}

impl PageWatch {
    /// The pages since the machine was made.
    pub fn used(&self) -> UsedPages {
        UsedPages {
            written: self.memory.touched(),
            used: self.maps_ahead.then(|| self.memory.used()),
        }
    }
}

impl Machine {
    /// Begins to watch the pages of a machine that was restored and has not run yet. Where the backend maps pages ahead each
    /// is told from the next, which takes some milliseconds.
    pub fn watch_pages(&self) -> PageWatch {
        let memory = self.parts.memory.clone();
        let maps_ahead = self.maps_ahead();
        if let (true, Some(image)) = (maps_ahead, &self.parts.image) {
            memory.tell_pages_apart(image.extents());
        }
        PageWatch { memory, maps_ahead }
    }

    /// Has `pages` of RAM ready before the guest uses them, in a machine that was restored and has not run yet; what is no
    /// RAM is passed over. Where the backend cannot map pages ahead only those that will be written are made ready, while
    /// others do something else.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Ended`] for a machine that is not paused, [`Error::Hypervisor`].
    pub fn bring_in(&self, pages: UsedPages) -> Result<(), Error> {
        let memory = self.parts.memory.clone();
        if !self.maps_ahead() {
            let thread = thread::Builder::new().name("bring-in".to_owned());
            // It ends by itself, and keeps the memory until then.
            let started = thread.spawn(move || memory.bring_in(&pages.written));
            return started.map(drop).map_err(Error::Thread);
        }
        // First: what was only read by then would be entered as such, and be entered again at its first store.
        memory.bring_in(&pages.written);
        let used = joined(memory.only_ram(&pages.used.unwrap_or_default()));
        // The CPUs of a machine share the tables.
        self.with_paused_vcpus(|vcpus| match vcpus.first_mut() {
            Some(first) => Ok(first.map_ahead(&used)?),
            None => Ok(()),
        })
    }

    /// Whether the backend of this machine has use for pages that are only read.
    pub fn maps_ahead(&self) -> bool {
        self.parts.hypervisor.capabilities().maps_ahead
    }
}

/// The same ranges, those with little between them as one.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start >= last.end && range.start - last.end <= GAP => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_with_little_between_them_are_one() {
        let ranges = vec![0..0x1000, 0x5000..0x6000, 0xb000..0xc000, 0x3000..0x4000];

        assert_eq!(joined(ranges), [0..0x6000, 0xb000..0xc000, 0x3000..0x4000]);
    }
}
