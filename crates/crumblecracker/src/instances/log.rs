//! What the main process of a guest wrote: the last 8 to 16 MiB of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::private;
use crate::{Error, Result};

/// What each of the two files may grow to, in bytes.
const FILE_MAX: u64 = 8 << 20;

/// The log of a guest, open to be appended to. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    file: Arc<Mutex<File>>,
    path: PathBuf,
    limit: u64,
}

impl Log {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("log");
        let file = private(&path, OpenOptions::new().append(true).create(true))?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            path,
            limit: FILE_MAX,
        })
    }

    pub(super) fn open_to_read(folder: &Path) -> Result<Vec<File>> {
        let mut files = Vec::new();
        for name in ["log.old", "log"] {
            let path = folder.join(name);
            match File::open(&path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("open", &path)(error)),
            }
        }
        Ok(files)
    }

    /// The file itself, for a process whose standard error goes there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn file(&self) -> Result<File> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.try_clone().map_err(Error::file("open", &self.path))
    }

    /// Keeps what is in the file as the older one. It stays the same file, for whoever else appends to it.
    fn turn(&self, file: &File) -> io::Result<()> {
        fs::copy(&self.path, self.path.with_extension("old"))?;
        file.set_len(0)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.metadata()?.len() + bytes.len() as u64 > self.limit {
            self.turn(&file)?;
        }
        (&*file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn log_that_grows_keeps_its_end_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log {
            limit: 1000,
            ..Log::open(folder.path()).unwrap()
        };
        let mut other = log.file().unwrap();

        for number in 0..1000 {
            writeln!(log, "line {number}").unwrap();
        }
        writeln!(other, "of another").unwrap();

        let mut text = String::new();
        for mut file in Log::open_to_read(folder.path()).unwrap() {
            file.read_to_string(&mut text).unwrap();
        }
        assert!((1000..2020).contains(&text.len()), "{}", text.len());
        assert!(text.ends_with("line 998\nline 999\nof another\n"), "{text}");
    }
}
