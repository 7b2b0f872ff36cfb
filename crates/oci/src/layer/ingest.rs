//! The second half of taking a layer in: read the archive, write the contents file, list the entries.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use super::contents::ContentsWriter;
use super::decompress::{Caps, Decoded, PIECE, Trouble, decode};
use super::entries::{Change, EntriesWriter, encode_device};
use super::tar::{Entry, EntryType, TarReader};
use super::{Fault, Limits};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// Pieces under way between the two threads.
const PIECES: usize = 8;
/// Prefix of whiteouts, and the name of the opaque one (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files, which layers of old Docker versions have, begin like this.
const AUFS: &[u8] = b".wh..wh.";

/// What is known of a layer before it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// What to call it in errors.
    pub(crate) name: String,
    /// Digest and length of the stream, compressed as it may be.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Digest of the archive in it.
    pub(crate) diff_id: Option<Digest>,
}

/// A layer that was taken in; nothing of it is published yet.
pub(crate) struct Taken {
    pub(crate) diff_id: Digest,
    /// The encoded list of entries.
    pub(crate) entries: Vec<u8>,
}

/// Takes a layer in: its files' bytes go into `contents`, an empty file that is called `path` in errors.
pub(crate) fn ingest(
    input: impl BufRead + Send,
    promise: &Promise,
    caps: Caps<'_>,
    contents: File,
    path: &Path,
) -> Result<Taken> {
    let (pieces, receiver) = sync_channel(PIECES);
    let (giver, pool) = channel();
    let length = promise.blob.map(|(_, length)| length);
    let (decoded, read) = std::thread::scope(|scope| {
        let decoder = scope.spawn(move || decode(input, length, caps, pieces, &pool));
        let read = read_archive(Pieces::new(receiver, giver), *caps.limits, contents);
        // The only panics are bugs of this crate; they go on to the caller.
        let decoded = decoder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (decoded, read)
    });
    judge(promise, decoded, read, path)
}

/// Decides between the two threads' results: a stream that is not what was promised explains all the rest.
fn judge(
    promise: &Promise,
    decoded: Decoded,
    read: std::result::Result<Taken, Fault>,
    path: &Path,
) -> Result<Taken> {
    let bad = |reason| Error::BadLayer {
        layer: promise.name.clone(),
        reason,
    };
    let what = || format!("layer {}", promise.name);
    if let Some(Trouble::Input(error)) = decoded.trouble {
        return Err(error.downcast::<Error>().unwrap_or_else(|source| Error::Io {
            action: "read layer",
            path: promise.name.clone().into(),
            source,
        }));
    }
    if let Some((expected, length)) = promise.blob {
        if decoded.length > length || (decoded.complete && decoded.length != length) {
            return Err(Error::SizeMismatch {
                what: what(),
                expected: length,
                actual: decoded.length,
            });
        }
        if let Some(actual) = decoded.digest.filter(|&actual| actual != expected) {
            return Err(Error::DigestMismatch {
                what: what(),
                expected,
                actual,
            });
        }
    }
    if let Err(Fault::Output(source)) = read {
        return Err(Error::io("write", path)(source));
    }
    if let Some(Trouble::Bad(reason)) = decoded.trouble {
        return Err(bad(reason));
    }
    let taken = read.map_err(|fault| match fault {
        Fault::Bad(reason) => bad(reason),
        Fault::Input(error) | Fault::Output(error) => bad(error.to_string()),
    })?;
    match promise.diff_id {
        Some(expected) if expected != taken.diff_id => {
            let what = format!("the archive in layer {}", promise.name);
            Err(Error::DigestMismatch {
                what,
                expected,
                actual: taken.diff_id,
            })
        }
        _ => Ok(taken),
    }
}

fn read_archive(input: Pieces, limits: Limits, contents: File) -> std::result::Result<Taken, Fault> {
    let mut archive = TarReader::new(input, limits);
    let mut contents = ContentsWriter::new(contents).map_err(Fault::Output)?;
    let mut entries = EntriesWriter::new();
    while let Some(mut entry) = archive.next()? {
        let Some(change) = change_of(&mut entry)? else {
            continue;
        };
        let rdev = match entry.kind {
            EntryType::CharDevice | EntryType::BlockDevice => encode_device(entry.device)
                .ok_or_else(|| Fault::of_entry(&entry.path, "its device number is out of range"))?,
            _ => 0,
        };
        let offset = match change {
            Change::Add(EntryType::Regular) if entry.size > 0 => {
                copy_file(&mut archive, &entry, &limits, &mut contents)?
            }
            _ => 0,
        };
        entries.push(change, &entry, rdev, offset);
        if entries.len() > limits.metadata_bytes {
            return Err(Fault::Bad(format!(
                "its names and attributes take more than {} bytes",
                limits.metadata_bytes
            )));
        }
    }
    let diff_id = archive.drain()?.hasher.finish();
    let length = contents.finish().map_err(Fault::Output)?;
    Ok(Taken {
        diff_id,
        entries: entries.finish(length),
    })
}

fn copy_file(
    archive: &mut TarReader<Pieces>,
    entry: &Entry,
    limits: &Limits,
    contents: &mut ContentsWriter,
) -> std::result::Result<u64, Fault> {
    let offset = contents.begin().map_err(Fault::Output)?;
    // Archives are short and files long where files have holes.
    if offset.saturating_add(entry.size) > limits.layer_bytes {
        return Err(Fault::of_entry(
            &entry.path,
            format_args!("the files are longer than {} bytes together", limits.layer_bytes),
        ));
    }
    let Some(map) = &entry.sparse else {
        archive.content(entry.size, |bytes| contents.write(bytes))?;
        return Ok(offset);
    };
    let mut at = 0;
    for &(start, length) in &map.segments {
        contents.skip(start - at).map_err(Fault::Output)?;
        archive.content(length, |bytes| contents.write(bytes))?;
        at = start + length;
    }
    contents.skip(map.real_size - at).map_err(Fault::Output)?;
    Ok(offset)
}

/// Turns a whiteout's name into the path it is about; `None` for entries that mean nothing.
fn change_of(entry: &mut Entry) -> std::result::Result<Option<Change>, Fault> {
    let start = entry
        .path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let name = &entry.path[start..];
    if name == OPAQUE {
        entry.path.truncate(start.saturating_sub(1));
        return Ok(Some(Change::Opaque));
    }
    if name.starts_with(AUFS) {
        return Ok(None);
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(Some(Change::Add(entry.kind)));
    };
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Fault::of_entry(&entry.path, "it is a whiteout of nothing"));
    }
    let hidden = hidden.to_vec();
    entry.path.truncate(start);
    entry.path.extend(hidden);
    Ok(Some(Change::Whiteout))
}

/// The decoded stream as a reader; hashes what passes and gives used pieces back.
struct Pieces {
    receiver: Receiver<Vec<u8>>,
    giver: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    hasher: Hasher,
}

impl Pieces {
    fn new(receiver: Receiver<Vec<u8>>, giver: Sender<Vec<u8>>) -> Pieces {
        Pieces {
            receiver,
            giver,
            piece: Vec::new(),
            at: 0,
            hasher: Hasher::default(),
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            let used = std::mem::take(&mut self.piece);
            self.at = 0;
            if used.capacity() >= PIECE {
                // The other side may be done already.
                let _ = self.giver.send(used);
            }
            // A closed channel is the end; why, the other side tells.
            if let Ok(piece) = self.receiver.recv() {
                self.hasher.update(&piece);
                self.piece = piece;
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
