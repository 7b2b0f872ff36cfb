//! Where things are in the store's folder, and how they get there.
//!
//! ```text
//! names/<digest of name and platform>      which image a name means (JSON)
//! images/<config digest>/{config,record,index}
//! layers-1/<diff id>/{entries,contents}    the number is the version of the format
//! partial/<diff id>.<blob digest>          the beginning of a download that was interrupted
//! staging/<random>/                        what is being made
//! locks/{store,names,settle,image-…,layer-…}
//! ```
//!
//! A folder of `images` and `layers-1` appears complete or not at all, by a rename. What was fetched is not
//! forced to the disk before that, which would take longer than fetching it: instead the folder has a file
//! `unsettled` with the name of the host's current boot. A kill, a full disk or a crash of this program
//! cannot hurt such a folder. After a crash of the *host* it does not count, and is fetched or made again.
//! [`super::Store::settle`] forces it to the disk later.

use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::ensure_folder;
use crate::error::{Error, Result};

const UNSETTLED: &str = "unsettled";
/// Folders forced to the disk at once.
const FORCED_AT_ONCE: usize = 8;
/// Folders of the store.
const FOLDERS: [&str; 6] = ["names", "images", "layers-1", "partial", "staging", "locks"];

/// The store's folder.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) root: PathBuf,
    /// The name of this boot; without one everything is settled at once.
    boot: Option<String>,
}

impl Files {
    pub(super) fn open(root: &Path) -> Result<Files> {
        for folder in FOLDERS {
            let path = root.join(folder);
            ensure_folder(&path).map_err(Error::io("make folder", &path))?;
        }
        Ok(Files {
            root: root.to_owned(),
            boot: host_os::boot_id().ok(),
        })
    }

    pub(super) fn name(&self, name: &str, platform: &str) -> PathBuf {
        self.root
            .join("names")
            .join(Digest::of(format!("{name}\0{platform}").as_bytes()).hex())
    }

    pub(super) fn image(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(id.hex())
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers-1").join(diff_id.hex())
    }

    pub(super) fn partial(&self, diff_id: &Digest, blob: &Digest) -> PathBuf {
        self.root
            .join("partial")
            .join(format!("{}.{}", diff_id.hex(), blob.hex()))
    }

    pub(super) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// A new folder to make something in; it goes away with the value.
    pub(super) fn stage(&self) -> Result<Stage> {
        let parent = self.root.join("staging");
        let mut random = [0; 16];
        host_os::random_bytes(&mut random)
            .map_err(|error| Error::io("name a folder in", &parent)(io::Error::other(error)))?;
        let path = parent.join(
            random
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        );
        fs::create_dir(&path).map_err(Error::io("make folder", &path))?;
        Ok(Stage { path })
    }

    /// Makes a staged folder appear at its place. The caller holds the lock of that place.
    pub(super) fn publish(&self, stage: Stage, place: &Path) -> Result<()> {
        match &self.boot {
            Some(boot) => write(&stage.path.join(UNSETTLED), boot.as_bytes())?,
            None => force_content(&stage.path)?,
        }
        // What is there is of another boot, see `is_present`.
        remove_folder(place)?;
        fs::rename(&stage.path, place).map_err(Error::io("make", place))?;
        self.force_entry(place)
    }

    /// Whether a published folder is there and can be relied on.
    pub(super) fn is_present(&self, place: &Path) -> bool {
        place.is_dir()
            && match fs::read(place.join(UNSETTLED)) {
                Ok(boot) => Some(&boot[..]) == self.boot.as_deref().map(str::as_bytes),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
    }

    /// Forces all published folders in a folder of the store to the disk.
    pub(super) fn settle(&self, folder: &str) -> Result<()> {
        let mut places = self.list(folder)?;
        places.retain(|place| place.join(UNSETTLED).exists() && self.is_present(place));
        if places.is_empty() {
            return Ok(());
        }
        at_once(&places, force_content)?;
        // They must be where they are before anything says that they can be relied on.
        force(&self.root.join(folder))?;
        at_once(&places, |place| {
            let mark = place.join(UNSETTLED);
            match fs::remove_file(&mark) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &mark)(error))
                }
                _ => force(place),
            }
        })
    }

    /// Forces all names to the disk, and the store's own folders.
    pub(super) fn settle_names(&self) -> Result<()> {
        force_content(&self.root.join("names"))?;
        force(&self.root)
    }

    /// Replaces a small file in one step.
    pub(super) fn replace(&self, place: &Path, bytes: &[u8]) -> Result<()> {
        let stage = self.stage()?;
        let staged = stage.path.join("file");
        write(&staged, bytes)?;
        if self.boot.is_none() {
            force(&staged)?;
        }
        fs::rename(&staged, place).map_err(Error::io("write", place))?;
        self.force_entry(place)
    }

    /// Makes sure that what was renamed stays where it is, if that is not done later.
    fn force_entry(&self, place: &Path) -> Result<()> {
        match (&self.boot, place.parent()) {
            (None, Some(parent)) => force(parent),
            _ => Ok(()),
        }
    }

    /// Names of what is in a folder of the store.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let path = self.root.join(folder);
        let entries = fs::read_dir(&path).map_err(Error::io("list", &path))?;
        entries
            .map(|entry| Ok(entry.map_err(Error::io("list", &path))?.path()))
            .collect()
    }
}

/// A folder in the making.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) path: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Gone if it was published; otherwise what stays is swept later.
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).map_err(Error::io("write", path))
}

/// Does the same to several folders, some of them at once: disks are better at that than at one by one.
fn at_once(places: &[PathBuf], act: impl Fn(&Path) -> Result<()> + Sync) -> Result<()> {
    let act = &act;
    places.chunks(FORCED_AT_ONCE).try_for_each(|places| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = places
                .iter()
                .map(|place| scope.spawn(move || act(place)))
                .collect();
            // The only panics are bugs of this crate; they go on to the caller.
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    })
}

/// Forces all files in a folder to the disk, and that they are there; without the mark, which is to go.
fn force_content(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if !path.ends_with(UNSETTLED) {
            force(&path)?;
        }
    }
    force(folder)
}

/// Forces a file or the list of a folder to the disk; what has gone meanwhile need not be.
fn force(path: &Path) -> Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("force to the disk", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder if it is there.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
