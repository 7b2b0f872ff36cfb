//! Directories: what is in them, and their end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io;

use guest_protocol::{DirectoryEntry, FileRequest, OpenFlags, directory_entries, wire};

use super::error::{Attempt, IS_A_DIRECTORY};
use super::file::Handle;
use super::path::join;
use super::{FileType, Metadata};
use crate::session::Pending;

/// How a directory is opened.
pub(super) const DIRECTORY: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    create: false,
    create_new: false,
    directory: true,
    no_follow: false,
};

/// The same, but not through a symbolic link.
pub(super) const DIRECTORY_ITSELF: OpenFlags = OpenFlags {
    no_follow: true,
    ..DIRECTORY
};

/// The most removals that are on their way at once.
const MOST_AHEAD: usize = 8;

/// The entries of a directory in the order the file system has them, without `.` and `..`; they are fetched
/// as they are taken.
pub struct ReadDir {
    handle: Handle,
    fetched: VecDeque<DirectoryEntry>,
    ended: bool,
}

impl ReadDir {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            fetched: VecDeque::new(),
            ended: false,
        }
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir")
            .field("path", &String::from_utf8_lossy(self.handle.path()))
            .finish_non_exhaustive()
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    /// An error ends the iteration.
    fn next(&mut self) -> Option<Self::Item> {
        while self.fetched.is_empty() && !self.ended {
            match fetch(&self.handle) {
                Ok(Some(entries)) => self.fetched.extend(entries),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.fetched.pop_front().map(|entry| {
            Ok(DirEntry {
                directory: self.handle.clone(),
                entry,
            })
        })
    }
}

/// The next entries, of which there may be none that count; `None` after the last.
fn fetch(directory: &Handle) -> io::Result<Option<Vec<DirectoryEntry>>> {
    let request = FileRequest::ReadDirectory {
        file: directory.id(),
        len: wire::MAX_DATA as u32,
    };
    let bytes = directory
        .begin("list", request)?
        .data()
        .map_err(|error| directory.attempt("list").failed(error))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut entries = directory_entries(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    entries.retain(|entry| entry.name != b"." && entry.name != b"..");
    Ok(Some(entries))
}

/// One name in a directory, like [`std::fs::DirEntry`]. While it lives, so does the open directory.
pub struct DirEntry {
    directory: Handle,
    entry: DirectoryEntry,
}

impl DirEntry {
    /// Its name: bytes without a slash, whatever they mean.
    pub fn file_name(&self) -> &[u8] {
        &self.entry.name
    }

    /// Its name for people: what is not UTF-8 in it is replaced.
    pub fn file_name_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.entry.name)
    }

    /// Its name after the path that was listed.
    pub fn path(&self) -> Vec<u8> {
        join(self.directory.path(), &self.entry.name)
    }

    /// What it is; a symbolic link is not followed.
    ///
    /// # Errors
    /// What the guest's kernel says, where the file system has to be asked.
    pub fn file_type(&self) -> io::Result<FileType> {
        match FileType::of_entry(self.entry.kind) {
            Some(kind) => Ok(kind),
            None => self.metadata().map(|metadata| metadata.file_type()),
        }
    }

    /// What is known about it; a symbolic link is not followed.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let path = self.path();
        let attempt = Attempt {
            doing: "look at",
            path: &path,
        };
        let at = self.directory.name(&self.entry.name);
        let request = FileRequest::Metadata { at, follow: false };
        let reply = self
            .directory
            .session()
            .begin_file(request)
            .and_then(Pending::metadata);
        reply.map(Metadata::new).map_err(|error| attempt.failed(error))
    }

    /// Inode number.
    pub fn ino(&self) -> u64 {
        self.entry.inode
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry")
            .field(&String::from_utf8_lossy(&self.path()))
            .finish()
    }
}

/// Removes everything in an open directory. Symbolic links are never followed, and since every name is looked
/// up in a directory that is open, none that is swapped in meanwhile leads anywhere else.
pub(super) fn remove_contents(directory: &Handle) -> io::Result<()> {
    while let Some(entries) = fetch(directory)? {
        let mut removals = Removals {
            directory,
            waiting: VecDeque::new(),
            directories: Vec::new(),
        };
        for DirectoryEntry { name, kind, .. } in entries {
            match FileType::of_entry(kind) {
                Some(kind) if kind.is_dir() => removals.directories.push(name),
                _ => removals.begin(name)?,
            }
        }
        for name in removals.finish()? {
            remove_directory(directory, &name)?;
        }
    }
    Ok(())
}

fn remove_directory(parent: &Handle, name: &[u8]) -> io::Result<()> {
    let path = join(parent.path(), name);
    let attempt = Attempt {
        doing: "remove",
        path: &path,
    };
    let session = parent.session();
    let opened = session.open_file(parent.name(name), DIRECTORY_ITSELF, 0);
    let file = opened.map_err(|error| attempt.failed(error))?;
    remove_contents(&Handle::new(session.clone(), file, &path))?;
    let request = FileRequest::Remove {
        at: parent.name(name),
        directory: true,
    };
    let removed = session.begin_file(request).and_then(Pending::done);
    removed.map_err(|error| attempt.failed(error))
}

/// Removals of names in one directory that are on their way.
struct Removals<'a> {
    directory: &'a Handle,
    waiting: VecDeque<(Pending, Vec<u8>)>,
    /// What turned out to be directories.
    directories: Vec<Vec<u8>>,
}

impl Removals<'_> {
    fn begin(&mut self, name: Vec<u8>) -> io::Result<()> {
        if self.waiting.len() == MOST_AHEAD {
            self.settle_one()?;
        }
        let request = FileRequest::Remove {
            at: self.directory.name(&name),
            directory: false,
        };
        let pending = self.directory.begin("empty", request)?;
        self.waiting.push_back((pending, name));
        Ok(())
    }

    fn settle_one(&mut self) -> io::Result<()> {
        let Some((pending, name)) = self.waiting.pop_front() else {
            return Ok(());
        };
        let path = join(self.directory.path(), &name);
        let attempt = Attempt {
            doing: "remove",
            path: &path,
        };
        match pending.done().map_err(|error| attempt.failed(error)) {
            Err(error) if super::error::errno_of(&error) == Some(IS_A_DIRECTORY) => {
                self.directories.push(name)
            }
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<Vec<u8>>> {
        while !self.waiting.is_empty() {
            self.settle_one()?;
        }
        Ok(self.directories)
    }
}
