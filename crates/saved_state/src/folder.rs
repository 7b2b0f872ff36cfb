//! A snapshot's folder: written whole, read with suspicion.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::manifest::FileEntry;
use crate::manifest::{FORMAT, MAX_MANIFEST, is_plain_name};
use crate::{Error, Identity, Manifest, Unit, UnitEntry};

const MANIFEST: &str = "manifest";
const UNITS: &str = "units";

/// A snapshot that is being written, beside its place. Dropped before [`SnapshotWriter::commit`] it leaves nothing.
pub struct SnapshotWriter {
    staging: PathBuf,
    place: PathBuf,
    identity: Identity,
    entries: Vec<UnitEntry>,
    units: Vec<u8>,
    files: Vec<(String, File)>,
    committed: bool,
}

impl SnapshotWriter {
    /// Begins a snapshot that will be the folder `place`, by way of `staging` on the same file system; neither exists.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(place: &Path, staging: &Path, identity: Identity) -> Result<Self, Error> {
        fs::create_dir(staging).map_err(Error::io("make the folder", staging))?;
        Ok(Self {
            staging: staging.to_owned(),
            place: place.to_owned(),
            identity,
            entries: Vec::new(),
            units: Vec::new(),
            files: Vec::new(),
            committed: false,
        })
    }

    /// Adds a unit; names are used once.
    pub fn unit(&mut self, name: &str, unit: &Unit) {
        self.entries.push(UnitEntry {
            name: name.to_owned(),
            schema: unit.schema,
            offset: self.units.len() as u64,
            len: unit.bytes.len() as u64,
            sha256: digest(&unit.bytes),
        });
        self.units.extend_from_slice(&unit.bytes);
    }

    /// Adds a file, to be filled by the caller before [`SnapshotWriter::commit`].
    ///
    /// # Errors
    /// [`Error::Io`], or a name that is not plain letters, digits, `-` and `_`.
    pub fn file(&mut self, name: &str) -> Result<&File, Error> {
        if !is_plain_name(name) || [MANIFEST, UNITS].contains(&name) {
            return Err(Error::Impossible(format!("no file can be called {name}")));
        }
        let file = self.create(name)?;
        self.files.push((name.to_owned(), file));
        // It was just added.
        Ok(&self.files[self.files.len() - 1].1)
    }

    /// Writes manifest and units, forces everything to the disk and puts the folder into its place, which must be free.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is left behind.
    pub fn commit(mut self) -> Result<(), Error> {
        let mut files = Vec::new();
        for (name, file) in &self.files {
            let path = self.staging.join(name);
            let (len, sha256) = digest_file(file).map_err(Error::io("read", path))?;
            files.push(FileEntry {
                name: name.clone(),
                len,
                sha256,
            });
        }
        let manifest = Manifest {
            format: FORMAT,
            identity: std::mem::take(&mut self.identity),
            units: std::mem::take(&mut self.entries),
            files,
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(Error::Manifest)?;
        for (name, bytes) in [(UNITS, &self.units), (MANIFEST, &text)] {
            let mut file = self.create(name)?;
            file.write_all(bytes)
                .map_err(Error::io("write", self.staging.join(name)))?;
            self.files.push((name.to_owned(), file));
        }
        for (name, file) in &self.files {
            file.sync_all()
                .map_err(Error::io("force to the disk", self.staging.join(name)))?;
        }
        sync_folder(&self.staging)?;
        fs::rename(&self.staging, &self.place).map_err(Error::io("put into its place", &self.place))?;
        self.committed = true;
        self.place.parent().map_or(Ok(()), sync_folder)
    }

    fn create(&self, name: &str) -> Result<File, Error> {
        let path = self.staging.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.open(&path).map_err(Error::io("make", path))
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.committed {
            // What stays is swept with other leftovers; the reason that led here is told already.
            let _ = fs::remove_dir_all(&self.staging);
        }
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("force to the disk", path))
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Length and digest of all of a file.
fn digest_file(file: &File) -> io::Result<(u64, String)> {
    let mut reader = file;
    reader.rewind()?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let count = reader.read(&mut piece)?;
        if count == 0 {
            return Ok((len, hex(&hasher.finalize())));
        }
        hasher.update(&piece[..count]);
        len += count as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Manifest {
    /// What the snapshot in the folder at `path` says of itself; nothing else of it is looked at.
    ///
    /// # Errors
    /// A manifest that is not there, or impossible.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read_capped(&path.join(MANIFEST), MAX_MANIFEST)?)
    }
}

/// A snapshot that was opened and whose units are whole.
pub struct Snapshot {
    folder: PathBuf,
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
        let manifest = Manifest::read(path)?;
        let len = manifest.units_len();
        let units = read_capped(&path.join(UNITS), len)?;
        if units.len() as u64 != len {
            return Err(damaged(UNITS, format!("it has {} bytes, not {len}", units.len())));
        }
        let snapshot = Self {
            folder: path.to_owned(),
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
        if !self.manifest.files.iter().any(|file| file.name == name) {
            return Err(Error::Impossible(format!("it names no file {name}")));
        }
        let path = self.folder.join(name);
        File::open(&path).map_err(Error::io("open", path))
    }

    /// Compares the digests of all files with what the manifest says: this reads all of them.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn verify(&self) -> Result<(), Error> {
        for entry in &self.manifest.files {
            let path = self.folder.join(&entry.name);
            let (_, sha256) = File::open(&path)
                .and_then(|file| digest_file(&file))
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
    use super::*;

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
        let memory = OpenOptions::new().write(true).open(place.join("memory")).unwrap();
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
