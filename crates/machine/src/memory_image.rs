//! Guest RAM in snapshots: a file of its own, and what did not change since the snapshot the machine came from.
//!
//! The files of that one get a second name in the new one's folder: it is whole by itself, whatever becomes of the other.

use std::fs::File;
use std::path::PathBuf;

use guest_memory::{Extent, GuestMemory};
use saved_state::{FileEntry, Snapshot, SnapshotWriter, Unit, record};

use crate::Error;

/// The file with what was written last.
const MEMORY: &str = "memory";
/// The unit that says what lies where.
pub(crate) const EXTENTS: &str = "memory-extents";
const SCHEMA: u16 = 1;
/// The most files of one snapshot: one that would have more has all in one again.
const MAX_FILES: usize = 8;

record! {
    /// Where RAM lies in its files: guest-physical address, length, offset; and for each the number of its file, all of
    /// them 0 where there are none.
    struct SavedExtents {
        1 extents: Vec<[u64; 3]>,
        2 files: Vec<u32> = Vec::new(),
    }
}

/// What RAM was mapped from.
pub(crate) struct Image {
    files: Vec<ImageFile>,
    extents: Vec<Extent>,
    /// Digest of the snapshot's manifest.
    snapshot: String,
}

struct ImageFile {
    file: File,
    path: PathBuf,
    entry: FileEntry,
}

/// The name of the file of that number.
fn name(number: usize) -> String {
    match number {
        0 => MEMORY.to_owned(),
        _ => format!("{MEMORY}-{number}"),
    }
}

impl Image {
    /// What lies where.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// What `snapshot` says of RAM.
    pub(crate) fn open(snapshot: &Snapshot) -> Result<Self, Error> {
        let saved: SavedExtents = snapshot.load(EXTENTS, |unit| unit.decode(SCHEMA))?;
        let file_of = |number: usize| match saved.files.is_empty() {
            true => Some(0),
            false => saved.files.get(number).copied(),
        };
        let extents = saved
            .extents
            .iter()
            .enumerate()
            .map(|(number, &[gpa, len, offset])| {
                let file = file_of(number)?;
                Some(Extent {
                    gpa,
                    len,
                    file,
                    offset,
                })
            });
        let impossible = || saved_state::Error::Impossible("an extent of RAM has no file".to_owned());
        let extents = extents.collect::<Option<Vec<_>>>().ok_or_else(impossible)?;
        let highest = extents.iter().map(|extent| extent.file as usize).max();
        let count = highest.map_or(1, |highest| highest.saturating_add(1));
        if count > MAX_FILES {
            return Err(saved_state::Error::Impossible("RAM has too many files".to_owned()).into());
        }
        let file = |number| {
            let name = name(number);
            Ok(ImageFile {
                file: snapshot.file(&name)?,
                path: snapshot.path(&name),
                entry: snapshot.file_entry(&name)?.clone(),
            })
        };
        Ok(Self {
            files: (0..count).map(file).collect::<Result<_, Error>>()?,
            extents,
            snapshot: snapshot.digest().to_owned(),
        })
    }

    /// Maps it over RAM that is as it was made.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<(), Error> {
        let files = self.files.iter().map(|file| file.file.try_clone());
        let mapped = files
            .collect::<Result<Vec<_>, _>>()
            .and_then(|files| memory.map_image(&files, &self.extents));
        mapped.map_err(Error::MemoryImage)
    }

    /// Gives its files a second name in the snapshot that is written, as numbers from 1 on; those that are gone under
    /// their own, and what lies in them, count as changed. What is left of the extents.
    fn link(&self, writer: &mut SnapshotWriter) -> Vec<Extent> {
        if self.files.len() >= MAX_FILES {
            return Vec::new();
        }
        let linked: Vec<bool> = (1..)
            .zip(&self.files)
            .map(|(number, ImageFile { file, path, entry })| {
                let entry = FileEntry {
                    name: name(number),
                    ..entry.clone()
                };
                writer.link_file(entry, path, file)
            })
            .collect();
        let is_linked = |extent: &&Extent| linked.get(extent.file as usize) == Some(&true);
        self.extents.iter().filter(is_linked).copied().collect()
    }
}

/// Writes RAM, of which what did not change since `base` is not copied.
pub(crate) fn write(
    memory: &GuestMemory,
    base: Option<&Image>,
    writer: &mut SnapshotWriter,
) -> Result<(), Error> {
    let unchanged = base.map(|base| base.link(writer)).unwrap_or_default();
    let file = writer.growing_file(MEMORY)?;
    let extents = memory.write_image(file.file(), &unchanged, |len| file.grown_to(len));
    let mut extents = extents.map_err(Error::MemoryImage)?;
    keep_used(&mut extents, writer)?;
    if let Some(base) = base.filter(|_| extents.iter().any(|extent| extent.file > 0)) {
        writer.descends_from(&base.snapshot);
    }
    let saved = SavedExtents {
        extents: extents
            .iter()
            .map(|extent| [extent.gpa, extent.len, extent.offset])
            .collect(),
        files: extents.iter().map(|extent| extent.file).collect(),
    };
    writer.unit(EXTENTS, &Unit::new(SCHEMA, &saved));
    Ok(())
}

/// Removes the links that no extent needs, and numbers the others without gaps.
fn keep_used(extents: &mut [Extent], writer: &mut SnapshotWriter) -> Result<(), Error> {
    let mut next = 1;
    for number in 1..MAX_FILES {
        let mut used = extents
            .iter_mut()
            .filter(|extent| extent.file as usize == number)
            .peekable();
        if used.peek().is_none() {
            writer.remove_link(&name(number))?;
            continue;
        }
        writer.rename_link(&name(number), &name(next))?;
        used.for_each(|extent| extent.file = next as u32);
        next += 1;
    }
    Ok(())
}

/// Writes the snapshot of a machine once more, with all RAM in one file.
///
/// # Errors
/// [`Error::Snapshot`], [`Error::MemoryImage`].
pub fn flatten(snapshot: &Snapshot, writer: &mut SnapshotWriter) -> Result<(), Error> {
    let image = Image::open(snapshot)?;
    let memory = writer.growing_file(MEMORY)?;
    let mut len = 0;
    let mut extents = Vec::new();
    for extent in &image.extents {
        let from = &image.files[extent.file as usize].file;
        let copied = guest_memory::copy_data(from, extent.offset, memory.file(), len, extent.len);
        copied.map_err(Error::MemoryImage)?;
        extents.push([extent.gpa, extent.len, len]);
        len += extent.len;
        memory.grown_to(len);
    }
    memory.file().set_len(len).map_err(Error::MemoryImage)?;
    let is_memory = |name: &str| (0..MAX_FILES).any(|number| name == self::name(number));
    let files = snapshot.manifest().files.iter();
    for file in files.filter(|file| !is_memory(&file.name)) {
        let from = snapshot.file(&file.name)?;
        if !writer.link_file(file.clone(), &snapshot.path(&file.name), &from) {
            let to = writer.file(&file.name)?;
            let copied =
                guest_memory::copy_data(&from, 0, to, 0, file.len).and_then(|()| to.set_len(file.len));
            copied.map_err(Error::MemoryImage)?;
        }
    }
    for unit in &snapshot.manifest().units {
        if unit.name != EXTENTS {
            writer.unit(&unit.name, &snapshot.unit(&unit.name)?);
        }
    }
    let saved = SavedExtents {
        extents,
        files: Vec::new(),
    };
    writer.unit(EXTENTS, &Unit::new(SCHEMA, &saved));
    Ok(())
}
