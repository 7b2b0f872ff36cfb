//! File requests as bytes.

use super::{FilePath, FileRequest, OpenFlags};
use crate::bytes::{FieldReader, FrameWriter};
use crate::{Error, wire};

/// The fixed part of a request.
#[derive(Default)]
struct Fixed {
    operation: u32,
    flags: u32,
    file: u32,
    number: u32,
    first: u64,
    second: u64,
}

/// What follows the fixed part.
enum Rest<'a> {
    Nothing,
    Path(&'a [u8]),
    Paths(&'a [u8], &'a [u8]),
    Data(&'a [u8]),
}

pub(crate) fn encode_request(w: &mut FrameWriter<'_>, request: &FileRequest) {
    require_lengths(w, request);
    let (fixed, rest) = split(request);
    w.u32(fixed.operation);
    w.u32(fixed.flags);
    w.u32(fixed.file);
    w.u32(fixed.number);
    w.u64(fixed.first);
    w.u64(fixed.second);
    match rest {
        Rest::Nothing => {}
        Rest::Path(path) => w.string("path", path, wire::MAX_PATH),
        Rest::Paths(from, to) => {
            w.string("path", from, wire::MAX_PATH);
            w.string("path", to, wire::MAX_PATH);
        }
        Rest::Data(data) => w.bytes(data),
    }
}

fn require_lengths(w: &mut FrameWriter<'_>, request: &FileRequest) {
    match request {
        FileRequest::Read { len, .. } | FileRequest::ReadDirectory { len, .. } => {
            w.require("length", is_length(*len));
        }
        FileRequest::SetOwner { uid, gid, .. } => {
            let keep = Some(wire::FILE_KEEP_OWNER);
            w.require("owner", *uid != keep && *gid != keep);
        }
        FileRequest::SetTimes {
            accessed_ns,
            modified_ns,
            ..
        } => {
            let keep = Some(wire::FILE_KEEP_TIME);
            w.require("time", *accessed_ns != keep && *modified_ns != keep);
        }
        // Paths and data are bounded where they are written.
        _ => {}
    }
}

fn split(request: &FileRequest) -> (Fixed, Rest<'_>) {
    let on = |operation, file| Fixed {
        operation,
        file,
        ..Fixed::default()
    };
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    match request {
        FileRequest::Open { at, flags, mode } => {
            let fixed = Fixed {
                flags: open_bits(*flags),
                number: *mode,
                ..on(wire::FILE_OPEN, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::Read { file, offset, len } => {
            let fixed = Fixed {
                number: *len,
                first: *offset,
                ..on(wire::FILE_READ, *file)
            };
            (fixed, Rest::Nothing)
        }
        FileRequest::Write { file, offset, data } => {
            let fixed = Fixed {
                first: *offset,
                ..on(wire::FILE_WRITE, *file)
            };
            (fixed, Rest::Data(data))
        }
        FileRequest::ReadDirectory { file, len } => {
            let fixed = Fixed {
                number: *len,
                ..on(wire::FILE_READ_DIRECTORY, *file)
            };
            (fixed, Rest::Nothing)
        }
        FileRequest::Metadata { at, follow } => {
            let fixed = Fixed {
                flags: flag(!follow, wire::FILE_NO_FOLLOW),
                ..on(wire::FILE_METADATA, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::SetLen { file, len } => {
            let fixed = Fixed {
                first: *len,
                ..on(wire::FILE_SET_LEN, *file)
            };
            (fixed, Rest::Nothing)
        }
        FileRequest::Sync { file, data_only } => {
            let fixed = Fixed {
                flags: flag(*data_only, wire::FILE_SYNC_DATA),
                ..on(wire::FILE_SYNC, *file)
            };
            (fixed, Rest::Nothing)
        }
        FileRequest::CreateDirectory { at, mode } => {
            let fixed = Fixed {
                number: *mode,
                ..on(wire::FILE_CREATE_DIRECTORY, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::Remove { at, directory } => {
            let fixed = Fixed {
                flags: flag(*directory, wire::FILE_REMOVE_DIRECTORY),
                ..on(wire::FILE_REMOVE, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::Rename { from, to } => {
            (on(wire::FILE_RENAME, from.directory), Rest::Paths(&from.path, to))
        }
        FileRequest::Symlink { target, at } => (
            on(wire::FILE_SYMLINK, at.directory),
            Rest::Paths(target, &at.path),
        ),
        FileRequest::HardLink { from, to } => (
            on(wire::FILE_HARD_LINK, from.directory),
            Rest::Paths(&from.path, to),
        ),
        FileRequest::ReadLink { at } => (on(wire::FILE_READ_LINK, at.directory), Rest::Path(&at.path)),
        FileRequest::SetMode { at, mode } => {
            let fixed = Fixed {
                number: *mode,
                ..on(wire::FILE_SET_MODE, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::SetOwner { at, uid, gid, follow } => {
            let fixed = Fixed {
                flags: flag(!follow, wire::FILE_NO_FOLLOW),
                number: uid.unwrap_or(wire::FILE_KEEP_OWNER),
                first: gid.unwrap_or(wire::FILE_KEEP_OWNER).into(),
                ..on(wire::FILE_SET_OWNER, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
        FileRequest::SetTimes {
            at,
            accessed_ns,
            modified_ns,
            follow,
        } => {
            let fixed = Fixed {
                flags: flag(!follow, wire::FILE_NO_FOLLOW),
                first: accessed_ns.unwrap_or(wire::FILE_KEEP_TIME).cast_unsigned(),
                second: modified_ns.unwrap_or(wire::FILE_KEEP_TIME).cast_unsigned(),
                ..on(wire::FILE_SET_TIMES, at.directory)
            };
            (fixed, Rest::Path(&at.path))
        }
    }
}

pub(crate) fn decode_request(r: &mut FieldReader<'_>) -> Result<FileRequest, Error> {
    let fixed = Fixed {
        operation: r.u32()?,
        flags: r.u32()?,
        file: r.u32()?,
        number: r.u32()?,
        first: r.u64()?,
        second: r.u64()?,
    };
    let (flags, file) = (fixed.flags, fixed.file);
    Ok(match fixed.operation {
        wire::FILE_OPEN => FileRequest::Open {
            at: path(r, file)?,
            flags: open_flags(flags),
            mode: fixed.number,
        },
        wire::FILE_READ => FileRequest::Read {
            file,
            offset: fixed.first,
            len: length(r, fixed.number)?,
        },
        wire::FILE_WRITE => FileRequest::Write {
            file,
            offset: fixed.first,
            data: r.rest().to_vec(),
        },
        wire::FILE_READ_DIRECTORY => FileRequest::ReadDirectory {
            file,
            len: length(r, fixed.number)?,
        },
        wire::FILE_METADATA => FileRequest::Metadata {
            at: path(r, file)?,
            follow: flags & wire::FILE_NO_FOLLOW == 0,
        },
        wire::FILE_SET_LEN => FileRequest::SetLen {
            file,
            len: fixed.first,
        },
        wire::FILE_SYNC => FileRequest::Sync {
            file,
            data_only: flags & wire::FILE_SYNC_DATA != 0,
        },
        wire::FILE_CREATE_DIRECTORY => FileRequest::CreateDirectory {
            at: path(r, file)?,
            mode: fixed.number,
        },
        wire::FILE_REMOVE => FileRequest::Remove {
            at: path(r, file)?,
            directory: flags & wire::FILE_REMOVE_DIRECTORY != 0,
        },
        wire::FILE_RENAME => FileRequest::Rename {
            from: path(r, file)?,
            to: r.string("path", wire::MAX_PATH)?,
        },
        wire::FILE_SYMLINK => FileRequest::Symlink {
            target: r.string("path", wire::MAX_PATH)?,
            at: path(r, file)?,
        },
        wire::FILE_HARD_LINK => FileRequest::HardLink {
            from: path(r, file)?,
            to: r.string("path", wire::MAX_PATH)?,
        },
        wire::FILE_READ_LINK => FileRequest::ReadLink { at: path(r, file)? },
        wire::FILE_SET_MODE => FileRequest::SetMode {
            at: path(r, file)?,
            mode: fixed.number,
        },
        wire::FILE_SET_OWNER => FileRequest::SetOwner {
            at: path(r, file)?,
            uid: owner(fixed.number),
            gid: owner(u32::try_from(fixed.first).map_err(|_| r.bad("owner"))?),
            follow: flags & wire::FILE_NO_FOLLOW == 0,
        },
        wire::FILE_SET_TIMES => FileRequest::SetTimes {
            at: path(r, file)?,
            accessed_ns: time(fixed.first),
            modified_ns: time(fixed.second),
            follow: flags & wire::FILE_NO_FOLLOW == 0,
        },
        _ => return Err(r.bad("file operation")),
    })
}

fn path(r: &mut FieldReader<'_>, directory: u32) -> Result<FilePath, Error> {
    Ok(FilePath {
        directory,
        path: r.string("path", wire::MAX_PATH)?,
    })
}

fn is_length(len: u32) -> bool {
    len as usize <= wire::MAX_DATA
}

fn length(r: &FieldReader<'_>, len: u32) -> Result<u32, Error> {
    if is_length(len) {
        Ok(len)
    } else {
        Err(r.bad("length"))
    }
}

fn owner(id: u32) -> Option<u32> {
    (id != wire::FILE_KEEP_OWNER).then_some(id)
}

fn time(value: u64) -> Option<i64> {
    let ns = value.cast_signed();
    (ns != wire::FILE_KEEP_TIME).then_some(ns)
}

fn open_bits(flags: OpenFlags) -> u32 {
    let OpenFlags {
        read,
        write,
        append,
        truncate,
        create,
        create_new,
        directory,
        no_follow,
    } = flags;
    [
        (read, wire::FILE_OPEN_READ),
        (write, wire::FILE_OPEN_WRITE),
        (append, wire::FILE_OPEN_APPEND),
        (truncate, wire::FILE_OPEN_TRUNCATE),
        (create, wire::FILE_OPEN_CREATE),
        (create_new, wire::FILE_OPEN_CREATE_NEW),
        (directory, wire::FILE_OPEN_DIRECTORY),
        (no_follow, wire::FILE_OPEN_NO_FOLLOW),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |bits, (_, bit)| bits | bit)
}

fn open_flags(bits: u32) -> OpenFlags {
    let has = |bit: u32| bits & bit != 0;
    OpenFlags {
        read: has(wire::FILE_OPEN_READ),
        write: has(wire::FILE_OPEN_WRITE),
        append: has(wire::FILE_OPEN_APPEND),
        truncate: has(wire::FILE_OPEN_TRUNCATE),
        create: has(wire::FILE_OPEN_CREATE),
        create_new: has(wire::FILE_OPEN_CREATE_NEW),
        directory: has(wire::FILE_OPEN_DIRECTORY),
        no_follow: has(wire::FILE_OPEN_NO_FOLLOW),
    }
}
