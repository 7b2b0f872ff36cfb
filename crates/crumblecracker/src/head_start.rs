//! What one guest from a snapshot leaves for the next: code that the backend made, where it makes some, and which pages were
//! used. Both only save time.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hypervisor::KeptCode;
use machine::{Machine, UsedPages};
use tracing::debug;

use crate::error::one_line;
use crate::snapshot_cache::{Key, SnapshotCache};
use crate::{Error, Result, Timeline};

/// The file in an entry with code: it is executed by this process.
const CODE: &str = "code";
/// The files with the first and last addresses of stretches of pages, little endian: those that were written, and all that
/// were used.
const WRITTEN: &str = "pages-written";
const USED: &str = "pages-used";
/// The most that is read of one.
const PAGES_MAX: u64 = 1 << 20;
/// The most bytes of all the pages of a file together. A guest that used more did something that the next one hardly does,
/// and a file that says so may as well be damaged: in both cases none come in advance.
const BYTES_MAX: u64 = 32 << 20;
/// How long a guest is watched: what it uses later is what its programs do, not its start.
const WATCHED: Duration = Duration::from_secs(1);

/// The snapshot that a guest came from, and what is missing there.
pub(crate) struct HeadStart {
    cache: SnapshotCache,
    key: Key,
    watching: Option<Watching>,
    gathers_code: bool,
}

/// A thread that keeps which pages a machine has used, when its time is over or when it is told.
struct Watching {
    over: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watching {
    /// Has it done now, if it was not yet.
    fn end(&self) {
        // It is gone where it was done already.
        let _ = self.over.send(());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was told when it happened, and the pages are missing.
            let _ = thread.join();
        }
    }
}

impl HeadStart {
    pub(crate) fn new(cache: &SnapshotCache, key: &Key) -> Self {
        Self {
            cache: cache.clone(),
            key: key.clone(),
            watching: None,
            gathers_code: false,
        }
    }

    /// Gives a machine that was just restored what is there. Where something is missing, what comes back wants to be asked
    /// to [`HeadStart::keep`] at the machine's end.
    pub(crate) fn give(mut self, machine: &Machine, timeline: &Timeline) -> Result<Option<Self>> {
        match self.pages(machine.maps_ahead()) {
            Some(pages) => match machine.bring_in(pages) {
                Ok(()) => timeline.mark("pages brought in"),
                Err(error) => debug!(error = one_line(&error), "pages do not come in advance"),
            },
            None => self.watching = Some(self.watch(machine)?),
        }
        let code = machine.take_up_code(self.cache.beside(&self.key, CODE).as_ref())?;
        if code == KeptCode::TakenUp {
            timeline.mark("kept code taken up");
        }
        self.gathers_code = code == KeptCode::Gathering;
        Ok((self.gathers_code || self.watching.is_some()).then_some(self))
    }

    /// Keeps what the machine, which is at its end, has gathered.
    pub(crate) fn keep(self, machine: &Machine) {
        if let Some(code) = self.gathers_code.then(|| machine.code_to_keep()).flatten() {
            self.cache.keep_beside(&self.key, CODE, &code);
        }
        self.end_watch();
    }

    /// Ends the watch of the machine's pages, before somebody else looks at them.
    pub(crate) fn end_watch(&self) {
        if let Some(watching) = &self.watching {
            watching.end();
        }
    }

    /// Keeps which pages the machine uses in its first second.
    fn watch(&self, machine: &Machine) -> Result<Watching> {
        let watch = machine.watch_pages();
        let (cache, key) = (self.cache.clone(), self.key.clone());
        let (over, told) = mpsc::channel();
        let keep = move || {
            // Told, or it is time.
            let _ = told.recv_timeout(WATCHED);
            let UsedPages { written, used } = watch.used();
            cache.keep_beside(&key, WRITTEN, &bytes_of(&within_reason(written)));
            if let Some(used) = used {
                cache.keep_beside(&key, USED, &bytes_of(&within_reason(used)));
            }
        };
        let thread = thread::Builder::new().name("page-watch".to_owned()).spawn(keep);
        let thread = thread.map_err(|source| Error::Host {
            doing: "start a thread",
            source,
        })?;
        Ok(Watching {
            over,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Which pages, if all is there that is of use.
    fn pages(&self, maps_ahead: bool) -> Option<UsedPages> {
        let read = |name: &str| {
            let file: File = self.cache.beside(&self.key, name)?;
            let mut bytes = Vec::new();
            file.take(PAGES_MAX).read_to_end(&mut bytes).ok()?;
            Some(within_reason(ranges_in(&bytes)))
        };
        Some(UsedPages {
            written: read(WRITTEN)?,
            used: match maps_ahead {
                true => Some(read(USED)?),
                false => None,
            },
        })
    }
}

/// The pages, or none where they are too many.
fn within_reason(pages: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let add = |total: u64, pages: &Range<u64>| total.checked_add(pages.end.checked_sub(pages.start)?);
    let total = pages.iter().try_fold(0, add);
    match total {
        Some(total) if total <= BYTES_MAX => pages,
        _ => Vec::new(),
    }
}

fn bytes_of(pages: &[Range<u64>]) -> Vec<u8> {
    let numbers = pages.iter().flat_map(|pages| [pages.start, pages.end]);
    numbers.flat_map(u64::to_le_bytes).collect()
}

/// Whatever the bytes are: what is no page of the machine is passed over later.
fn ranges_in(bytes: &[u8]) -> Vec<Range<u64>> {
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
        let mut bytes = bytes_of(&pages);
        assert_eq!(ranges_in(&bytes), pages);

        bytes.truncate(31);

        assert_eq!(ranges_in(&bytes), pages[..1]);
    }

    #[test]
    fn pages_that_are_more_than_within_reason_or_end_before_they_begin_are_none() {
        let most = vec![0..BYTES_MAX - 0x1000, 1 << 40..(1 << 40) + 0x1000];
        let more = vec![0..BYTES_MAX, 1 << 40..(1 << 40) + 0x1000];
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
