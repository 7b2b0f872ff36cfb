//! The folder of what was fetched: everything in it is complete or is not there.
//!
//! ```text
//! lists/<digest of the address>   an InRelease file behind one line of JSON about its fetching
//! sha256/<digest>                 indexes and package files
//! reduced/<digest>                a Packages index as `index::reduce` leaves it
//! resolved/<digest of a request>  what a request came to on given InRelease files
//! kernels/<digest of the package> an unpacked kernel
//! partial/                        downloads and files being written
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Error, Result};
use crate::digest::Digest;
use crate::ensure_folder;

/// The cache folder of Debian's archive.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in `root`, which is made if absent.
    pub(crate) fn open(root: PathBuf) -> Result<Cache> {
        for folder in ["lists", "sha256", "reduced", "resolved", "kernels", "partial"] {
            let folder = root.join(folder);
            ensure_folder(&folder).map_err(Error::io("make", &folder))?;
        }
        Ok(Cache { root })
    }

    /// Where a fetched file is or will be.
    pub(crate) fn object(&self, digest: &Digest) -> PathBuf {
        self.root.join("sha256").join(digest.hex())
    }

    /// Where a download grows; it is kept when the download breaks.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// Where a small record of the kind (`lists`, `reduced`, `resolved`, `kernels`) is or will be.
    pub(crate) fn record(&self, kind: &str, name: &Digest) -> PathBuf {
        self.root.join(kind).join(name.hex())
    }

    /// A record of at most `limit` bytes; `None` if there is none.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        // Room for all of it, or it would be read in many small pieces.
        let expected = file.metadata().map_or(0, |metadata| metadata.len()).min(limit);
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        Ok(Some(bytes))
    }

    /// Writes a file so that it appears whole: what `fill` writes is staged, made durable and renamed.
    pub(crate) fn publish(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let staged = self.staging_name();
        let written = (|| {
            let mut file = BufWriter::with_capacity(128 << 10, File::create_new(&staged)?);
            fill(&mut file)?;
            file.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()
        })();
        let published = written
            .map_err(Error::io("write", path))
            .and_then(|()| rename_durably(&staged, path));
        if published.is_err() {
            // Best effort: what is left is swept by name some day, the error that matters is the first.
            let _ = fs::remove_file(&staged);
        }
        published
    }

    /// Makes a folder so that it appears whole. A folder another process published meanwhile is as good.
    pub(crate) fn publish_folder(&self, path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let staged = self.staging_name();
        fs::create_dir(&staged).map_err(Error::io("make", &staged))?;
        let published = fill(&staged).and_then(|()| match rename_durably(&staged, path) {
            Err(_) if path.is_dir() => fs::remove_dir_all(&staged).map_err(Error::io("remove", &staged)),
            result => result,
        });
        if published.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        published
    }

    /// A name nobody else uses: processes differ by id, threads and calls by a counter.
    fn staging_name(&self) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        self.root
            .join("partial")
            .join(format!("staged-{}-{count}-{time:x}", std::process::id()))
    }
}

/// Renames, and makes the new name durable.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("write", to))?;
    match to.parent() {
        Some(folder) => File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync", folder)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("debian")).unwrap();
        (folder, cache)
    }

    fn partials(cache: &Cache) -> usize {
        fs::read_dir(cache.root.join("partial")).unwrap().count()
    }

    #[test]
    fn cache_publish_appears_whole_and_leaves_nothing() {
        let (_folder, cache) = cache();
        let path = cache.record("resolved", &Digest::of(b"x"));
        assert_eq!(cache.read(&path, 10).unwrap(), None);
        cache.publish(&path, |file| file.write_all(b"abc")).unwrap();
        cache.publish(&path, |file| file.write_all(b"def")).unwrap();
        assert_eq!(cache.read(&path, 10).unwrap().unwrap(), b"def");
        assert_eq!(partials(&cache), 0);
    }

    #[test]
    fn cache_publish_that_fails_leaves_the_old_file() {
        let (_folder, cache) = cache();
        let path = cache.record("resolved", &Digest::of(b"x"));
        cache.publish(&path, |file| file.write_all(b"abc")).unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = cache
            .publish(&path, |file| file.write_all(b"d").and(Err(full())))
            .unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(cache.read(&path, 10).unwrap().unwrap(), b"abc");
        assert_eq!(partials(&cache), 0);
    }

    #[test]
    fn cache_publish_folder_second_is_as_good() {
        let (_folder, cache) = cache();
        let path = cache.record("kernels", &Digest::of(b"x"));
        let fill = |folder: &Path| fs::write(folder.join("f"), b"1").map_err(Error::io("write", folder));
        cache.publish_folder(&path, fill).unwrap();
        cache.publish_folder(&path, fill).unwrap();
        assert_eq!(fs::read(path.join("f")).unwrap(), b"1");
        assert_eq!(partials(&cache), 0);
    }
}
