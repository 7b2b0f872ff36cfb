//! What one guest from a snapshot leaves for the next: code that the backend made, where it makes some, and which pages were
//! written. Both only save time.

use std::fs::File;
use std::io::Read;
use std::ops::Range;

use hypervisor::KeptCode;
use machine::Machine;
use tracing::debug;

use crate::error::one_line;
use crate::snapshot_cache::{Key, SnapshotCache};
use crate::{Result, Timeline};

/// The file in an entry with code: it is executed by this process.
const CODE: &str = "code";
/// The file with the first and last addresses of stretches of pages, little endian.
const PAGES: &str = "pages";
/// The most that is read of it.
const PAGES_MAX: u64 = 1 << 20;
/// The most bytes of all those pages together. A guest that wrote more did something that the next one hardly does, and a
/// file that says so may as well be damaged: in both cases none come in advance.
const WRITTEN_MAX: u64 = 32 << 20;

/// The snapshot that a guest came from.
pub(crate) struct HeadStart {
    cache: SnapshotCache,
    key: Key,
    has_pages: bool,
    gathers_code: bool,
}

impl HeadStart {
    pub(crate) fn new(cache: &SnapshotCache, key: &Key) -> Self {
        Self {
            cache: cache.clone(),
            key: key.clone(),
            has_pages: false,
            gathers_code: false,
        }
    }

    /// Gives a machine that was just restored what is there. Where something is missing, what comes back wants to be asked
    /// to [`HeadStart::keep`] at the machine's end.
    pub(crate) fn give(mut self, machine: &Machine, timeline: &Timeline) -> Result<Option<Self>> {
        let pages = self.pages();
        self.has_pages = pages.is_some();
        if let Some(Err(error)) = pages.map(|pages| machine.bring_in(pages)) {
            debug!(error = one_line(&error), "pages do not come in advance");
        }
        let code = machine.take_up_code(self.cache.beside(&self.key, CODE).as_ref())?;
        if code == KeptCode::TakenUp {
            timeline.mark("kept code taken up");
        }
        self.gathers_code = code == KeptCode::Gathering;
        Ok((self.gathers_code || !self.has_pages).then_some(self))
    }

    /// Keeps what the machine, which is at its end, has gathered.
    pub(crate) fn keep(self, machine: &Machine) {
        let code = self.gathers_code.then(|| machine.code_to_keep()).flatten();
        if let Some(code) = &code {
            self.cache.keep_beside(&self.key, CODE, code);
        }
        if code.is_some() || !self.has_pages {
            self.cache
                .keep_beside(&self.key, PAGES, &written(&within_reason(machine.touched())));
        }
    }

    fn pages(&self) -> Option<Vec<Range<u64>>> {
        let file: File = self.cache.beside(&self.key, PAGES)?;
        let mut bytes = Vec::new();
        file.take(PAGES_MAX).read_to_end(&mut bytes).ok()?;
        Some(within_reason(read(&bytes)))
    }
}

/// The pages, or none where they are too many.
fn within_reason(pages: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let add = |total: u64, pages: &Range<u64>| total.checked_add(pages.end.checked_sub(pages.start)?);
    let total = pages.iter().try_fold(0, add);
    match total {
        Some(total) if total <= WRITTEN_MAX => pages,
        _ => Vec::new(),
    }
}

fn written(pages: &[Range<u64>]) -> Vec<u8> {
    let numbers = pages.iter().flat_map(|pages| [pages.start, pages.end]);
    numbers.flat_map(u64::to_le_bytes).collect()
}

/// Whatever the bytes are: what is no page of the machine is passed over later.
fn read(bytes: &[u8]) -> Vec<Range<u64>> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    let pages = pairs.iter().map(|pair| pair.map(u64::from_le_bytes));
    pages.map(|[start, end]| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_written_are_read_back_and_half_a_pair_is_none() {
        let pages = [0x1000..0x3000, 0x10_0000_0000..0x10_0000_1000];
        let mut bytes = written(&pages);
        assert_eq!(read(&bytes), pages);

        bytes.truncate(31);

        assert_eq!(read(&bytes), pages[..1]);
    }

    #[test]
    fn pages_that_are_more_than_within_reason_or_end_before_they_begin_are_none() {
        let most = vec![0..WRITTEN_MAX - 0x1000, 1 << 40..(1 << 40) + 0x1000];
        let more = vec![0..WRITTEN_MAX, 1 << 40..(1 << 40) + 0x1000];
        let turned = Range {
            start: 0x3000,
            end: 0x1000,
        };
        let endless = vec![0..u64::MAX, 0..u64::MAX];

        assert_eq!(within_reason(most.clone()), most);
        assert_eq!(within_reason(more), []);
        assert_eq!(within_reason(vec![0..0x1000, turned]), []);
        assert_eq!(within_reason(endless), []);
    }
}
