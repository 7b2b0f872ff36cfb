//! The files of an image layout or archive, by name.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::layer::tar::{EntryType, TarReader, normalise};
use crate::layer::{Fault, Limits};

/// Files in one archive; far more than images have.
const MAX_FILES: u64 = 100_000;
/// Links followed from one file of an archive to another.
const MAX_LINKS: u32 = 8;

/// A part of a file.
pub(super) type Part = io::Take<File>;

/// A folder, or an archive whose entries' places are known.
pub(super) enum Container {
    Folder(PathBuf),
    Archive {
        path: PathBuf,
        entries: HashMap<Vec<u8>, Place>,
    },
}

/// Where an entry of an archive is.
pub(super) enum Place {
    File { offset: u64, length: u64 },
    Link(Vec<u8>),
}

impl Container {
    /// Opens a folder, or reads through an archive once.
    pub(super) fn open(path: &Path) -> Result<Container> {
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        if metadata.is_dir() {
            return Ok(Container::Folder(path.to_owned()));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let entries = read_places(file).map_err(|fault| match fault {
            Fault::Input(source) | Fault::Output(source) => Error::io("read", path)(source),
            Fault::Bad(reason) => Error::BadSource {
                text: path.display().to_string(),
                reason,
            },
        })?;
        Ok(Container::Archive {
            path: path.to_owned(),
            entries,
        })
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Container::Folder(folder) => folder.join(name).is_file(),
            Container::Archive { entries, .. } => find(entries, name).is_some(),
        }
    }

    /// Opens a file; `None` if there is none. Names that leave the folder are not there.
    pub(super) fn part(&self, name: &str) -> Result<Option<Part>> {
        match self {
            Container::Folder(folder) => {
                let inside = normalise(name.as_bytes()).is_ok_and(|clean| clean == name.as_bytes());
                if !inside {
                    return Ok(None);
                }
                let path = folder.join(name);
                match File::open(&path) {
                    Ok(file) => Ok(Some(file.take(u64::MAX))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io("open", &path)(error)),
                }
            }
            Container::Archive { path, entries } => {
                let Some((offset, length)) = find(entries, name) else {
                    return Ok(None);
                };
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                file.seek(SeekFrom::Start(offset))
                    .map_err(Error::io("read", path))?;
                Ok(Some(file.take(length)))
            }
        }
    }

    /// Reads a small file; one longer than `limit` is an error.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.part(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        part.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", Path::new(name)))?;
        if bytes.len() as u64 > limit {
            let reason = format!("it is longer than the {limit} bytes it may have");
            return Err(Error::BadDocument {
                what: format!("`{name}`"),
                reason,
            });
        }
        Ok(Some(bytes))
    }
}

fn find(entries: &HashMap<Vec<u8>, Place>, name: &str) -> Option<(u64, u64)> {
    let mut name = normalise(name.as_bytes()).ok()?;
    for _ in 0..MAX_LINKS {
        match entries.get(&name)? {
            Place::File { offset, length } => return Some((*offset, *length)),
            Place::Link(target) => name.clone_from(target),
        }
    }
    None
}

/// Lists an archive's files.
fn read_places(file: File) -> std::result::Result<HashMap<Vec<u8>, Place>, Fault> {
    let position = Cell::new(0);
    let mut input = Counting {
        inner: BufReader::with_capacity(256 << 10, file),
        position: &position,
    };
    let magic = input.fill_buf().map_err(Fault::Input)?;
    if magic.starts_with(&[0x1f, 0x8b])
        || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || magic.starts_with(b"BZh")
    {
        return Err(Fault::Bad(
            "it is compressed as a whole: decompress it first".into(),
        ));
    }
    let mut archive = TarReader::new(
        input,
        Limits {
            entries: MAX_FILES,
            ..Limits::default()
        },
    );
    let mut places = HashMap::new();
    while let Some(entry) = archive.next()? {
        let place = match entry.kind {
            EntryType::Regular if entry.sparse.is_none() => Place::File {
                offset: position.get(),
                length: entry.size,
            },
            EntryType::HardLink => Place::Link(entry.link),
            EntryType::Symlink => {
                let parent = entry.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                let target = [&entry.path[..parent], b"/", &entry.link].concat();
                let Ok(target) = normalise(&target) else { continue };
                Place::Link(target)
            }
            _ => continue,
        };
        places.insert(entry.path, place);
    }
    Ok(places)
}

/// Counts what is consumed.
struct Counting<'a, R> {
    inner: R,
    position: &'a Cell<u64>,
}

impl<R: BufRead> BufRead for Counting<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.position.set(self.position.get() + count as u64);
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Counting<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}
