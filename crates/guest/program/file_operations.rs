// What can be done to files. Every request is checked here, and answered with one frame.

use crate::file_server;
use crate::kernel::*;
use crate::protocol;
use crate::protocol::Frame;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_REMOVEDIR: usize = 0x200;
const AT_NO_AUTOMOUNT: usize = 0x800;
const AT_EMPTY_PATH: usize = 0x1000;
/// STATX_BASIC_STATS | STATX_BTIME
const STATX_WANTED: usize = 0xfff;
/// struct statx, of which the host gets the start.
const STATX_BYTES: usize = 256;
/// What of a mode can be set.
const PERMISSIONS: usize = 0o7777;
const NS: i64 = 1_000_000_000;
/// The nanoseconds that leave a time alone.
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// The answer has been queued by the operation itself.
const ANSWERED: isize = 1;

/// A request that is whole.
struct Request {
    id: u32,
    operation: u32,
    flags: u32,
    file: u32,
    number: u32,
    first: u64,
    second: u64,
    /// The descriptor relative paths start from.
    directory: usize,
    /// The first and the second string.
    path: *const u8,
    other: *const u8,
    data: *const u8,
    data_len: usize,
}

/// Serves one frame.
pub unsafe fn serve(frame: *const Frame) {
    let id = (*frame).id;
    let payload = (*frame).payload;
    if (*frame).kind == KIND_FILE_CLOSE {
        file_server::remove(id);
        return;
    }
    let rest = payload.add(FILE_FIXED);
    let mut request = Request {
        id,
        operation: text::get_u32(payload.add(FILE_OPERATION)),
        flags: text::get_u32(payload.add(FILE_FLAGS)),
        file: text::get_u32(payload.add(FILE_FILE)),
        number: text::get_u32(payload.add(FILE_NUMBER)),
        first: text::get_u64(payload.add(FILE_FIRST)),
        second: text::get_u64(payload.add(FILE_SECOND)),
        directory: AT_FDCWD as usize,
        path: rest,
        other: rest,
        data: rest,
        data_len: (*frame).len - FILE_FIXED,
    };
    if request.operation == 0 || request.operation > FILE_SET_TIMES {
        protocol::fail(
            id,
            -ENOSYS,
            STAGE_REQUEST,
            b"unknown file operation\0" as *const u8,
        );
        return;
    }
    if !is_whole(&raw mut request) {
        protocol::fail_request(id, EPROTO);
        return;
    }
    let mut result = find_directory(&raw mut request);
    if result >= 0 {
        result = operate(&raw const request);
    }
    if result < 0 {
        protocol::fail(id, result, STAGE_FILE, b"\0" as *const u8);
    } else if result != ANSWERED {
        protocol::done(id);
    }
}

/// Whether the strings an operation needs, and nothing else, follow the fixed part; finds them.
unsafe fn is_whole(request: *mut Request) -> bool {
    let mut strings = 1;
    match (*request).operation {
        FILE_WRITE => return true,
        FILE_READ | FILE_READ_DIRECTORY => {
            strings = 0;
            if (*request).number as usize > MAX_DATA {
                return false;
            }
        }
        FILE_SET_LEN | FILE_SYNC => strings = 0,
        FILE_RENAME | FILE_SYMLINK | FILE_HARD_LINK => strings = 2,
        FILE_SET_OWNER => {
            if (*request).first > 0xffff_ffff {
                return false;
            }
        }
        _ => {}
    }
    let payload = (*request).data;
    let len = (*request).data_len;
    let mut end = 0;
    if strings > 0 {
        end = text::string_end(payload, 0, len);
        if end == 0 || end - 1 > MAX_PATH {
            return false;
        }
    }
    if strings > 1 {
        (*request).other = payload.add(end);
        let start = end;
        end = text::string_end(payload, start, len);
        if end == 0 || end - start - 1 > MAX_PATH {
            return false;
        }
    }
    end == len
}

/// Finds what `file` names: the directory of paths, or the file itself.
unsafe fn find_directory(request: *mut Request) -> isize {
    let mut result = AT_FDCWD;
    match (*request).operation {
        FILE_READ | FILE_WRITE | FILE_READ_DIRECTORY | FILE_SET_LEN | FILE_SYNC => {
            result = file_server::find((*request).file);
        }
        _ => {
            if (*request).file != 0 {
                result = file_server::find((*request).file);
            }
        }
    }
    (*request).directory = result as usize;
    if result == AT_FDCWD { 0 } else { result }
}

/// Does it: 0 where Done is the answer, ANSWERED, or an errno.
unsafe fn operate(request: *const Request) -> isize {
    let directory = (*request).directory;
    let path = (*request).path as usize;
    let other = (*request).other as usize;
    let number = (*request).number as usize;
    match (*request).operation {
        FILE_OPEN => open_file(request),
        FILE_READ => read_piece(request),
        FILE_WRITE => write_piece(request),
        FILE_READ_DIRECTORY => read_entries(request),
        FILE_METADATA => tell_metadata(request),
        FILE_SET_LEN => syscall(FTRUNCATE, directory, (*request).first as usize, 0, 0, 0),
        FILE_SYNC => {
            let data_only = (*request).flags & FILE_SYNC_DATA != 0;
            syscall(if data_only { FDATASYNC } else { FSYNC }, directory, 0, 0, 0, 0)
        }
        FILE_CREATE_DIRECTORY => syscall(MKDIRAT, directory, path, number & PERMISSIONS, 0, 0),
        FILE_REMOVE => {
            let is_directory = (*request).flags & FILE_REMOVE_DIRECTORY != 0;
            syscall(
                UNLINKAT,
                directory,
                path,
                if is_directory { AT_REMOVEDIR } else { 0 },
                0,
                0,
            )
        }
        FILE_RENAME => syscall(RENAMEAT2, directory, path, directory, other, 0),
        FILE_SYMLINK => syscall(SYMLINKAT, path, directory, other, 0, 0),
        FILE_HARD_LINK => syscall(LINKAT, directory, path, directory, other, 0),
        FILE_READ_LINK => read_link(request),
        FILE_SET_MODE => {
            if is_file_itself(request) {
                return syscall(FCHMOD, directory, number & PERMISSIONS, 0, 0, 0);
            }
            syscall(FCHMODAT, directory, path, number & PERMISSIONS, 0, 0)
        }
        FILE_SET_OWNER => {
            let gid = (*request).first as usize;
            syscall(FCHOWNAT, directory, path, number, gid, at_flags(request))
        }
        FILE_SET_TIMES => set_times(request),
        _ => -ENOSYS,
    }
}

/// Whether the request means an open file rather than a path.
unsafe fn is_file_itself(request: *const Request) -> bool {
    *(*request).path == 0 && (*request).file != 0
}

/// The flags of a call that takes a directory and a path.
unsafe fn at_flags(request: *const Request) -> usize {
    let mut flags = 0;
    if (*request).flags & FILE_NO_FOLLOW != 0 {
        flags |= AT_SYMLINK_NOFOLLOW;
    }
    if is_file_itself(request) {
        flags |= AT_EMPTY_PATH;
    }
    flags
}

/// Opens without waiting for anybody at the other end of a pipe or line, and takes no terminal.
unsafe fn open_file(request: *const Request) -> isize {
    let wanted = (*request).flags;
    let reads = wanted & FILE_OPEN_READ != 0;
    let writes = wanted & (FILE_OPEN_WRITE | FILE_OPEN_APPEND) != 0;
    if !reads && !writes {
        return -EINVAL;
    }
    let free = file_server::check_free((*request).id);
    if free < 0 {
        return free;
    }
    let mut flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    flags |= if reads && writes {
        O_RDWR
    } else if writes {
        O_WRONLY
    } else {
        O_RDONLY
    };
    flags |= if_set(wanted, FILE_OPEN_APPEND, O_APPEND);
    flags |= if_set(wanted, FILE_OPEN_TRUNCATE, O_TRUNC);
    flags |= if_set(wanted, FILE_OPEN_CREATE, O_CREAT);
    flags |= if_set(wanted, FILE_OPEN_CREATE_NEW, O_CREAT | O_EXCL);
    flags |= if_set(wanted, FILE_OPEN_DIRECTORY, O_DIRECTORY);
    flags |= if_set(wanted, FILE_OPEN_NO_FOLLOW, O_NOFOLLOW);
    let mode = (*request).number as usize & PERMISSIONS;
    let fd = syscall(
        OPENAT,
        (*request).directory,
        (*request).path as usize,
        flags,
        mode,
        0,
    );
    if fd < 0 {
        return fd;
    }
    file_server::insert((*request).id, fd as i32);
    0
}

unsafe fn if_set(wanted: u32, flag: u32, meaning: usize) -> usize {
    if wanted & flag != 0 { meaning } else { 0 }
}

/// Queues `n` bytes that lie in the frame begun, or passes an errno on.
unsafe fn answer_data(request: *const Request, n: isize) -> isize {
    if n < 0 {
        return n;
    }
    protocol::end_frame(KIND_FILE_DATA, 0, (*request).id, n as usize);
    ANSWERED
}

unsafe fn read_piece(request: *const Request) -> isize {
    let len = (*request).number as usize;
    let to = protocol::begin_frame(len) as usize;
    let n = syscall(
        PREAD64,
        (*request).directory,
        to,
        len,
        (*request).first as usize,
        0,
    );
    answer_data(request, n)
}

unsafe fn write_piece(request: *const Request) -> isize {
    let n = syscall(
        PWRITE64,
        (*request).directory,
        (*request).data as usize,
        (*request).data_len,
        (*request).first as usize,
        0,
    );
    if n < 0 {
        return n;
    }
    protocol::signal_number(KIND_FILE_WRITTEN, 0, (*request).id, n as u32);
    ANSWERED
}

unsafe fn read_entries(request: *const Request) -> isize {
    let len = (*request).number as usize;
    let to = protocol::begin_frame(len) as usize;
    answer_data(
        request,
        syscall(GETDENTS64, (*request).directory, to, len, 0, 0),
    )
}

unsafe fn read_link(request: *const Request) -> isize {
    let to = protocol::begin_frame(MAX_PATH) as usize;
    let path = (*request).path as usize;
    answer_data(
        request,
        syscall(READLINKAT, (*request).directory, path, to, MAX_PATH, 0),
    )
}

unsafe fn tell_metadata(request: *const Request) -> isize {
    // The kernel fills more of it than is sent.
    let to = protocol::begin_frame(STATX_BYTES) as usize;
    let result = syscall(
        STATX,
        (*request).directory,
        (*request).path as usize,
        at_flags(request) | AT_NO_AUTOMOUNT,
        STATX_WANTED,
        to,
    );
    if result < 0 {
        return result;
    }
    protocol::end_frame(KIND_FILE_METADATA, 0, (*request).id, METADATA_LEN);
    ANSWERED
}

unsafe fn set_times(request: *const Request) -> isize {
    let mut times: [Timespec; 2] = [Timespec { seconds: 0, ns: 0 }, Timespec { seconds: 0, ns: 0 }];
    put_time(&raw mut times[0], (*request).first as i64);
    put_time(&raw mut times[1], (*request).second as i64);
    let mut path = (*request).path as usize;
    let mut flags = at_flags(request);
    if is_file_itself(request) {
        // The call has its own way to say this.
        path = 0;
        flags = 0;
    }
    syscall(
        UTIMENSAT,
        (*request).directory,
        path,
        &raw const times as usize,
        flags,
        0,
    )
}

/// Times before 1970 have negative seconds, but never negative nanoseconds.
unsafe fn put_time(to: *mut Timespec, ns: i64) {
    (*to).seconds = ns / NS;
    (*to).ns = ns % NS;
    if (*to).ns < 0 {
        (*to).seconds -= 1;
        (*to).ns += NS;
    }
    if ns == FILE_KEEP_TIME {
        (*to).ns = UTIME_OMIT;
    }
}
