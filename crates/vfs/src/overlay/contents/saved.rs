//! The state of one changed file's contents. Which blocks hold data is a record; the data goes to a stream of its own,
//! block by block in the order of the file. Where in the scratch file a block lies is nobody's business.

use std::io::{Read, Write};
use std::sync::Arc;

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread};
use saved_state::{Decoder, Saved, record, require};

use super::Contents;
use crate::error::Error;
use crate::overlay::attributes::SIZE_MAX;
use crate::overlay::extents::{ExtentMap, Place};
use crate::overlay::store::{BLOCK, Run, Store};
use crate::read_only::Content;
use crate::saved::Room;

/// How many blocks are moved at once.
const PIECE: u64 = 256;

record! {
    /// [`Contents`].
    pub(in crate::overlay) struct SavedContents {
        1 size: u64,
        2 image_end: u64,
        /// In order; neighbours differ.
        3 runs: Vec<SavedRun>,
    }
}

/// Consecutive blocks of a file that are alike.
pub(in crate::overlay) struct SavedRun {
    first: u64,
    len: u64,
    what: What,
}

/// What the overlay has of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum What {
    /// A hole punched over the image's contents.
    Hole = 0,
    /// Space with nothing but zeros in it.
    Zeros = 1,
    /// Space with data, which the stream has.
    Data = 2,
}

impl Saved for SavedRun {
    fn encode(&self, out: &mut Vec<u8>) {
        self.first.encode(out);
        self.len.encode(out);
        out.push(self.what as u8);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, saved_state::Error> {
        Ok(Self {
            first: u64::decode(input)?,
            len: u64::decode(input)?,
            what: match u8::decode(input)? {
                0 => What::Hole,
                1 => What::Zeros,
                2 => What::Data,
                _ => return Err(saved_state::Error::Value("the kind of a run of blocks")),
            },
        })
    }
}

/// Runs being gathered.
struct Runs<'a> {
    runs: Vec<SavedRun>,
    room: &'a mut Room,
}

impl Runs<'_> {
    fn push(&mut self, first: u64, len: u64, what: What) -> Result<(), Error> {
        match self.runs.last_mut() {
            Some(last) if last.what == what && last.first + last.len == first => last.len += len,
            _ => {
                self.room.take(1, 0)?;
                self.runs.push(SavedRun { first, len, what });
            }
        }
        Ok(())
    }
}

impl Contents {
    pub(in crate::overlay) fn save(
        &self,
        room: &mut Room,
        out: &mut dyn Write,
    ) -> Result<SavedContents, Error> {
        let Self {
            store,
            size,
            extents,
            // Found again by the number of the inode.
            image: _,
            image_end,
        } = self;
        let mut runs = Runs {
            runs: Vec::new(),
            room,
        };
        for (first, len, place) in extents.iter() {
            match place {
                Place::Zero => runs.push(first, len, What::Hole)?,
                Place::Scratch(start) => save_blocks(store, first, Run { start, len }, &mut runs, out)?,
            }
        }
        Ok(SavedContents {
            size: *size,
            image_end: *image_end,
            runs: runs.runs,
        })
    }
}

/// Saves the blocks of `run`, which are a file's from block `first` on.
fn save_blocks(
    store: &Store,
    first: u64,
    run: Run,
    runs: &mut Runs<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < run.len {
        // Space that was reserved and never written is a hole of the scratch file too, however large.
        let data = next_data(store, run.start + done).min(run.start + run.len) - run.start;
        if data > done {
            runs.push(first + done, data - done, What::Zeros)?;
            done = data;
            continue;
        }
        let count = PIECE.min(run.len - done);
        buffer.resize((count * BLOCK) as usize, 0);
        read_blocks(store, run.start + done, &mut buffer).map_err(Error::Scratch)?;
        save_piece(first + done, &buffer, runs, out)?;
        done += count;
    }
    Ok(())
}

/// The first block from `block` on of the scratch file that may hold data.
fn next_data(store: &Store, block: u64) -> u64 {
    match seek(store.file(), SeekFrom::Data(block * BLOCK)) {
        Ok(offset) => offset / BLOCK,
        Err(Errno::NXIO) => u64::MAX,
        // A file system that cannot tell: it is read.
        Err(_) => block,
    }
}

/// Fills `buffer` from block `block` of the scratch file on, which reads as zeros behind its end.
fn read_blocks(store: &Store, block: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(store.file(), &mut buffer[done..], block * BLOCK + done as u64)? {
            0 => {
                buffer[done..].fill(0);
                return Ok(());
            }
            more => done += more,
        }
    }
    Ok(())
}

/// Saves whole blocks, of which those with data are written in pieces as large as they come.
fn save_piece(first: u64, bytes: &[u8], runs: &mut Runs<'_>, out: &mut dyn Write) -> Result<(), Error> {
    let mut block = first;
    let mut rest = bytes;
    while !rest.is_empty() {
        let zeros = rest
            .chunks(BLOCK as usize)
            .take_while(|block| is_zero(block))
            .count() as u64;
        if zeros > 0 {
            runs.push(block, zeros, What::Zeros)?;
        }
        rest = &rest[(zeros * BLOCK) as usize..];
        let data = rest
            .chunks(BLOCK as usize)
            .take_while(|block| !is_zero(block))
            .count() as u64;
        if data > 0 {
            runs.push(block + zeros, data, What::Data)?;
        }
        let (written, behind) = rest.split_at((data * BLOCK) as usize);
        out.write_all(written).map_err(Error::SaveContents)?;
        rest = behind;
        block += zeros + data;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

impl SavedContents {
    /// Whether bytes of the image may still show.
    pub(in crate::overlay) fn shows_image(&self) -> bool {
        self.image_end > 0
    }

    /// The contents, with what of `image` still shows.
    pub(in crate::overlay) fn into_contents(
        self,
        store: &Arc<Store>,
        image: Option<Content>,
        input: &mut dyn Read,
    ) -> Result<Contents, Error> {
        let Self {
            size,
            image_end,
            runs,
        } = self;
        let image_len = image.as_ref().map_or(0, |image| image.len);
        require(size <= SIZE_MAX, "the size of a file")?;
        require(
            image_end <= size.min(image_len),
            "how much of an image's file shows",
        )?;
        let mut contents = Contents {
            store: Arc::clone(store),
            size,
            extents: ExtentMap::default(),
            image,
            image_end,
        };
        let mut last: Option<(u64, What)> = None;
        for run in runs {
            let end = contents.check_run(&run, last)?;
            last = Some((end, run.what));
            match run.what {
                What::Hole => contents.extents.insert(run.first, run.len, Place::Zero),
                What::Zeros => contents.fill(run.first, end, None)?,
                What::Data => contents.fill(run.first, end, Some(&mut *input))?,
            }
        }
        Ok(contents)
    }
}

impl Contents {
    /// Where `run` ends, which may follow a run that ends at `last`, if it is possible at all.
    fn check_run(&self, run: &SavedRun, last: Option<(u64, What)>) -> Result<u64, saved_state::Error> {
        let end = run.first.saturating_add(run.len);
        let limit = match run.what {
            What::Hole => self.image_end.div_ceil(BLOCK),
            What::Zeros => SIZE_MAX.div_ceil(BLOCK),
            What::Data => self.size.div_ceil(BLOCK),
        };
        require(run.len > 0 && end <= limit, "a run of blocks")?;
        let follows =
            last.is_none_or(|(last, what)| last < run.first || last == run.first && what != run.what);
        require(follows, "the order of runs of blocks")?;
        Ok(end)
    }

    /// Gives blocks `first..end`, which have no extent, space in the scratch file, and the data that `input` has.
    fn fill(&mut self, first: u64, end: u64, mut input: Option<&mut dyn Read>) -> Result<(), Error> {
        let mut block = first;
        while block < end {
            let run = self.store.allocate(end - block, None).map_err(Error::Scratch)?;
            // From here on the space goes back by itself.
            self.extents.insert(block, run.len, Place::Scratch(run.start));
            if let Some(input) = &mut input {
                self.fill_run(block, run, *input)?;
            }
            block += run.len;
        }
        Ok(())
    }

    fn fill_run(&self, first: u64, run: Run, input: &mut dyn Read) -> Result<(), Error> {
        let mut buffer = vec![0; (PIECE.min(run.len) * BLOCK) as usize];
        let mut done = 0;
        while done < run.len {
            let count = PIECE.min(run.len - done);
            let piece = &mut buffer[..(count * BLOCK) as usize];
            input.read_exact(piece).map_err(Error::ReadContents)?;
            self.check_data(first + done, piece)?;
            self.write_scratch((run.start + done) * BLOCK, piece)
                .map_err(Error::Scratch)?;
            done += count;
        }
        Ok(())
    }

    /// That no block is empty, and that zeros follow the end of the file in its last block.
    fn check_data(&self, first: u64, bytes: &[u8]) -> Result<(), saved_state::Error> {
        let empty = bytes.chunks(BLOCK as usize).any(is_zero);
        require(!empty, "a block of data")?;
        let inside = usize::try_from(self.size - first * BLOCK).unwrap_or(usize::MAX);
        let behind = bytes.get(inside..).unwrap_or_default();
        require(is_zero(behind), "what follows the end of a file")
    }
}
