//! Files whose digest is taken, and that are forced to the disk, while they are still being written: when the last byte
//! comes, most of both is done.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

/// What is read at once.
const PIECE: usize = 1 << 20;
/// After how many bytes more the disk is asked to have them.
const STRETCH: u64 = 16 << 20;

/// How far a file was digested.
#[derive(Default)]
pub(crate) struct Digested {
    hasher: Sha256,
    len: u64,
}

impl Digested {
    /// Goes on up to `end`, or to the end of the file where that comes first.
    pub(crate) fn up_to(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while self.len < end {
            let wanted = usize::try_from(end - self.len).map_or(PIECE, |left| left.min(PIECE));
            let count = file.read_at(&mut piece[..wanted], self.len)?;
            if count == 0 {
                break;
            }
            self.hasher.update(&piece[..count]);
            self.len += count as u64;
        }
        Ok(())
    }

    /// Length and digest of all of a file.
    pub(crate) fn whole(mut self, file: &File) -> io::Result<(u64, String)> {
        self.up_to(file, u64::MAX)?;
        Ok((self.len, hex(&self.hasher.finalize())))
    }
}

/// A thread that digests a file up to where it is told that it will not change any more.
pub(crate) struct Follower {
    done: Sender<u64>,
    thread: JoinHandle<io::Result<Digested>>,
}

impl Follower {
    pub(crate) fn start(file: File, force: bool) -> io::Result<Self> {
        let (done, told) = mpsc::channel();
        let thread = thread::Builder::new().name("digest".to_owned());
        let thread = thread.spawn(move || follow(&file, force, &told))?;
        Ok(Self { done, thread })
    }

    /// What lies before `len` will not change any more.
    pub(crate) fn grown_to(&self, len: u64) {
        // One that has failed tells so in the end.
        let _ = self.done.send(len);
    }

    /// How far it came.
    pub(crate) fn finish(self) -> io::Result<Digested> {
        drop(self.done);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn follow(file: &File, force: bool, told: &Receiver<u64>) -> io::Result<Digested> {
    let mut digested = Digested::default();
    let mut forced = 0;
    while let Ok(len) = told.recv() {
        digested.up_to(file, len)?;
        if force && digested.len - forced >= STRETCH {
            file.sync_data()?;
            forced = digested.len;
        }
    }
    Ok(digested)
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_file_that_was_followed_is_that_of_the_whole() {
        let file = tempfile::tempfile().unwrap();
        let follower = Follower::start(file.try_clone().unwrap(), true).unwrap();
        for at in 0..3 {
            file.write_all_at(&[at as u8; 3 * PIECE / 2], at * (PIECE as u64 * 2))
                .unwrap();
            follower.grown_to(at * (PIECE as u64 * 2) + 5);
        }

        let followed = follower.finish().unwrap();
        assert_eq!(followed.len, 4 * PIECE as u64 + 5);

        let whole = Digested::default().whole(&file).unwrap();
        assert_eq!(whole.0, 11 * PIECE as u64 / 2);
        assert_eq!(followed.whole(&file).unwrap(), whole);
    }
}
