//! A snapshot's folder while it is written: whole in its place in the end, or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::digested::{Follower, digest};
use crate::folder::{MANIFEST, UNITS};
use crate::manifest::{FORMAT, is_plain_name};
use crate::{Error, FileEntry, Identity, Manifest, Unit, UnitEntry};

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
