//! The first half of taking a layer in: read the compressed stream, check it, pass the plain bytes on.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender};

use super::{IMAGE_FLOOR, LAYER_FLOOR, Limits, Unpacked};
use crate::digest::{Digest, Hasher};

/// Size of the pieces in which plain bytes travel to the thread that reads the archive.
pub(crate) const PIECE: usize = 128 << 10;

/// What stops a stream that unpacks to too much.
#[derive(Clone, Copy)]
pub(crate) struct Caps<'a> {
    pub(crate) limits: &'a Limits,
    /// What all layers of the image have unpacked to: many small bombs are one.
    pub(crate) image: &'a Unpacked,
}

/// What was found out about the compressed stream.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Digest of the stream, if it was read to its end.
    pub(crate) digest: Option<Digest>,
    /// Whether the stream was read to its end.
    pub(crate) complete: bool,
    /// Bytes of it that were read.
    pub(crate) length: u64,
    /// Why it was not passed on to its end.
    pub(crate) trouble: Option<Trouble>,
}

/// Why a stream was not decoded to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It could not be read.
    Input(io::Error),
    /// It is damaged, or a bomb.
    Bad(String),
    /// Nobody wants more of it.
    Unwanted,
}

/// Counts and hashes what is consumed of a reader, and ends it one byte after its promised length.
struct Measured<'a, R> {
    inner: R,
    hasher: Option<Hasher>,
    limit: u64,
    length: &'a Cell<u64>,
    failed: &'a Cell<bool>,
}

impl<R: BufRead> BufRead for Measured<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.limit - self.length.get();
        match self.inner.fill_buf() {
            Ok(buffer) => {
                Ok(&buffer[..usize::try_from(left).map_or(buffer.len(), |left| buffer.len().min(left))])
            }
            Err(error) => {
                self.failed.set(error.kind() != io::ErrorKind::Interrupted);
                Err(error)
            }
        }
    }

    fn consume(&mut self, count: usize) {
        if let (Some(hasher), Ok(buffer)) = (&mut self.hasher, self.inner.fill_buf()) {
            hasher.update(&buffer[..count]);
        }
        self.length.set(self.length.get() + count as u64);
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Measured<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// Decodes `input` and sends it in pieces, which come back through `pool` to be used again.
///
/// `promised` is the length the stream must have. When decoding fails, the rest is read nevertheless, so
/// that a damaged stream can be told from a malformed layer by its digest.
pub(crate) fn decode(
    input: impl BufRead,
    promised: Option<u64>,
    caps: Caps<'_>,
    pieces: SyncSender<Vec<u8>>,
    pool: &Receiver<Vec<u8>>,
) -> Decoded {
    let (length, failed) = (Cell::new(0), Cell::new(false));
    let limit = promised.map_or(u64::MAX, |promised| promised.saturating_add(1));
    let mut measured = Measured {
        inner: input,
        hasher: Some(Hasher::default()),
        limit,
        length: &length,
        failed: &failed,
    };
    let mut trouble = pass_on(&mut measured, caps, pieces, pool).err();
    // The rest is read if it can tell a damaged stream from a malformed layer.
    let mut complete = false;
    if !failed.get() && (trouble.is_none() || promised.is_some_and(|promised| length.get() <= promised)) {
        match io::copy(&mut measured, &mut io::sink()) {
            Ok(_) => complete = true,
            Err(error) => trouble = Some(Trouble::Input(error)),
        }
    }
    let digest = measured.hasher.take().filter(|_| complete).map(Hasher::finish);
    Decoded {
        digest,
        complete,
        length: length.get(),
        trouble,
    }
}

fn pass_on<R: BufRead>(
    measured: &mut Measured<'_, R>,
    caps: Caps<'_>,
    pieces: SyncSender<Vec<u8>>,
    pool: &Receiver<Vec<u8>>,
) -> Result<(), Trouble> {
    let (length, failed) = (measured.length, measured.failed);
    let fault = |error: io::Error| match failed.get() {
        true => Trouble::Input(error),
        false => Trouble::Bad(format!("its compressed data is damaged ({error})")),
    };
    let mut magic = Vec::with_capacity(4);
    measured.by_ref().take(4).read_to_end(&mut magic).map_err(fault)?;
    let form = Form::of(&magic);
    let stream = Cursor::new(magic).chain(&mut *measured);
    match form {
        Form::Gzip => copy(
            flate2::bufread::MultiGzDecoder::new(stream),
            length,
            fault,
            caps,
            &pieces,
            pool,
        ),
        Form::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(stream).map_err(fault)?;
            copy(decoder, length, fault, caps, &pieces, pool)
        }
        Form::Plain => copy(stream, length, fault, caps, &pieces, pool),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl Form {
    /// RFC 1952 section 2.3.1 and RFC 8878 section 3.1.1; skippable frames (3.1.2) are zstd's, too.
    fn of(magic: &[u8]) -> Form {
        match magic {
            [0x1f, 0x8b, ..] => Form::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Form::Zstd,
            _ => Form::Plain,
        }
    }
}

fn copy(
    mut plain: impl Read,
    compressed: &Cell<u64>,
    fault: impl Fn(io::Error) -> Trouble,
    Caps { limits, image }: Caps<'_>,
    pieces: &SyncSender<Vec<u8>>,
    pool: &Receiver<Vec<u8>>,
) -> Result<(), Trouble> {
    let (layer, mut total, mut counted) = (Unpacked::default(), 0u64, 0u64);
    loop {
        let mut piece = pool.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match plain.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault(error)),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        total += filled as u64;
        if total > limits.layer_bytes {
            return Err(Trouble::Bad(format!(
                "it unpacks to more than {} bytes",
                limits.layer_bytes
            )));
        }
        let more = compressed.get() - counted;
        counted += more;
        let is_bomb = layer.is_bomb(more, filled as u64, LAYER_FLOOR, limits)
            | image.is_bomb(more, filled as u64, IMAGE_FLOOR, limits);
        if is_bomb {
            let ratio = limits.ratio;
            return Err(Trouble::Bad(format!(
                "it unpacks to more than {ratio} times its size, as bombs do"
            )));
        }
        piece.truncate(filled);
        pieces.send(piece).map_err(|_| Trouble::Unwanted)?;
    }
}
