//! Requests about the guest's files, of which the guest bears so many at once.

use std::fmt;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, PoisonError};

use guest_protocol::{Failure, FileMetadata, FilePath, FileRequest, OpenFlags, ToGuest, ToHost, wire};

use super::{Session, Shared};
use crate::Error;

/// Why a request about files failed.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The guest's kernel refused.
    Refused(Failure),
    /// The request or the guest.
    Channel(Error),
}

impl FileError {
    fn unexpected(reply: &impl fmt::Debug) -> Self {
        Self::Channel(Error::Guest(format!("it answered a file request with {reply:?}")))
    }
}

/// A request that was sent. Dropping it drops its reply.
pub(crate) struct Pending {
    session: Arc<Shared>,
    reply: Receiver<ToHost>,
    /// The most bytes the guest may answer.
    most: u32,
}

impl Pending {
    fn wait(self) -> Result<ToHost, FileError> {
        let reply = self
            .reply
            .recv()
            .map_err(|_| FileError::Channel(self.session.gone()))?;
        match reply {
            ToHost::Failed(failure) => Err(FileError::Refused(failure)),
            reply => Ok(reply),
        }
    }

    /// Waits until it is done.
    pub(crate) fn done(self) -> Result<(), FileError> {
        match self.wait()? {
            ToHost::Done => Ok(()),
            other => Err(FileError::unexpected(&other)),
        }
    }

    /// Waits for the bytes it gives.
    pub(crate) fn data(self) -> Result<Vec<u8>, FileError> {
        let most = self.most as usize;
        match self.wait()? {
            ToHost::FileData(data) if data.len() <= most => Ok(data),
            other => Err(FileError::unexpected(&other)),
        }
    }

    /// Waits for the number of bytes it wrote.
    pub(crate) fn written(self) -> Result<usize, FileError> {
        let most = self.most;
        match self.wait()? {
            ToHost::FileWritten(count) if count <= most => Ok(count as usize),
            other => Err(FileError::unexpected(&other)),
        }
    }

    /// Waits for what it tells.
    pub(crate) fn metadata(self) -> Result<FileMetadata, FileError> {
        match self.wait()? {
            ToHost::FileMetadata(metadata) => Ok(metadata),
            other => Err(FileError::unexpected(&other)),
        }
    }
}

/// An open file of the guest, closed when it is dropped.
pub(crate) struct OpenFile {
    session: Arc<Shared>,
    id: u32,
}

impl OpenFile {
    /// Its number in requests.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A guest that is gone has no open files.
        let _ = self.session.send(self.id, ToGuest::CloseFile);
        self.session.table().files.remove(&self.id);
    }
}

impl Session {
    /// Sends a request, once the guest bears one more. Requests are done in the order they are sent.
    pub(crate) fn begin_file(&self, request: FileRequest) -> Result<Pending, FileError> {
        let id = self.shared.new_id();
        self.shared.begin_file(id, request).map_err(FileError::Channel)
    }

    /// Opens a file.
    pub(crate) fn open_file(&self, at: FilePath, flags: OpenFlags, mode: u32) -> Result<OpenFile, FileError> {
        let id = self.shared.new_id();
        self.shared.table().files.insert(id);
        // Closes what was not opened too, which the guest takes for nothing.
        let file = OpenFile {
            session: self.shared.clone(),
            id,
        };
        let request = FileRequest::Open { at, flags, mode };
        let pending = self.shared.begin_file(id, request).map_err(FileError::Channel)?;
        pending.done()?;
        Ok(file)
    }
}

impl Shared {
    fn begin_file(self: &Arc<Self>, id: u32, request: FileRequest) -> Result<Pending, Error> {
        let most = most_bytes(&request);
        let (sender, reply) = mpsc::sync_channel(1);
        let mut table = self.table();
        while table.closed.is_none() && table.file_replies.len() >= wire::MAX_FILE_REQUESTS as usize {
            table = self
                .file_answered
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if table.closed.is_some() {
            drop(table);
            return Err(self.gone());
        }
        table.file_replies.insert(id, sender);
        drop(table);
        if let Err(error) = self.send(id, ToGuest::File(request)) {
            self.table().file_replies.remove(&id);
            self.file_answered.notify_one();
            return Err(error);
        }
        Ok(Pending {
            session: self.clone(),
            reply,
            most,
        })
    }
}

/// How many bytes an honest guest answers, or says it wrote, at most.
fn most_bytes(request: &FileRequest) -> u32 {
    match request {
        FileRequest::Read { len, .. } | FileRequest::ReadDirectory { len, .. } => *len,
        // Longer than a u32 is longer than a frame, and is refused.
        FileRequest::Write { data, .. } => u32::try_from(data.len()).unwrap_or(u32::MAX),
        FileRequest::ReadLink { .. } => wire::MAX_PATH as u32,
        _ => 0,
    }
}
