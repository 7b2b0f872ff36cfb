//! The guest's files, as [`std::fs`] has the host's.
//!
//! ```no_run
//! # fn example(instance: &crumblecracker::Instance) -> std::io::Result<()> {
//! let fs = instance.fs();
//! fs.create_dir_all("/srv/data")?;
//! fs.write("/srv/data/greeting", "hello\n")?;
//! assert_eq!(fs.read_to_string("/srv/data/greeting")?, "hello\n");
//! for entry in fs.read_dir("/srv")? {
//!     println!("{}", entry?.file_name_lossy());
//! }
//! fs.copy_out("/etc/os-release", "os-release")?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is done by the guest's root user in the guest's root file system, shares and kernel file systems
//! such as `/proc` among it. Paths are [`GuestPath`]s; nothing of them is looked up on the host. Files and
//! directories that are made lose the permission bits 0022, as under the usual umask.
//!
//! **Errors** are [`io::Error`]s of the kind `std` gives the guest's error number, and hold a [`GuestError`]
//! with that number and the path. Beside what each function says, every one of them may end in
//! [`io::ErrorKind::InvalidInput`] for a path with a NUL in it, in [`io::ErrorKind::InvalidFilename`] for one
//! of more than 4095 bytes, and in [`io::ErrorKind::ConnectionAborted`] when the guest is gone.
//!
//! **Waiting.** A file system that hangs in the guest holds up calls of this module, and nothing else: commands
//! and their streams go on. Calls have no time limit; they end at the latest with the guest. Up to 16 requests
//! and 512 open files are at the guest at once; calls beyond the first wait, opens beyond the second fail.

mod directory;
mod error;
mod file;
mod metadata;
mod path;
#[cfg(test)]
mod tests;
mod transfer;

use std::io;
use std::path::Path;
use std::time::SystemTime;

use guest_protocol::{FilePath, FileRequest, OpenFlags, wire};

use directory::{DIRECTORY, DIRECTORY_ITSELF, remove_contents};
pub use directory::{DirEntry, ReadDir};
pub use error::GuestError;
use error::{Attempt, EXISTS, NAME_TOO_LONG, NOT_A_DIRECTORY, errno_of};
use file::Handle;
pub use file::{File, OpenOptions};
use metadata::ns_since_1970;
pub use metadata::{FileType, Metadata, Permissions};
pub use path::GuestPath;
use path::parent;
use transfer::{Writer, read_pieces};

use crate::session::{Pending, Session};

/// The files of one guest, of [`crate::Instance::fs`]. Clones are the same.
#[derive(Clone)]
pub struct Fs {
    session: Session,
}

impl Fs {
    pub(crate) fn new(session: Session) -> Self {
        Self { session }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn read(&self, path: impl GuestPath) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = Vec::new();
        read_pieces(file.handle(), 0, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads a whole file of UTF-8 text.
    ///
    /// # Errors
    /// What the guest's kernel says; [`io::ErrorKind::InvalidData`] for bytes that are no UTF-8.
    pub fn read_to_string(&self, path: impl GuestPath) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes a whole file, which is made if it is missing.
    ///
    /// # Errors
    /// What the guest's kernel says; part of it may be written then.
    pub fn write(&self, path: impl GuestPath, contents: impl AsRef<[u8]>) -> io::Result<()> {
        self.create(path)?.handle().write_all(contents.as_ref())
    }

    /// Opens a file to read.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn open(&self, path: impl GuestPath) -> io::Result<File> {
        self.open_with(path, OpenOptions::new().read(true))
    }

    /// Opens a file to write, cut to nothing, or makes it.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn create(&self, path: impl GuestPath) -> io::Result<File> {
        let mut options = OpenOptions::new();
        self.open_with(path, options.write(true).create(true).truncate(true))
    }

    /// Opens a file in any way. Nothing is waited for: a named pipe nobody writes is open at once.
    ///
    /// # Errors
    /// What the guest's kernel says; [`io::ErrorKind::InvalidInput`] for ways that do not go together.
    pub fn open_with(&self, path: impl GuestPath, options: &OpenOptions) -> io::Result<File> {
        let (flags, mode) = options.parts()?;
        let handle = self.open_handle("open", path.guest_path(), flags, mode)?;
        Ok(File::new(handle, flags.append))
    }

    /// What is known about what a path leads to.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn metadata(&self, path: impl GuestPath) -> io::Result<Metadata> {
        self.look_at(path.guest_path(), true)
    }

    /// The same, of a symbolic link itself.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn symlink_metadata(&self, path: impl GuestPath) -> io::Result<Metadata> {
        self.look_at(path.guest_path(), false)
    }

    /// Whether a path leads to anything.
    ///
    /// # Errors
    /// What the guest's kernel says, unless that is that it does not exist.
    pub fn exists(&self, path: impl GuestPath) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// What the guest's kernel says, now or at any entry.
    pub fn read_dir(&self, path: impl GuestPath) -> io::Result<ReadDir> {
        let handle = self.open_handle("list", path.guest_path(), DIRECTORY, 0)?;
        Ok(ReadDir::new(handle))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn create_dir(&self, path: impl GuestPath) -> io::Result<()> {
        let attempt = attempt("make directory", &path);
        let at = attempt.checked()?;
        self.ask(attempt, FileRequest::CreateDirectory { at, mode: 0o777 })
    }

    /// Makes a directory and those above it as far as they are missing.
    ///
    /// # Errors
    /// What the guest's kernel says; some of them may be there then.
    pub fn create_dir_all(&self, path: impl GuestPath) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(path.guest_path());
        while let Some(directory) = next {
            match self.create_dir_if_missing(directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    next = parent(directory);
                    // A name alone has nothing above it that could be made.
                    next.ok_or(error)?;
                    missing.push(directory);
                }
                Err(error) => return Err(error),
            }
        }
        missing
            .into_iter()
            .rev()
            .try_for_each(|directory| self.create_dir_if_missing(directory))
    }

    fn create_dir_if_missing(&self, path: &[u8]) -> io::Result<()> {
        match self.create_dir(path) {
            Err(error) if errno_of(&error) == Some(EXISTS) => {
                let is_there = self.metadata(path).is_ok_and(|found| found.is_dir());
                if is_there { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    /// Removes a file, or a symbolic link itself.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn remove_file(&self, path: impl GuestPath) -> io::Result<()> {
        self.remove(path.guest_path(), false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn remove_dir(&self, path: impl GuestPath) -> io::Result<()> {
        self.remove(path.guest_path(), true)
    }

    /// Removes a directory and all that is in it; a symbolic link is removed itself. What the guest does
    /// meanwhile cannot lead it anywhere else.
    ///
    /// # Errors
    /// What the guest's kernel says; some of it may be gone then. More than about 500 directories inside one
    /// another are more than can be open at once.
    pub fn remove_dir_all(&self, path: impl GuestPath) -> io::Result<()> {
        let path = path.guest_path();
        match self.open_handle("remove", path, DIRECTORY_ITSELF, 0) {
            Ok(directory) => {
                remove_contents(&directory)?;
                self.remove(path, true)
            }
            // The kernel says this of a symbolic link too.
            Err(error) if errno_of(&error) == Some(NOT_A_DIRECTORY) => {
                match self.symlink_metadata(path)?.is_symlink() {
                    true => self.remove(path, false),
                    false => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Renames, over a file that has the new name.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn rename(&self, from: impl GuestPath, to: impl GuestPath) -> io::Result<()> {
        let attempt_from = attempt("rename", &from);
        let to = attempt("rename to", &to).checked()?.path;
        let from = attempt_from.checked()?;
        self.ask(attempt_from, FileRequest::Rename { from, to })
    }

    /// Makes a symbolic link at `link` that says `original`, whatever that is.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn symlink(&self, original: impl GuestPath, link: impl GuestPath) -> io::Result<()> {
        let attempt_link = attempt("make symbolic link", &link);
        let target = attempt("link to", &original).checked()?.path;
        let at = attempt_link.checked()?;
        self.ask(attempt_link, FileRequest::Symlink { target, at })
    }

    /// Gives a file a further name, `link`; a symbolic link is not followed.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn hard_link(&self, original: impl GuestPath, link: impl GuestPath) -> io::Result<()> {
        let attempt_link = attempt("make link", &link);
        let from = attempt("link to", &original).checked()?;
        let to = attempt_link.checked()?.path;
        self.ask(attempt_link, FileRequest::HardLink { from, to })
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn read_link(&self, path: impl GuestPath) -> io::Result<Vec<u8>> {
        let attempt = attempt("read link", &path);
        let at = attempt.checked()?;
        self.begin(attempt, FileRequest::ReadLink { at })?
            .data()
            .map_err(|error| attempt.failed(error))
    }

    /// Sets the permissions of what a path leads to.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn set_permissions(&self, path: impl GuestPath, permissions: Permissions) -> io::Result<()> {
        let attempt = attempt("set the permissions of", &path);
        let at = attempt.checked()?;
        let mode = permissions.mode();
        self.ask(attempt, FileRequest::SetMode { at, mode })
    }

    /// Sets user and group of what a path leads to; `None` leaves one.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn chown(&self, path: impl GuestPath, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.set_owner(path.guest_path(), uid, gid, true)
    }

    /// The same, of a symbolic link itself.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn lchown(&self, path: impl GuestPath, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.set_owner(path.guest_path(), uid, gid, false)
    }

    fn set_owner(&self, path: &[u8], uid: Option<u32>, gid: Option<u32>, follow: bool) -> io::Result<()> {
        let attempt = attempt("set the owner of", &path);
        let at = attempt.checked()?;
        self.ask(attempt, FileRequest::SetOwner { at, uid, gid, follow })
    }

    /// Sets the times of last access and last change of what a path leads to, from 1677 to 2262; `None` leaves
    /// one.
    ///
    /// # Errors
    /// What the guest's kernel says; [`io::ErrorKind::InvalidInput`] for other times.
    pub fn set_times(
        &self,
        path: impl GuestPath,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> io::Result<()> {
        let attempt = attempt("set the times of", &path);
        let request = FileRequest::SetTimes {
            at: attempt.checked()?,
            accessed_ns: accessed.map(ns_since_1970).transpose()?,
            modified_ns: modified.map(ns_since_1970).transpose()?,
            follow: true,
        };
        self.ask(attempt, request)
    }

    /// Copies the contents and the permissions of a file of the guest to another one of the guest. The bytes
    /// go by way of the host. Returns how many there were. Copied onto itself a file is cut to nothing.
    ///
    /// # Errors
    /// What the guest's kernel says; [`io::ErrorKind::InvalidInput`] for what is no regular file.
    pub fn copy(&self, from: impl GuestPath, to: impl GuestPath) -> io::Result<u64> {
        let (source, metadata) = self.open_regular(from.guest_path())?;
        let mode = metadata.permissions().mode();
        let target = self.create_handle(to.guest_path(), mode)?;
        let mut writer = Writer::new(&target);
        read_pieces(&source, 0, |piece| writer.push(piece))?;
        let count = writer.finish()?;
        target.set_mode(mode)?;
        Ok(count)
    }

    /// Copies the contents and the permission bits 0777 of a file of the host into the guest. Returns how many
    /// bytes there were.
    ///
    /// # Errors
    /// What host and guest say; [`io::ErrorKind::InvalidInput`] for what is no regular file.
    pub fn copy_in(&self, host: impl AsRef<Path>, guest: impl GuestPath) -> io::Result<u64> {
        let mut source = std::fs::File::open(host)?;
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            return Err(no_regular_file());
        }
        let mode = host_os::permission_bits(&metadata);
        let target = self.create_handle(guest.guest_path(), mode)?;
        let mut writer = Writer::new(&target);
        let mut piece = vec![0; wire::MAX_DATA];
        loop {
            match io::Read::read(&mut source, &mut piece) {
                Ok(0) => break,
                Ok(count) => writer.push(&piece[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let count = writer.finish()?;
        target.set_mode(mode)?;
        Ok(count)
    }

    /// Copies the contents and the permission bits 0777 of a file of the guest to the host: bits that let a
    /// program run as its owner stay in the guest. Returns how many bytes there were.
    ///
    /// # Errors
    /// What host and guest say; [`io::ErrorKind::InvalidInput`] for what is no regular file.
    pub fn copy_out(&self, guest: impl GuestPath, host: impl AsRef<Path>) -> io::Result<u64> {
        let (source, metadata) = self.open_regular(guest.guest_path())?;
        let mut target = std::fs::File::create(host)?;
        let count = read_pieces(&source, 0, |piece| io::Write::write_all(&mut target, piece))?;
        host_os::set_permission_bits(&target, metadata.permissions().mode())?;
        Ok(count)
    }

    fn open_regular(&self, path: &[u8]) -> io::Result<(Handle, Metadata)> {
        let flags = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        let handle = self.open_handle("open", path, flags, 0)?;
        let metadata = handle.metadata()?;
        if metadata.is_file() {
            Ok((handle, metadata))
        } else {
            Err(no_regular_file())
        }
    }

    fn create_handle(&self, path: &[u8], mode: u32) -> io::Result<Handle> {
        let flags = OpenFlags {
            write: true,
            create: true,
            truncate: true,
            ..OpenFlags::default()
        };
        self.open_handle("open", path, flags, mode)
    }

    fn open_handle(
        &self,
        doing: &'static str,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
    ) -> io::Result<Handle> {
        let attempt = attempt(doing, &path);
        let opened = self.session.open_file(attempt.checked()?, flags, mode);
        let file = opened.map_err(|error| attempt.failed(error))?;
        Ok(Handle::new(self.session.clone(), file, path))
    }

    fn look_at(&self, path: &[u8], follow: bool) -> io::Result<Metadata> {
        let attempt = attempt("look at", &path);
        let at = attempt.checked()?;
        let reply = self
            .begin(attempt, FileRequest::Metadata { at, follow })?
            .metadata();
        reply.map(Metadata::new).map_err(|error| attempt.failed(error))
    }

    fn remove(&self, path: &[u8], directory: bool) -> io::Result<()> {
        let attempt = attempt("remove", &path);
        let at = attempt.checked()?;
        self.ask(attempt, FileRequest::Remove { at, directory })
    }

    fn begin(&self, attempt: Attempt<'_>, request: FileRequest) -> io::Result<Pending> {
        self.session
            .begin_file(request)
            .map_err(|error| attempt.failed(error))
    }

    fn ask(&self, attempt: Attempt<'_>, request: FileRequest) -> io::Result<()> {
        self.begin(attempt, request)?
            .done()
            .map_err(|error| attempt.failed(error))
    }
}

fn no_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "only regular files can be copied")
}

fn attempt<'a>(doing: &'static str, path: &'a (impl GuestPath + ?Sized)) -> Attempt<'a> {
    Attempt {
        doing,
        path: path.guest_path(),
    }
}

impl Attempt<'_> {
    /// The path for a request, if it can be one.
    fn checked(self) -> io::Result<FilePath> {
        if self.path.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "file name contained an unexpected NUL byte",
            ));
        }
        if self.path.len() > wire::MAX_PATH {
            return Err(self.refused(NAME_TOO_LONG));
        }
        Ok(FilePath {
            directory: 0,
            path: self.path.to_vec(),
        })
    }
}
