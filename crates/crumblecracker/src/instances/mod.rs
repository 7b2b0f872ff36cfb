//! Running guests that have a name: where they are kept, and how others than their own process reach them.
//!
//! Each has one process, its monitor, and one folder, which only our user may enter. In it are `lock`, held by the
//! monitor for as long as it lives; `socket`, where it is talked to; `about`, what it says of itself; `log`, what its
//! main process wrote. There is no other process and no list: a folder whose lock is free is of a guest that is gone,
//! and is removed by whoever comes across it.

mod client;
mod fork;
mod log;
mod protocol;
mod server;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use client::{RemoteControl, RemoteProcess};
pub use fork::{ForkOptions, Forkable};
pub use log::Log;
pub use server::{Monitor, Running, Stopper};

use crate::names::is_name;
use crate::{Error, Library, Result};

/// The most that is read of what a guest says of itself.
const ABOUT_MAX: u64 = 64 << 10;
/// The longest path of a socket, without the zero at its end (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// The file in the folder of all guests whose lock is held while folders in it are made, removed or judged. No name
/// begins with a dot.
const REGISTRY_LOCK: &str = ".lock";

/// The running guests of our user.
#[derive(Clone, Debug)]
pub struct Instances {
    folder: PathBuf,
}

/// What a running guest says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The name of its image.
    pub image: String,
    /// The process id of its monitor.
    pub pid: u32,
    /// When it was up, in seconds since 1970.
    pub started: u64,
}

impl About {
    /// That a guest of this image is up now, in this process.
    fn now(image: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            image: image.to_owned(),
            pid: std::process::id(),
            started: now.as_secs(),
        }
    }

    /// How long it has been up.
    pub fn age(&self) -> Duration {
        let started = UNIX_EPOCH + Duration::from_secs(self.started);
        SystemTime::now().duration_since(started).unwrap_or_default()
    }
}

/// One running guest, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningInstance {
    /// Its name.
    pub name: String,
    /// What it says of itself; nothing while it starts.
    pub about: Option<About>,
}

impl Library {
    /// The running guests that have a name: those of `$XDG_RUNTIME_DIR/crumblecracker/instances`, or of the cache
    /// folder's `instances` where that is not set.
    pub fn instances(&self) -> Instances {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let folder = match runtime.filter(|folder| folder.is_absolute()) {
            Some(runtime) => runtime.join("crumblecracker/instances"),
            None => self.cache_folder().join("instances"),
        };
        Instances { folder }
    }
}

/// A name that is ours, and the folder that goes with it. Dropping it gives the name back.
#[derive(Debug)]
pub struct Claim {
    instances: Instances,
    name: String,
    /// `None` once another process is to have it.
    lock: Option<File>,
}

impl Instances {
    /// Takes `name` for a guest that is about to start.
    ///
    /// # Errors
    /// [`Error::InstanceName`], [`Error::InstanceTaken`], [`Error::ForeignInstances`], [`Error::File`].
    pub fn claim(&self, name: &str) -> Result<Claim> {
        let path = self.path(name)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(Error::file("make", &self.folder))?;
        let _registry = self.lock()?;
        if path.symlink_metadata().is_ok() && !self.sweep(&path)? {
            return Err(Error::InstanceTaken(name.to_owned()));
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(Error::file("make", &path))?;
        let lock = private(
            &path.join("lock"),
            OpenOptions::new().read(true).write(true).create_new(true),
        )?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| Error::file("lock", &path)(error.into()))?;
        Ok(Claim {
            instances: self.clone(),
            name: name.to_owned(),
            lock: Some(lock),
        })
    }

    /// Goes on with the claim of `name` whose lock another process handed over.
    ///
    /// # Errors
    /// [`Error::InstanceName`]; [`Error::InstanceTaken`] where `lock` is not that name's.
    pub fn adopt(&self, name: &str, lock: File) -> Result<Claim> {
        let path = self.path(name)?;
        let there = path.join("lock").symlink_metadata();
        let both = lock.metadata().and_then(|ours| Ok((ours, there?)));
        let is_its_own = both.is_ok_and(|(ours, there)| host_os::is_same_file(&ours, &there));
        // The lock is of the open file: for who has that, it is free.
        if !is_its_own || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::InstanceTaken(name.to_owned()));
        }
        Ok(Claim {
            instances: self.clone(),
            name: name.to_owned(),
            lock: Some(lock),
        })
    }

    /// All that run, by name. What is left of those that do not is removed.
    ///
    /// # Errors
    /// [`Error::ForeignInstances`], [`Error::File`].
    pub fn list(&self) -> Result<Vec<RunningInstance>> {
        let listed = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(Error::file("list", &self.folder))?,
        };
        let _registry = self.lock()?;
        let mut running = Vec::new();
        for entry in listed {
            let entry = entry.map_err(Error::file("list", &self.folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Ok(path) = self.path(&name) else { continue };
            if path.symlink_metadata().is_ok() && !self.sweep(&path)? {
                let about = read_about(&path);
                running.push(RunningInstance { name, about });
            }
        }
        running.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(running)
    }

    /// The files with what the main process of `name` wrote, the older one first.
    ///
    /// # Errors
    /// [`Error::InstanceName`], [`Error::NoInstance`], [`Error::ForeignInstances`], [`Error::File`].
    pub fn logs(&self, name: &str) -> Result<Vec<File>> {
        Log::open_to_read(&self.existing(name)?)
    }

    /// The folder of a guest that is there.
    fn existing(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name)?;
        if path.symlink_metadata().is_err() {
            return Err(Error::NoInstance(name.to_owned()));
        }
        let _registry = self.lock()?;
        match self.sweep(&path)? {
            true => Err(Error::NoInstance(name.to_owned())),
            false => Ok(path),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        match is_name(name) {
            true => Ok(self.folder.join(name)),
            false => Err(Error::InstanceName(name.to_owned())),
        }
    }

    /// Waits until nobody else makes, removes or judges folders.
    fn lock(&self) -> Result<File> {
        check_owner(&self.folder)?;
        let path = self.folder.join(REGISTRY_LOCK);
        let file = private(&path, OpenOptions::new().write(true).create(true))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| Error::file("lock", &path)(error.into()))?;
        Ok(file)
    }

    /// Removes the folder of a guest whose monitor is gone; false where it lives. The registry's lock is held.
    fn sweep(&self, path: &Path) -> Result<bool> {
        check_owner(path)?;
        let lock = path.join("lock");
        let gone = match File::open(&lock) {
            // Removed or made by halves by somebody who was killed.
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(Error::file("open", &lock)(error)),
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => true,
                Err(Errno::WOULDBLOCK) => false,
                Err(error) => return Err(Error::file("lock", &lock)(error.into())),
            },
        };
        if gone {
            fs::remove_dir_all(path).map_err(Error::file("remove", path))?;
        }
        Ok(gone)
    }
}

impl Claim {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The guest's folder.
    pub fn folder(&self) -> PathBuf {
        self.instances.folder.join(&self.name)
    }

    /// The log, to be appended to.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn log(&self) -> Result<Log> {
        Log::open(&self.folder())
    }

    /// The lock that [`Instances::adopt`] takes in another process, which inherits it. The name is given back when
    /// nobody has it open any more.
    pub fn hand_over(mut self) -> Option<File> {
        self.lock.take()
    }

    /// Leaves word of what the guest is.
    fn tell(&self, about: &About) -> Result<()> {
        let path = self.folder().join("about");
        let staged = self.folder().join("about.new");
        let text = serde_json::to_vec(about).map_err(|error| Error::Message(error.to_string()))?;
        fs::write(&staged, text).map_err(Error::file("write", &staged))?;
        fs::rename(&staged, &path).map_err(Error::file("write", &path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // What cannot be removed is swept later, when its lock is free.
        let _registry = self.instances.lock();
        let _ = fs::remove_dir_all(self.folder());
    }
}

/// A socket gives power over a guest: folders that others could have filled are left alone.
fn check_owner(folder: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(folder).map_err(Error::file("look at", folder))?;
    match metadata.is_dir() && host_os::only_we_write(&metadata) {
        true => Ok(()),
        false => Err(Error::ForeignInstances(folder.to_owned())),
    }
}

/// Opens a file that only our user may read.
fn private(path: &Path, options: &mut OpenOptions) -> Result<File> {
    options.mode(0o600).open(path).map_err(Error::file("open", path))
}

fn read_about(folder: &Path) -> Option<About> {
    let text = read_capped(&folder.join("about"), ABOUT_MAX).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The first `limit` bytes of a file at most.
fn read_capped(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Acts on the path of the socket in `folder`: on a short way to it where its name is longer than sockets bear.
fn with_socket_path<T>(folder: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T> {
    use std::os::fd::AsRawFd;

    let path = folder.join("socket");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return act(&path).map_err(Error::file("use the socket", &path));
    }
    let opened = File::open(folder).map_err(Error::file("open", folder))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/socket", opened.as_raw_fd()));
    act(&short).map_err(Error::file(
        "use the socket (its path is too long for sockets)",
        &path,
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn instances() -> (Instances, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let instances = Instances {
            folder: folder.path().join("instances"),
        };
        (instances, folder)
    }

    fn names(instances: &Instances) -> Vec<String> {
        let listed = instances.list().unwrap();
        listed.into_iter().map(|instance| instance.name).collect()
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let (instances, _folder) = instances();
        for name in ["", "..", ".lock", "a/b"] {
            let refused = instances.claim(name).unwrap_err();
            assert!(matches!(refused, Error::InstanceName(_)), "{name:?}: {refused}");
        }
    }

    #[test]
    fn claimed_name_is_listed_and_taken_until_the_claim_is_dropped() {
        let (instances, _folder) = instances();
        let claim = instances.claim("box").unwrap();

        assert_eq!(names(&instances), ["box"]);
        assert!(matches!(instances.claim("box"), Err(Error::InstanceTaken(_))));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&claim.folder()), mode(&instances.folder)), (0o700, 0o700));

        drop(claim);
        assert_eq!(names(&instances), [""; 0]);
        instances.claim("box").unwrap();
    }

    #[test]
    fn what_is_told_is_listed() {
        let (instances, _folder) = instances();
        let claim = instances.claim("box").unwrap();
        assert_eq!(instances.list().unwrap()[0].about, None);

        let about = About::now("image");
        claim.tell(&about).unwrap();

        assert_eq!(instances.list().unwrap()[0].about, Some(about));
    }

    #[test]
    fn folder_whose_lock_is_free_is_swept() {
        let (instances, _folder) = instances();
        // As processes that are killed leave them.
        for name in ["box", "bag"] {
            drop(instances.claim(name).unwrap().hand_over());
        }
        let torn = instances.folder.join("torn");
        fs::create_dir(&torn).unwrap();

        drop(instances.claim("bag").unwrap());
        assert!(matches!(instances.logs("torn"), Err(Error::NoInstance(_))));
        assert_eq!(names(&instances), [""; 0]);

        let left = fs::read_dir(&instances.folder).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, [REGISTRY_LOCK]);
    }

    #[test]
    fn lock_handed_over_keeps_the_name_and_no_other_lock_does() {
        let (instances, folder) = instances();
        let lock = instances.claim("box").unwrap().hand_over().unwrap();
        assert_eq!(names(&instances), ["box"]);

        let other = File::create(folder.path().join("other")).unwrap();
        assert!(instances.adopt("box", other).is_err());
        let second = File::open(instances.folder.join("box/lock")).unwrap();
        assert!(instances.adopt("box", second).is_err());
        let claim = instances.adopt("box", lock).unwrap();

        assert_eq!(names(&instances), ["box"]);
        drop(claim);
        assert_eq!(names(&instances), [""; 0]);
    }

    #[test]
    fn folder_that_others_may_write_to_is_refused_and_left_as_it_is() {
        let (instances, _folder) = instances();
        let claim = instances.claim("box").unwrap();
        let opened = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();

        opened(&claim.folder());
        assert!(matches!(instances.logs("box"), Err(Error::ForeignInstances(_))));
        opened(&instances.folder);
        assert!(matches!(instances.list(), Err(Error::ForeignInstances(_))));
        assert!(matches!(instances.claim("bag"), Err(Error::ForeignInstances(_))));

        assert!(claim.folder().join("lock").exists());
    }

    #[test]
    fn socket_with_a_long_path_is_reached_by_a_short_one() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();

        let _listener = with_socket_path(&deep, |path| UnixListener::bind(path)).unwrap();

        with_socket_path(&deep, |path| UnixStream::connect(path)).unwrap();
    }
}
