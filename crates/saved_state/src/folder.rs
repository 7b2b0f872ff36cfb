//! A snapshot's folder: written whole, read with suspicion.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use sha2::{Digest, Sha256};

use crate::digested::{Digested, Follower, hex};
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
    files: Vec<Written>,
    /// Files that are those of another snapshot.
    linked: Vec<(FileEntry, File)>,
    parent: Option<String>,
    force: bool,
    committed: bool,
}

struct Written {
    name: String,
    file: File,
    follower: Option<Follower>,
}

impl Written {
    fn new(name: &str, file: File) -> Self {
        Self {
            name: name.to_owned(),
            file,
            follower: None,
        }
    }
}

/// A file of a snapshot that grows.
pub struct GrowingFile<'a> {
    file: &'a File,
    follower: &'a Follower,
}

impl GrowingFile<'_> {
    /// The file.
    pub fn file(&self) -> &File {
        self.file
    }

    /// What lies before `len` will not change any more.
    pub fn grown_to(&self, len: u64) {
        self.follower.grown_to(len);
    }
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
            linked: Vec::new(),
            parent: None,
            force: true,
            committed: false,
        })
    }

    /// Makes this a snapshot that need not outlive a crash of the host: nothing is forced to the disk.
    pub fn force_nothing(&mut self) {
        self.force = false;
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
        self.files.push(Written::new(name, file));
        // It was just added.
        Ok(&self.files[self.files.len() - 1].file)
    }

    /// Adds a file that is written from its beginning to its end, which is told as it goes on: then little is left to do
    /// when it is complete.
    ///
    /// # Errors
    /// As [`SnapshotWriter::file`].
    pub fn growing_file(&mut self, name: &str) -> Result<GrowingFile<'_>, Error> {
        self.file(name)?;
        let staging = &self.staging;
        let force = self.force;
        // It was just added.
        let last = self.files.len() - 1;
        let written = &mut self.files[last];
        let follower = written
            .file
            .try_clone()
            .and_then(|file| Follower::start(file, force));
        let follower = follower.map_err(Error::io("digest", staging.join(name)))?;
        Ok(GrowingFile {
            file: &written.file,
            follower: written.follower.insert(follower),
        })
    }

    /// Says that files are those of the snapshot whose manifest has this digest.
    pub fn descends_from(&mut self, digest: &str) {
        self.parent = Some(digest.to_owned());
    }

    /// Adds a file that is there already: the one at `path`, which is `file` if nobody put another in its place. It is not
    /// copied, and must never change. False where that cannot be, as on another file system.
    pub fn link_file(&mut self, entry: FileEntry, path: &Path, file: &File) -> bool {
        let place = self.staging.join(&entry.name);
        if !is_plain_name(&entry.name) || fs::hard_link(path, &place).is_err() {
            return false;
        }
        let linked = fs::symlink_metadata(&place).and_then(|linked| Ok((linked, file.metadata()?)));
        let same = linked.is_ok_and(|(linked, file)| {
            (linked.dev(), linked.ino()) == (file.dev(), file.ino()) && file.len() == entry.len
        });
        match file.try_clone() {
            Ok(file) if same => {
                self.linked.push((entry, file));
                true
            }
            _ => {
                // What stays is removed with the folder, or refused as none of its files.
                let _ = fs::remove_file(&place);
                false
            }
        }
    }

    /// Gives a file that was added by [`SnapshotWriter::link_file`] another name, which must be free. Nothing happens
    /// where there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rename_link(&mut self, name: &str, to: &str) -> Result<(), Error> {
        let linked = self.linked.iter_mut().find(|(entry, _)| entry.name == name);
        if let Some((entry, _)) = linked.filter(|_| name != to) {
            let place = self.staging.join(name);
            fs::rename(&place, self.staging.join(to)).map_err(Error::io("rename", &place))?;
            entry.name = to.to_owned();
        }
        Ok(())
    }

    /// Takes away a file that was added by [`SnapshotWriter::link_file`], if there is such a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_link(&mut self, name: &str) -> Result<(), Error> {
        if let Some(at) = self.linked.iter().position(|(entry, _)| entry.name == name) {
            self.linked.remove(at);
            let place = self.staging.join(name);
            fs::remove_file(&place).map_err(Error::io("remove", &place))?;
        }
        Ok(())
    }

    /// Writes manifest and units, forces everything to the disk and puts the folder into its place, which must be free.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is left behind.
    pub fn commit(self) -> Result<(), Error> {
        self.commit_by(|from, to| fs::rename(from, to))
    }

    /// As [`SnapshotWriter::commit`], where `put` does the last step: from the folder it is in to its place.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing has changed then.
    pub fn commit_by(mut self, put: impl FnOnce(&Path, &Path) -> io::Result<()>) -> Result<(), Error> {
        self.write_manifest()?;
        if self.force {
            self.force_to_disk()?;
        }
        put(&self.staging, &self.place).map_err(Error::io("put into its place", &self.place))?;
        self.committed = true;
        match self.place.parent() {
            Some(parent) if self.force => sync_folder(parent),
            _ => Ok(()),
        }
    }

    /// Writes manifest and units.
    fn write_manifest(&mut self) -> Result<(), Error> {
        let mut files = Vec::new();
        for Written { name, file, follower } in &mut self.files {
            let followed = follower.take().map(Follower::finish).transpose();
            let digested = followed.and_then(|digested| digested.unwrap_or_default().whole(file));
            let (len, sha256) = digested.map_err(Error::io("read", self.staging.join(&*name)))?;
            files.push(FileEntry {
                name: name.clone(),
                len,
                sha256,
            });
        }
        files.extend(self.linked.iter().map(|(entry, _)| entry.clone()));
        let manifest = Manifest {
            format: FORMAT,
            identity: std::mem::take(&mut self.identity),
            parent: self.parent.take(),
            units: std::mem::take(&mut self.entries),
            files,
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(Error::Manifest)?;
        for (name, bytes) in [(UNITS, &self.units), (MANIFEST, &text)] {
            let mut file = self.create(name)?;
            file.write_all(bytes)
                .map_err(Error::io("write", self.staging.join(name)))?;
            self.files.push(Written::new(name, file));
        }
        Ok(())
    }

    /// All at once: file systems write down once what is asked for together.
    fn force_to_disk(&self) -> Result<(), Error> {
        thread::scope(|scope| {
            let force = |name: &'_ str, file: &'_ File| {
                let forced = file.sync_all();
                forced.map_err(Error::io("force to the disk", self.staging.join(name)))
            };
            let written = self.files.iter().map(|written| (&written.name, &written.file));
            // The snapshot these come from may have been one that need not last.
            let linked = self.linked.iter().map(|(entry, file)| (&entry.name, file));
            let forcing: Vec<_> = written
                .chain(linked)
                .map(|(name, file)| scope.spawn(move || force(name, file)))
                .collect();
            forcing.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        sync_folder(&self.staging)
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
    use super::*;

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
