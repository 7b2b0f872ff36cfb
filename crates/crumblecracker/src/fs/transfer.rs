//! Whole files on their way: several pieces are asked for, or sent, before the first is answered, so that the
//! way to the guest and back is not waited for with each.

use std::collections::VecDeque;
use std::io;

use guest_protocol::wire;

use super::file::Handle;
use crate::session::Pending;

/// The most pieces of one transfer that are on their way at once; other transfers need some of what the guest
/// bears too.
const MOST_AHEAD: usize = 4;

/// Reads from `start`, in bytes, to the end, and gives every piece to `take`. Returns how many bytes there were.
pub(super) fn read_pieces(
    file: &Handle,
    start: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut waiting = VecDeque::new();
    let (mut taken, mut asked) = (start, start);
    // A small file is not asked for much that it does not have.
    let mut ahead = 1;
    loop {
        while waiting.len() < ahead {
            waiting.push_back(file.begin_read(asked, wire::MAX_DATA)?);
            asked = asked.saturating_add(wire::MAX_DATA as u64);
        }
        let Some(next) = waiting.pop_front() else {
            continue;
        };
        let piece = next.data().map_err(|error| file.attempt("read").failed(error))?;
        if piece.is_empty() {
            return Ok(taken - start);
        }
        take(&piece)?;
        taken = taken.saturating_add(piece.len() as u64);
        if piece.len() == wire::MAX_DATA {
            ahead = MOST_AHEAD.min(ahead * 2);
        } else {
            // The end, or a file that gives less than is asked for: what was asked beyond is at wrong places.
            waiting.clear();
            asked = taken;
            ahead = 1;
        }
    }
}

/// A piece on its way.
struct Sent {
    reply: Pending,
    offset: u64,
    piece: Vec<u8>,
}

/// Writes a file from its start to its end.
pub(super) struct Writer<'a> {
    file: &'a Handle,
    offset: u64,
    waiting: VecDeque<Sent>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(file: &'a Handle) -> Self {
        Self {
            file,
            offset: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Appends bytes. An error may be that of earlier ones.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(wire::MAX_DATA) {
            if self.waiting.len() == MOST_AHEAD {
                self.settle_one()?;
            }
            self.waiting.push_back(Sent {
                reply: self.file.begin_write(self.offset, piece)?,
                offset: self.offset,
                piece: piece.to_vec(),
            });
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits until everything is written. Returns how many bytes there were.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        while !self.waiting.is_empty() {
            self.settle_one()?;
        }
        Ok(self.offset)
    }

    fn settle_one(&mut self) -> io::Result<()> {
        let Some(Sent { reply, offset, piece }) = self.waiting.pop_front() else {
            return Ok(());
        };
        let mut written = reply
            .written()
            .map_err(|error| self.file.attempt("write").failed(error))?;
        // Written in part means that the next try says why: a full disk, most often.
        while written < piece.len() {
            let count = self
                .file
                .write_piece(offset + written as u64, &piece[written..])?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += count;
        }
        Ok(())
    }
}
