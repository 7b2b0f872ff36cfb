//! The beginning of a layer, kept while the layer comes, so that a kill or a bad network does not cost it.
//!
//! A layer that comes fast is not kept: to write it down once more takes about as long as to ask for it again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Layers smaller than this are not kept; of larger ones so much comes before it is decided.
const MIN_KEPT: u64 = 4 << 20;
/// Layers larger than this are kept, however fast they come.
const MAX_UNKEPT: u64 = 256 << 20;
/// Bytes in a second above which a layer comes fast.
const FAST: u64 = 32 << 20;

/// Keeps one layer, or decides not to.
pub(super) struct Keeper {
    path: PathBuf,
    state: State,
}

enum State {
    Kept(File),
    /// It is not known yet how fast it comes.
    Trial(Vec<Bytes>, Instant),
    NotKept,
}

/// What was kept by an earlier attempt: the file, to be read from its start, and its length, not 0.
pub(super) type Beginning = (File, u64);

impl Keeper {
    /// Looks whether the beginning of a layer of `size` bytes is in the file at `path`.
    pub(super) fn open(path: &Path, size: u64) -> Result<(Keeper, Option<Beginning>)> {
        let keeper = |state| Keeper {
            path: path.to_owned(),
            state,
        };
        if size < MIN_KEPT {
            return Ok((keeper(State::NotKept), None));
        }
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        if length > 0 && length <= size {
            let beginning = File::open(path).map_err(Error::io("open", path))?;
            return Ok((keeper(State::Kept(append_to(path)?)), Some((beginning, length))));
        }
        let state = match size {
            // No beginning of this layer.
            _ if length > 0 => State::Kept(create(path)?),
            ..=MAX_UNKEPT => State::Trial(Vec::new(), Instant::now()),
            _ => State::Kept(create(path)?),
        };
        Ok((keeper(state), None))
    }

    /// Whether what came is there for the next attempt.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.state, State::Kept(_))
    }

    /// Takes what comes next.
    pub(super) fn keep(&mut self, bytes: &Bytes) -> Result<()> {
        match &mut self.state {
            State::Kept(file) => file.write_all(bytes).map_err(Error::io("write", &self.path)),
            State::Trial(held, since) => {
                if held.is_empty() {
                    *since = Instant::now();
                }
                held.push(bytes.clone());
                self.decide()
            }
            State::NotKept => Ok(()),
        }
    }

    /// Ends the trial once enough has come.
    fn decide(&mut self) -> Result<()> {
        let State::Trial(held, since) = &self.state else {
            return Ok(());
        };
        let length: usize = held.iter().map(Bytes::len).sum();
        if (length as u64) < MIN_KEPT {
            return Ok(());
        }
        // The time runs from when the first piece was here.
        let came = length - held.first().map_or(0, Bytes::len);
        self.state = if is_fast(came, since.elapsed()) {
            State::NotKept
        } else {
            let mut file = create(&self.path)?;
            let written = held.iter().try_for_each(|bytes| file.write_all(bytes));
            written.map_err(Error::io("write", &self.path))?;
            State::Kept(file)
        };
        Ok(())
    }
}

fn is_fast(bytes: usize, time: Duration) -> bool {
    bytes as f64 >= FAST as f64 * time.as_secs_f64()
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(Error::io("create", path))
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(Error::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 << 20;

    /// What is in the file of a keeper that was given four pieces, the first so long ago.
    fn kept(size: u64, age: Duration) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partial");
        let (mut keeper, beginning) = Keeper::open(&path, size).unwrap();
        assert!(beginning.is_none());
        for number in 0..4 {
            keeper.keep(&Bytes::from(vec![number; 1 << 20])).unwrap();
            keeper.age(age);
        }
        drop(keeper);
        fs::read(&path).ok()
    }

    impl Keeper {
        /// Makes the trial have begun so much earlier.
        fn age(&mut self, age: Duration) {
            if let State::Trial(_, since) = &mut self.state {
                *since = since.checked_sub(age).unwrap();
            }
        }
    }

    #[test]
    fn keeper_of_slow_layer_keeps_its_first_bytes_too() {
        let bytes = kept(SIZE, Duration::from_secs(1)).unwrap();

        assert_eq!(bytes.len(), 4 << 20);
        assert_eq!((bytes[0], bytes[(4 << 20) - 1]), (0, 3));
    }

    #[test]
    fn keeper_of_small_layer_keeps_nothing() {
        assert_eq!(kept(MIN_KEPT - 1, Duration::from_secs(1)), None);
    }

    #[test]
    fn keeper_of_huge_layer_keeps_from_the_start() {
        assert_eq!(
            kept(MAX_UNKEPT + 1, Duration::ZERO).map(|bytes| bytes.len()),
            Some(4 << 20)
        );
    }

    #[test]
    fn is_fast_tells_by_bytes_and_time() {
        assert!(is_fast(32 << 20, Duration::from_secs(1)));
        assert!(!is_fast(31 << 20, Duration::from_secs(1)));
        assert!(is_fast(3 << 20, Duration::ZERO));
    }

    #[test]
    fn keeper_with_beginning_gives_it_and_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partial");
        fs::write(&path, b"begin").unwrap();

        let (mut keeper, beginning) = Keeper::open(&path, SIZE).unwrap();
        keeper.keep(&Bytes::from_static(b"ning")).unwrap();

        assert_eq!(beginning.map(|(_, length)| length), Some(5));
        assert_eq!(fs::read(&path).unwrap(), b"beginning");
    }

    #[test]
    fn keeper_with_too_much_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partial");
        fs::write(&path, vec![1; MIN_KEPT as usize + 1]).unwrap();

        let (mut keeper, beginning) = Keeper::open(&path, MIN_KEPT).unwrap();
        keeper.keep(&Bytes::from_static(b"new")).unwrap();

        assert!(beginning.is_none());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
