//! File requests and what comes back.

use std::path::Path;

use guest_protocol::{
    DirectoryEntry, FileMetadata, FilePath, FileRequest, OpenFlags, ToGuest, ToHost, directory_entries, wire,
};

use super::Guest;

pub const READ: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    create: false,
    create_new: false,
    directory: false,
    no_follow: false,
};

pub const WRITE_NEW: OpenFlags = OpenFlags {
    write: true,
    create: true,
    truncate: true,
    ..NOTHING
};

pub const NOTHING: OpenFlags = OpenFlags { read: false, ..READ };

/// A path from the root.
pub fn at(path: &Path) -> FilePath {
    in_directory(0, path.to_str().unwrap())
}

/// A path from an open directory.
pub fn in_directory(directory: u32, path: &str) -> FilePath {
    FilePath {
        directory,
        path: path.into(),
    }
}

impl Guest {
    /// Waits for the reply to a file request, or the errno it failed with.
    pub fn wait_file(&mut self, id: u32) -> Result<ToHost, u32> {
        self.wait(|guest| {
            guest.done.contains(&id)
                || guest.file_replies.contains_key(&id)
                || guest.failures.iter().any(|failure| failure.0 == id)
        });
        match self.failures.iter().find(|failure| failure.0 == id) {
            Some((_, failure)) => Err(failure.errno),
            None => Ok(self.file_replies.remove(&id).unwrap_or(ToHost::Done)),
        }
    }

    /// Sends a file request and waits for its reply.
    pub fn file(&mut self, request: FileRequest) -> Result<ToHost, u32> {
        let id = self.request(ToGuest::File(request));
        self.wait_file(id)
    }

    /// Opens a file and returns its number.
    pub fn open(&mut self, at: FilePath, flags: OpenFlags) -> Result<u32, u32> {
        let id = self.request(ToGuest::File(FileRequest::Open {
            at,
            flags,
            mode: 0o666,
        }));
        self.wait_file(id).map(|_| id)
    }

    pub fn read_at(&mut self, file: u32, offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        self.file(FileRequest::Read { file, offset, len })
            .map(|reply| match reply {
                ToHost::FileData(data) => data,
                other => panic!("{other:?} in reply to Read"),
            })
    }

    /// Reads a file from its start to its end, one piece after the other.
    pub fn read_all(&mut self, file: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self
                .read_at(file, all.len() as u64, wire::MAX_DATA as u32)
                .unwrap();
            if piece.is_empty() {
                return all;
            }
            all.extend_from_slice(&piece);
        }
    }

    pub fn write_at(&mut self, file: u32, offset: u64, data: &[u8]) -> Result<u32, u32> {
        let data = data.to_vec();
        self.file(FileRequest::Write { file, offset, data })
            .map(|reply| match reply {
                ToHost::FileWritten(count) => count,
                other => panic!("{other:?} in reply to Write"),
            })
    }

    pub fn metadata(&mut self, at: FilePath, follow: bool) -> Result<FileMetadata, u32> {
        self.file(FileRequest::Metadata { at, follow })
            .map(|reply| match reply {
                ToHost::FileMetadata(metadata) => metadata,
                other => panic!("{other:?} in reply to Metadata"),
            })
    }

    /// All entries of an open directory but `.` and `..`.
    pub fn entries(&mut self, file: u32) -> Result<Vec<DirectoryEntry>, u32> {
        let mut all = Vec::new();
        loop {
            let len = wire::MAX_DATA as u32;
            match self.file(FileRequest::ReadDirectory { file, len })? {
                ToHost::FileData(data) if data.is_empty() => break,
                ToHost::FileData(data) => all.extend(directory_entries(&data).unwrap()),
                other => panic!("{other:?} in reply to ReadDirectory"),
            }
        }
        all.retain(|entry| entry.name != b"." && entry.name != b"..");
        Ok(all)
    }
}
