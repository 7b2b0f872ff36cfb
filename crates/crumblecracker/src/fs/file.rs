//! One open file.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::SystemTime;

use guest_protocol::{FilePath, FileRequest, OpenFlags, wire};

use super::error::Attempt;
use super::metadata::ns_since_1970;
use super::transfer::{Writer, read_pieces};
use super::{Metadata, Permissions};
use crate::session::{OpenFile, Pending, Session};

/// How a file is opened, like [`std::fs::OpenOptions`]; [`super::Fs::open_with`] opens it.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    flags: OpenFlags,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing is allowed yet; a file that is made gets mode 0666 without the bits 0022.
    pub fn new() -> Self {
        Self {
            flags: OpenFlags::default(),
            mode: 0o666,
        }
    }

    /// To read.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.flags.read = read;
        self
    }

    /// To write.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.flags.write = write;
        self
    }

    /// To write, always at the end.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.flags.append = append;
        self
    }

    /// Cut to nothing; needs [`OpenOptions::write`].
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.flags.truncate = truncate;
        self
    }

    /// Make it if it is missing; needs [`OpenOptions::write`] or [`OpenOptions::append`].
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.flags.create = create;
        self
    }

    /// Make it, and fail if it is there; needs what [`OpenOptions::create`] needs, which this overrides.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.flags.create_new = create_new;
        self
    }

    /// The mode it gets if it is made, without the bits 0022; 0666 if nothing is said.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    pub(super) fn parts(&self) -> io::Result<(OpenFlags, u32)> {
        let flags = self.flags;
        let writes = flags.write || flags.append;
        let changes = flags.create || flags.create_new || flags.truncate;
        let does_nothing = !flags.read && !writes;
        let changes_unwritten = changes && !writes;
        let keeps_what_it_cuts = flags.append && flags.truncate && !flags.create_new;
        if does_nothing || changes_unwritten || keeps_what_it_cuts {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "these ways to open a file do not go together",
            ));
        }
        Ok((flags, self.mode))
    }
}

/// An open file of the guest, like [`std::fs::File`]. Dropping it closes it.
///
/// A read or write moves at most 32 KiB in one go. [`Read::read_to_end`] asks ahead and is the fast way to read
/// much; [`super::Fs::write`] and [`super::Fs::copy_in`] are the fast ways to write it. Pipes, sockets and
/// terminals have no positions and give [`io::ErrorKind::NotSeekable`]: a process in the guest is the way to
/// those.
pub struct File {
    handle: Handle,
    position: u64,
    appends: bool,
    /// Something was appended: the position is the end, wherever that is.
    at_end: bool,
}

impl File {
    pub(super) fn new(handle: Handle, appends: bool) -> Self {
        Self {
            handle,
            position: 0,
            appends,
            at_end: false,
        }
    }

    /// Reads at `offset`, in bytes; the position stays. Returns 0 at the end.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let piece = self
            .handle
            .begin_read(offset, bytes.len())?
            .data()
            .map_err(|error| self.handle.attempt("read").failed(error))?;
        bytes[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }

    /// Writes at `offset`, in bytes; the position stays. Returns how many bytes were written.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let piece = &bytes[..bytes.len().min(wire::MAX_DATA)];
        self.handle.write_piece(offset, piece)
    }

    /// What is known about it.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// Cuts it to `len` bytes or extends it with zeros; the position stays.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.handle.id();
        self.handle
            .ask("set the length of", FileRequest::SetLen { file, len })
    }

    /// Sets its permissions.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.handle.set_mode(permissions.mode())
    }

    /// Sets the times of its last access and last change, from 1677 to 2262; `None` leaves one.
    ///
    /// # Errors
    /// What the guest's kernel says; [`io::ErrorKind::InvalidInput`] for other times.
    pub fn set_times(&self, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> io::Result<()> {
        let request = FileRequest::SetTimes {
            at: self.handle.itself(),
            accessed_ns: accessed.map(ns_since_1970).transpose()?,
            modified_ns: modified.map(ns_since_1970).transpose()?,
            follow: true,
        };
        self.handle.ask("set the times of", request)
    }

    /// Waits until all of it is where its file system keeps it.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn sync_all(&self) -> io::Result<()> {
        self.sync(false)
    }

    /// The same of its contents; times and the like may come later.
    ///
    /// # Errors
    /// What the guest's kernel says.
    pub fn sync_data(&self) -> io::Result<()> {
        self.sync(true)
    }

    fn sync(&self, data_only: bool) -> io::Result<()> {
        let file = self.handle.id();
        self.handle
            .ask("write back", FileRequest::Sync { file, data_only })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where the next read begins.
    fn position(&mut self) -> io::Result<u64> {
        if self.at_end {
            self.position = self.metadata()?.len();
            self.at_end = false;
        }
        Ok(self.position)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &String::from_utf8_lossy(&self.handle.path))
            .finish_non_exhaustive()
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let position = self.position()?;
        let count = self.read_at(bytes, position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let start = self.position()?;
        let before = bytes.len();
        let result = read_pieces(&self.handle, start, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let count = bytes.len() - before;
        self.position += count as u64;
        result.map(|_| count)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let count = self.read_to_end(&mut bytes)?;
        let read =
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        text.push_str(&read);
        Ok(count)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The guest's kernel does not look at the position of a file that is appended to.
        let count = self.write_at(bytes, self.position)?;
        if self.appends {
            self.at_end |= count > 0;
        } else {
            self.position += count as u64;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, distance) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(distance) => (self.position()?, distance),
            SeekFrom::End(distance) => (self.metadata()?.len(), distance),
        };
        let position = base
            .checked_add_signed(distance)
            .filter(|position| i64::try_from(*position).is_ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position no file can have"))?;
        self.position = position;
        self.at_end = false;
        Ok(position)
    }
}

/// A file or directory that is open, and the path it was opened by. Clones are the same.
#[derive(Clone)]
pub(super) struct Handle {
    session: Session,
    file: Arc<OpenFile>,
    path: Arc<[u8]>,
}

impl Handle {
    pub(super) fn new(session: Session, file: OpenFile, path: &[u8]) -> Self {
        Self {
            session,
            file: Arc::new(file),
            path: path.into(),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.file.id()
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn attempt(&self, doing: &'static str) -> Attempt<'_> {
        Attempt {
            doing,
            path: &self.path,
        }
    }

    /// The file itself, where a request takes a path.
    pub(super) fn itself(&self) -> FilePath {
        self.name(b"")
    }

    /// A name in this directory.
    pub(super) fn name(&self, name: &[u8]) -> FilePath {
        FilePath {
            directory: self.id(),
            path: name.to_vec(),
        }
    }

    pub(super) fn begin(&self, doing: &'static str, request: FileRequest) -> io::Result<Pending> {
        self.session
            .begin_file(request)
            .map_err(|error| self.attempt(doing).failed(error))
    }

    pub(super) fn ask(&self, doing: &'static str, request: FileRequest) -> io::Result<()> {
        self.begin(doing, request)?
            .done()
            .map_err(|error| self.attempt(doing).failed(error))
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        let request = FileRequest::Metadata {
            at: self.itself(),
            follow: true,
        };
        let reply = self.begin("look at", request)?.metadata();
        reply
            .map(Metadata::new)
            .map_err(|error| self.attempt("look at").failed(error))
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let at = self.itself();
        self.ask("set the permissions of", FileRequest::SetMode { at, mode })
    }

    /// Asks for a piece of at most `wanted` bytes.
    pub(super) fn begin_read(&self, offset: u64, wanted: usize) -> io::Result<Pending> {
        let request = FileRequest::Read {
            file: self.id(),
            offset,
            // At most MAX_DATA, which fits.
            len: wanted.min(wire::MAX_DATA) as u32,
        };
        self.begin("read", request)
    }

    /// Sends a piece of at most [`wire::MAX_DATA`] bytes.
    pub(super) fn begin_write(&self, offset: u64, piece: &[u8]) -> io::Result<Pending> {
        let request = FileRequest::Write {
            file: self.id(),
            offset,
            data: piece.to_vec(),
        };
        self.begin("write", request)
    }

    /// The same, and waits for how much of it was written.
    pub(super) fn write_piece(&self, offset: u64, piece: &[u8]) -> io::Result<usize> {
        self.begin_write(offset, piece)?
            .written()
            .map_err(|error| self.attempt("write").failed(error))
    }

    /// Writes all of `bytes` from the start.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = Writer::new(self);
        writer.push(bytes)?;
        writer.finish().map(drop)
    }
}
