//! A snapshot's folder, read with suspicion.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::digested::{Digested, digest};
use crate::manifest::MAX_MANIFEST;
use crate::{Error, FileEntry, Manifest, Unit, UnitEntry};

pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const UNITS: &str = "units";

impl Manifest {
    /// What the snapshot in the folder at `path` says of itself; nothing else of it is looked at.
    ///
    /// # Errors
    /// A manifest that is not there, or impossible.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&Self::text(path)?)
    }

    fn text(path: &Path) -> Result<Vec<u8>, Error> {
        read_capped(&path.join(MANIFEST), MAX_MANIFEST)
    }
}

/// A snapshot that was opened and whose units are whole.
pub struct Snapshot {
    folder: PathBuf,
    /// The manifest's.
    digest: String,
    manifest: Manifest,
    units: Vec<u8>,
}

impl Snapshot {
    /// Opens the folder at `path`, reads the manifest and checks every unit's digest. What is in the other files is not
    /// looked at, but they are as long as the manifest says.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = Manifest::text(path)?;
        let manifest = Manifest::parse(&text)?;
        let len = manifest.units_len();
        let units = read_capped(&path.join(UNITS), len)?;
        if units.len() as u64 != len {
            return Err(damaged(UNITS, format!("it has {} bytes, not {len}", units.len())));
        }
        let snapshot = Self {
            folder: path.to_owned(),
            digest: digest(&text),
            manifest,
            units,
        };
        for entry in &snapshot.manifest.units {
            if digest(snapshot.bytes(entry)) != entry.sha256 {
                let unit = format!("unit {}", entry.name);
                return Err(damaged(&unit, "its digest is another".to_owned()));
            }
        }
        snapshot.check_files()?;
        Ok(snapshot)
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest of the manifest, which has those of all else: SHA-256, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The unit of that name.
    ///
    /// # Errors
    /// [`Error::MissingUnit`].
    pub fn unit(&self, name: &str) -> Result<Unit, Error> {
        let entry = self.manifest.units.iter().find(|unit| unit.name == name);
        let entry = entry.ok_or_else(|| Error::MissingUnit(name.to_owned()))?;
        Ok(Unit {
            schema: entry.schema,
            bytes: self.bytes(entry).to_vec(),
        })
    }

    /// What `decode` makes of the unit of that name; its errors name the unit.
    ///
    /// # Errors
    /// [`Error::MissingUnit`], what `decode` says.
    pub fn load<T>(&self, name: &str, decode: impl FnOnce(&Unit) -> Result<T, Error>) -> Result<T, Error> {
        let loaded = self.unit(name).and_then(|unit| decode(&unit));
        loaded.map_err(|error| error.in_unit(name))
    }

    /// Opens one of the files for reading.
    ///
    /// # Errors
    /// [`Error::Io`], or one that the manifest does not name.
    pub fn file(&self, name: &str) -> Result<File, Error> {
        let path = self.path(&self.file_entry(name)?.name);
        File::open(&path).map_err(Error::io("open", path))
    }

    /// What the manifest says of one of the files.
    ///
    /// # Errors
    /// One that it does not name.
    pub fn file_entry(&self, name: &str) -> Result<&FileEntry, Error> {
        let entry = self.manifest.files.iter().find(|file| file.name == name);
        entry.ok_or_else(|| Error::Impossible(format!("it names no file {name}")))
    }

    /// Where a file of that name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Compares the digests of all files with what the manifest says: this reads all of them.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn verify(&self) -> Result<(), Error> {
        for entry in &self.manifest.files {
            let path = self.folder.join(&entry.name);
            let (_, sha256) = File::open(&path)
                .and_then(|file| Digested::default().whole(&file))
                .map_err(Error::io("read", &path))?;
            if sha256 != entry.sha256 {
                return Err(damaged(&entry.name, "its digest is another".to_owned()));
            }
        }
        Ok(())
    }

    fn bytes(&self, entry: &UnitEntry) -> &[u8] {
        // Units follow each other, and the file is as long as all of them.
        &self.units[entry.offset as usize..][..entry.len as usize]
    }

    fn check_files(&self) -> Result<(), Error> {
        for entry in &self.manifest.files {
            let path = self.folder.join(&entry.name);
            let metadata = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
            if !metadata.is_file() || metadata.len() != entry.len {
                let why = format!("it is no file of {} bytes", entry.len);
                return Err(damaged(&entry.name, why));
            }
        }
        Ok(())
    }
}

fn damaged(what: &str, why: String) -> Error {
    Error::Damaged {
        what: what.to_owned(),
        why,
    }
}

/// All of a file, of which no more than `max` bytes and one are read.
fn read_capped(path: &Path, max: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // Room for all of it, or it would be read in many small pieces.
    let expected = file.metadata().map_or(0, |metadata| metadata.len()).min(max) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > max {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return Err(damaged(&name, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Identity, SnapshotWriter};

    /// A writer of a snapshot beside that of [`written`].
    fn second(folder: &Path) -> SnapshotWriter {
        SnapshotWriter::new(&folder.join("two"), &folder.join("two.new"), Identity::new()).unwrap()
    }

    #[test]
    fn linked_file_stays_when_the_snapshot_it_comes_from_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = written(folder.path());
        let snapshot = Snapshot::open(&first).unwrap();
        let entry = FileEntry {
            name: "memory-5".to_owned(),
            ..snapshot.file_entry("memory").unwrap().clone()
        };
        let mut writer = second(folder.path());

        let file = snapshot.file("memory").unwrap();
        assert!(writer.link_file(entry, &snapshot.path("memory"), &file));
        writer.rename_link("memory-5", "memory-1").unwrap();
        writer.descends_from(snapshot.digest());
        writer.commit().unwrap();
        fs::remove_dir_all(&first).unwrap();

        let second = Snapshot::open(&folder.path().join("two")).unwrap();
        second.verify().unwrap();
        assert_eq!(second.manifest().parent.as_deref(), Some(snapshot.digest()));
        assert_eq!(second.manifest().files.len(), 1);
        assert_eq!(second.file("memory-1").unwrap().metadata().unwrap().len(), 0x2000);
    }

    #[test]
    fn link_to_another_file_than_the_one_at_hand_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::open(&written(folder.path())).unwrap();
        let entry = snapshot.file_entry("memory").unwrap();
        let other = tempfile::tempfile().unwrap();
        other.set_len(0x2000).unwrap();
        let mut writer = second(folder.path());

        assert!(!writer.link_file(entry.clone(), &snapshot.path("memory"), &other));
        let file = snapshot.file("memory").unwrap();
        let outside = FileEntry {
            name: "../memory".to_owned(),
            ..entry.clone()
        };
        assert!(!writer.link_file(outside, &snapshot.path("memory"), &file));
        assert!(writer.link_file(entry.clone(), &snapshot.path("memory"), &file));
        writer.remove_link("memory").unwrap();
        writer.commit().unwrap();

        let listed = fs::read_dir(folder.path().join("two")).unwrap();
        assert_eq!(listed.count(), 2);
    }

    #[test]
    fn commit_that_is_not_put_into_its_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());

        assert!(second(folder.path()).commit_by(refused).is_err());

        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    fn written(folder: &Path) -> PathBuf {
        let place = folder.join("one");
        let identity = Identity::from([("cpu".to_owned(), "v2".to_owned())]);
        let mut writer = SnapshotWriter::new(&place, &folder.join("one.new"), identity).unwrap();
        for (name, bytes) in [("first", &b"abc"[..]), ("second", b""), ("third", b"defg")] {
            writer.unit(
                name,
                &Unit {
                    schema: 3,
                    bytes: bytes.to_vec(),
                },
            );
        }
        writer.file("memory").unwrap().set_len(0x2000).unwrap();
        writer.commit().unwrap();
        place
    }

    #[test]
    fn open_finds_what_was_committed_and_no_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::open(&written(folder.path())).unwrap();

        assert_eq!(snapshot.unit("third").unwrap().bytes, b"defg");
        assert_eq!(snapshot.unit("second").unwrap().schema, 3);
        assert!(matches!(snapshot.unit("fourth"), Err(Error::MissingUnit(_))));
        let memory = snapshot.file("memory").unwrap();
        assert_eq!(memory.metadata().unwrap().len(), 0x2000);
        assert!(snapshot.file("units").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn writer_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let staging = folder.path().join("new");
        let mut writer = SnapshotWriter::new(&folder.path().join("one"), &staging, Identity::new()).unwrap();
        writer.file("memory").unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Every byte of every file flipped, and every file cut short anywhere or gone, is noticed, save in what is only
    /// for people to read.
    #[test]
    fn open_damaged_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = written(folder.path());
        let path = place.join(UNITS);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(Snapshot::open(&place).is_err());
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Snapshot::open(&place).is_err());
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(Snapshot::open(&place).is_err());
        fs::write(&path, &whole).unwrap();
        let memory = fs::OpenOptions::new()
            .write(true)
            .open(place.join("memory"))
            .unwrap();
        memory.set_len(0x1fff).unwrap();
        assert!(Snapshot::open(&place).is_err());
        memory.set_len(0x2000).unwrap();
        assert!(Snapshot::open(&place).is_ok());
        for name in [MANIFEST, UNITS, "memory"] {
            let away = folder.path().join("away");
            fs::rename(place.join(name), &away).unwrap();
            assert!(Snapshot::open(&place).is_err());
            fs::rename(&away, place.join(name)).unwrap();
        }
    }

    #[test]
    fn verify_notices_a_bit_of_memory() {
        let folder = tempfile::tempdir().unwrap();
        let place = written(folder.path());
        let snapshot = Snapshot::open(&place).unwrap();
        assert!(snapshot.verify().is_ok());
        let mut memory = vec![0; 0x2000];
        memory[0x1234] = 1;
        fs::write(place.join("memory"), memory).unwrap();
        assert!(matches!(snapshot.verify(), Err(Error::Damaged { .. })));
    }

    #[test]
    fn open_manifest_with_any_byte_changed_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        let place = written(folder.path());
        let path = place.join(MANIFEST);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [1, 4, 0x80] {
                let mut flipped = whole.clone();
                flipped[at] ^= bit;
                fs::write(&path, &flipped).unwrap();
                let _ = Snapshot::open(&place);
            }
        }
    }
}
