//! Booted guests on disk, so that a start need not boot: one snapshot for each kernel, guest program, machine, CPU and
//! configuration.
//!
//! An entry that is torn, stale or not ours is a miss, never an error: the guest boots, and the entry is swept.
//! Several processes may use the cache at once; one of them fills an entry, and a process that has an entry in use
//! keeps it when it is removed.

mod filling;

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) use filling::{Filling, Lent};
use oci::Digest;
use rustix::fs::{FlockOperation, flock};
use saved_state::{Identity, Manifest, Snapshot, SnapshotWriter};
use tracing::{debug, warn};

use crate::error::one_line;
use crate::{Error, Library, Result};

/// The most bytes of all entries together, unless the user says otherwise.
const USUAL_LIMIT: u64 = 4 << 30;
/// What entries that are being written are called.
const STAGING: &str = "new-";
/// What entries that are being removed are called.
const REMOVED: &str = "old-";
/// The file whose lock is held by who removes and who fills.
const LOCK: &str = "lock-";

/// The snapshots of booted guests.
#[derive(Clone, Debug)]
pub struct SnapshotCache {
    folder: PathBuf,
    limit: u64,
}

/// What an entry is found by: a digest of everything that makes a booted guest what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) String);

impl Key {
    /// The key that is `name`, which must be the plain name of a folder.
    pub(crate) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The digest of `parts`, each of which stands for itself: what is told apart has another key.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        Self(Digest::of(&bytes).to_string().replace(':', "-"))
    }
}

/// One entry, for people.
#[derive(Clone, Debug)]
pub struct CachedSnapshot {
    /// Its name in the cache.
    pub key: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
    /// What it is of; empty for one that cannot be read.
    pub identity: Identity,
}

impl Library {
    /// The snapshots of booted guests.
    pub fn snapshot_cache(&self) -> SnapshotCache {
        SnapshotCache::in_folder(self.cache_folder().join("snapshots"), USUAL_LIMIT)
    }
}

impl SnapshotCache {
    /// The snapshots in `folder`, which together take at most `limit` bytes.
    pub(crate) fn in_folder(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// Whether no entry can have this name, as the folder's own files are called so.
    pub(crate) fn uses(name: &str) -> bool {
        [STAGING, REMOVED, LOCK]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    }

    /// Where an entry is, or would be.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.0)
    }

    /// The entry of that key, if it is whole.
    pub(crate) fn find(&self, key: &Key) -> Option<Snapshot> {
        let path = self.path(key);
        // Most misses are this one, and nobody needs to hear of it.
        fs::symlink_metadata(&path).ok()?;
        // That is told once, by who would fill an entry; what is not ours is not swept either.
        self.check_owner().ok()?;
        match Snapshot::open(&path) {
            Ok(snapshot) => {
                touch(&path);
                Some(snapshot)
            }
            Err(error) => {
                warn!(
                    error = one_line(&error),
                    "a cached snapshot is of no use; the guest boots"
                );
                self.forget(key);
                None
            }
        }
    }

    /// The file that [`SnapshotCache::keep_beside`] left in an entry under this name; `None` where it did not, or where the
    /// file may be somebody else's.
    pub(crate) fn beside(&self, key: &Key, name: &str) -> Option<File> {
        let entry = self.folder.join(&key.0);
        let file = File::open(entry.join(name)).ok()?;
        let metadata = file.metadata().ok()?;
        let folder = fs::symlink_metadata(&entry).ok()?;
        let ours = [&metadata, &folder].into_iter().all(host_os::only_we_write);
        let plain = metadata.is_file() && folder.is_dir();
        (ours && plain && self.check_owner().is_ok()).then_some(file)
    }

    /// Leaves a file beside the snapshot in an entry, in place of one that is there; it appears whole or not. What keeps
    /// it from being written is told to nobody who does not ask: it can be done again.
    pub(crate) fn keep_beside(&self, key: &Key, name: &str, bytes: &[u8]) {
        let entry = self.folder.join(&key.0);
        let kept = self.check_owner().and_then(|()| {
            // Only its owner may read and write it, as is usual for temporary files.
            let file = tempfile::NamedTempFile::new_in(&entry);
            let mut file = file.map_err(Error::file("make a file in", &entry))?;
            file.write_all(bytes)
                .map_err(Error::file("write a file in", &entry))?;
            let placed = file.persist(entry.join(name));
            placed.map_err(|error| Error::file("put a file into its place in", &entry)(error.error))
        });
        if let Err(error) = kept {
            debug!(error = one_line(&error), "a snapshot's head start cannot be kept");
        }
    }

    /// Removes the entry of that key: it cannot be used.
    pub(crate) fn forget(&self, key: &Key) {
        if let Err(error) = self.remove(&key.0) {
            debug!(error = one_line(&error), "a cached snapshot could not be removed");
        }
    }

    /// Begins to fill an entry. `None` where that cannot be: another process does it, or the cache cannot be written.
    pub(crate) fn fill(&self, key: &Key, identity: Identity) -> Option<Filling> {
        match self.try_fill(key, identity) {
            Ok(filling) => filling,
            Err(error) => {
                warn!(error = one_line(&error), "this guest's snapshot cannot be kept");
                None
            }
        }
    }

    pub(crate) fn try_fill(&self, key: &Key, identity: Identity) -> Result<Option<Filling>> {
        fs::create_dir_all(&self.folder).map_err(Error::file("make", &self.folder))?;
        self.check_owner()?;
        let Some(lock) = self.lock(&key.0)? else {
            return Ok(None);
        };
        if self.path(key).exists() {
            return Ok(None);
        }
        self.stage(key, identity, lock).map(Some)
    }

    /// Begins to write an entry that takes the place of the one with this key. `None` where another process writes it.
    pub(crate) fn rewrite(&self, key: &Key, identity: Identity) -> Result<Option<Filling>> {
        self.check_owner()?;
        let lock = self.lock(&key.0)?;
        lock.map(|lock| self.stage(key, identity, lock)).transpose()
    }

    fn stage(&self, key: &Key, identity: Identity, lock: File) -> Result<Filling> {
        let place = self.path(key);
        let staging = self.folder.join(format!("{STAGING}{}", key.0));
        // Nobody else fills it while the lock is held: what lies there was left by somebody who was killed.
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(Error::file("remove", &staging))?;
        }
        Ok(Filling {
            writer: SnapshotWriter::new(&place, &staging, identity)?,
            cache: self.clone(),
            key: key.clone(),
            lock,
        })
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{LOCK}{key}"))
    }

    /// Removes all entries whose lock is free: in a folder of entries that are lent, those of processes that were killed.
    pub(crate) fn sweep_lent(&self) -> Result<()> {
        for key in self.names()? {
            if self.lock(&key)?.is_some() {
                self.remove(&key)?;
                let _ = fs::remove_file(self.lock_path(&key));
            }
        }
        self.sweep()
    }

    /// The lock of one entry, unless somebody has it.
    fn lock(&self, key: &str) -> Result<Option<File>> {
        let path = self.lock_path(key);
        loop {
            let file = File::create(&path).map_err(Error::file("make", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(Error::file("lock", &path)(error.into())),
            }
            // Somebody who had the lock may have removed its file meanwhile.
            let ours = file.metadata().map_err(Error::file("look at", &path))?;
            if path
                .symlink_metadata()
                .is_ok_and(|there| host_os::is_same_file(&there, &ours))
            {
                return Ok(Some(file));
            }
        }
    }

    /// Snapshots are code: those that others could have put there are not run.
    pub(crate) fn check_owner(&self) -> Result<()> {
        let metadata = fs::symlink_metadata(&self.folder).map_err(Error::file("look at", &self.folder))?;
        match metadata.is_dir() && host_os::only_we_write(&metadata) {
            true => Ok(()),
            false => Err(Error::ForeignCache(self.folder.clone())),
        }
    }

    /// All entries, the one used last first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn entries(&self) -> Result<Vec<CachedSnapshot>> {
        let mut entries = Vec::new();
        for name in self.names()? {
            let path = self.folder.join(&name);
            let identity = Manifest::read(&path).map(|manifest| manifest.identity);
            entries.push(CachedSnapshot {
                bytes: disk_usage(&path),
                used: fs::metadata(&path)
                    .and_then(|metadata| metadata.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                key: name,
                identity: identity.unwrap_or_default(),
            });
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        Ok(entries)
    }

    /// Removes entries, the one used longest ago first, until all together take no more than `limit` bytes, and what
    /// killed processes left. Returns what was removed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn prune(&self, limit: u64) -> Result<Vec<CachedSnapshot>> {
        let mut removed = Vec::new();
        let mut total = 0;
        for entry in self.entries()? {
            total += entry.bytes;
            if total > limit && self.remove(&entry.key)? {
                total -= entry.bytes;
                removed.push(entry);
            }
        }
        self.sweep()?;
        Ok(removed)
    }

    /// Reads every entry whole and compares digests; removes and returns those that are damaged, with the reason.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn verify(&self) -> Result<Vec<(String, String)>> {
        let mut damaged = Vec::new();
        for name in self.names()? {
            let whole = Snapshot::open(&self.folder.join(&name)).and_then(|snapshot| snapshot.verify());
            if let Err(error) = whole {
                self.remove(&name)?;
                damaged.push((name, one_line(&error)));
            }
        }
        Ok(damaged)
    }

    /// The names of all entries; none where there is no cache yet.
    fn names(&self) -> Result<Vec<String>> {
        let listed = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(Error::file("list", &self.folder))?,
        };
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(Error::file("list", &self.folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !Self::uses(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes an entry whole: it is gone under its name at once. False where it was not there.
    pub(crate) fn remove(&self, key: &str) -> Result<bool> {
        let path = self.folder.join(key);
        let away = tempfile::Builder::new()
            .prefix(REMOVED)
            .tempdir_in(&self.folder)
            .map_err(Error::file("make a folder in", &self.folder))?;
        match fs::rename(&path, away.path().join("entry")) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::file("remove", &path)(error)),
        }
        match away.close() {
            // Somebody sweeps at the same time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            closed => closed.map(|()| true).map_err(Error::file("remove", &path)),
        }
    }

    /// Removes what processes left that were killed while they filled or removed an entry.
    fn sweep(&self) -> Result<()> {
        let Ok(listed) = fs::read_dir(&self.folder) else {
            return Ok(());
        };
        for entry in listed.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Somebody else may sweep, too: what is gone already is as good.
            let key = name.strip_prefix(STAGING).or(name.strip_prefix(LOCK));
            if let Some(key) = key {
                // Whoever fills it has its lock.
                if let Some(_lock) = self.lock(key)? {
                    let _ = fs::remove_dir_all(self.folder.join(format!("{STAGING}{key}")));
                    if !self.folder.join(key).exists() {
                        let _ = fs::remove_file(self.lock_path(key));
                    }
                }
            } else if name.starts_with(REMOVED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

/// Notes that an entry is used now; a cache that cannot be written is as good.
fn touch(path: &Path) {
    let noted = File::open(path)
        .and_then(|folder| folder.set_times(FileTimes::new().set_modified(SystemTime::now())));
    if let Err(error) = noted {
        debug!(%error, "the use of a cached snapshot cannot be noted");
    }
}

/// What a folder's files take on the disk.
fn disk_usage(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| host_os::disk_usage(&metadata))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> SnapshotCache {
        SnapshotCache {
            folder: folder.join("snapshots"),
            limit: USUAL_LIMIT,
        }
    }

    fn key(name: &str) -> Key {
        Key::of([name.as_bytes()])
    }

    fn filled(cache: &SnapshotCache, name: &str) {
        let mut filling = cache.fill(&key(name), Identity::new()).unwrap();
        filling.writer.file("memory").unwrap().set_len(1 << 16).unwrap();
        filling.finish().unwrap();
    }

    #[test]
    fn key_tells_parts_apart() {
        assert_ne!(Key::of([&b"ab"[..], b"c"]), Key::of([&b"a"[..], b"bc"]));
    }

    #[test]
    fn entry_is_found_after_it_was_finished_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert!(cache.find(&key("one")).is_none());
        let filling = cache.fill(&key("one"), Identity::new()).unwrap();
        assert!(cache.find(&key("one")).is_none());
        assert!(cache.fill(&key("one"), Identity::new()).is_none());
        filling.finish().unwrap();
        assert!(cache.find(&key("one")).is_some());
        assert!(cache.fill(&key("one"), Identity::new()).is_none());
        assert!(cache.find(&key("two")).is_none());
    }

    #[test]
    fn damaged_entry_is_a_miss_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        filled(&cache, "one");
        let path = cache.folder.join(key("one").0);
        fs::write(path.join("manifest"), b"{").unwrap();

        assert!(cache.find(&key("one")).is_none());

        assert!(!path.exists());
        filled(&cache, "one");
        assert!(cache.find(&key("one")).is_some());
    }

    #[test]
    fn leftovers_of_the_killed_are_filled_over_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        filled(&cache, "other");
        for left in [format!("{STAGING}{}", key("one").0), format!("{REMOVED}x")] {
            fs::create_dir(cache.folder.join(&left)).unwrap();
            fs::write(cache.folder.join(left).join("memory"), b"part").unwrap();
        }
        assert_eq!(cache.entries().unwrap().len(), 1);
        assert!(cache.fill(&key("one"), Identity::new()).is_some());
        fs::create_dir(cache.folder.join(format!("{STAGING}two"))).unwrap();

        cache.prune(u64::MAX).unwrap();

        let locks = fs::read_dir(&cache.folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(LOCK));
        assert_eq!(locks.count(), 1);
        let left = cache.names().unwrap();
        assert_eq!(left, [key("other").0]);
        let staged = |entry: &fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(STAGING) || name.starts_with(REMOVED)
        };
        assert_eq!(
            fs::read_dir(&cache.folder)
                .unwrap()
                .flatten()
                .filter(staged)
                .count(),
            0
        );
    }

    #[test]
    fn prune_removes_what_was_used_longest_ago() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        for (name, age) in [("one", 3), ("two", 1), ("three", 2)] {
            filled(&cache, name);
            let used = SystemTime::now() - std::time::Duration::from_secs(age * 1000);
            let entry = File::open(cache.folder.join(key(name).0)).unwrap();
            entry.set_times(FileTimes::new().set_modified(used)).unwrap();
        }
        let all: u64 = cache.entries().unwrap().iter().map(|entry| entry.bytes).sum();

        let removed = cache.prune(all - 1).unwrap();

        assert_eq!(removed.len(), 1);
        assert_eq!(removed[0].key, key("one").0);
        assert!(cache.find(&key("one")).is_none());
        assert!(cache.find(&key("three")).is_some());
    }

    #[test]
    fn verify_removes_an_entry_with_a_bit_flipped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        filled(&cache, "one");
        filled(&cache, "two");
        assert!(cache.verify().unwrap().is_empty());
        let mut memory = vec![0; 1 << 16];
        memory[1000] = 4;
        fs::write(cache.folder.join(key("two").0).join("memory"), memory).unwrap();

        let damaged = cache.verify().unwrap();

        assert_eq!(damaged.len(), 1);
        assert_eq!(damaged[0].0, key("two").0);
        assert!(cache.find(&key("one")).is_some());
        assert!(cache.find(&key("two")).is_none());
    }

    #[test]
    fn file_beside_a_snapshot_is_found_as_long_as_only_we_may_write_it_and_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        filled(&cache, "one");
        assert!(cache.beside(&key("one"), "code").is_none());
        cache.keep_beside(&key("one"), "code", b"first");
        cache.keep_beside(&key("one"), "code", b"second");
        cache.keep_beside(&key("none"), "code", b"third");

        let kept = cache.beside(&key("one"), "code").unwrap();

        assert_eq!(std::io::read_to_string(&kept).unwrap(), "second");
        let entry = cache.folder.join(key("one").0);
        assert_eq!(fs::read_dir(&entry).unwrap().count(), 4);
        assert!(cache.beside(&key("none"), "code").is_none());
        for place in [
            kept,
            File::open(&entry).unwrap(),
            File::open(&cache.folder).unwrap(),
        ] {
            let before = host_os::permission_bits(&place.metadata().unwrap());
            assert_eq!(before & 0o022, 0);
            host_os::set_permission_bits(&place, before | 0o020).unwrap();
            assert!(cache.beside(&key("one"), "code").is_none());
            host_os::set_permission_bits(&place, before).unwrap();
            assert!(cache.beside(&key("one"), "code").is_some());
        }
    }

    #[test]
    fn cache_that_others_may_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        filled(&cache, "one");
        let opened = File::open(&cache.folder).unwrap();
        host_os::set_permission_bits(&opened, 0o777).unwrap();

        assert!(cache.find(&key("one")).is_none());
        assert!(cache.fill(&key("two"), Identity::new()).is_none());

        host_os::set_permission_bits(&opened, 0o755).unwrap();
        assert!(cache.find(&key("one")).is_some());
        assert!(cache.fill(&key("two"), Identity::new()).is_some());
    }
}
