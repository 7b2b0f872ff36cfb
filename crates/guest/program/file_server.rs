// The process that works on files: it takes frames from a pipe, answers each with one message on a socket, and
// ends with the pipe.

use crate::file_operations;
use crate::kernel::*;
use crate::protocol;
use crate::protocol::Frame;
use crate::syscall::*;
use crate::wire::*;

const FILES: usize = MAX_OPEN_FILES as usize;
/// What the two descriptors become.
const REQUESTS: i32 = 0;
const REPLIES: i32 = 1;

struct OpenFile {
    /// The host's name for it; 0 is a free place.
    id: u32,
    fd: i32,
}

const NOTHING: OpenFile = OpenFile { id: 0, fd: 0 };

static mut OPEN: [OpenFile; FILES] = [NOTHING; FILES];

/// What the forked process does instead of whatever its parent was doing.
pub unsafe fn run(requests: i32, replies: i32) -> ! {
    leave_parent(requests, replies);
    protocol::clear();
    let mut frame = Frame {
        kind: 0,
        stream: 0,
        id: 0,
        payload: core::ptr::null(),
        len: 0,
    };
    loop {
        let n = protocol::receive(REQUESTS);
        if n <= 0 {
            exit(0);
        }
        while protocol::next_frame(&raw mut frame) {
            file_operations::serve(&raw const frame);
            protocol::send(REPLIES);
            if protocol::unsent() {
                exit(0);
            }
        }
    }
}

/// Holds nothing of the parent's: an end of a command's pipe that stayed open here would keep the command's
/// stream from ever ending.
unsafe fn leave_parent(requests: i32, replies: i32) {
    dup_to(requests, REQUESTS as usize);
    dup_to(replies, REPLIES as usize);
    dup_to(requests, 2);
    syscall(CLOSE_RANGE, 3, 0xffff_ffff, 0, 0, 0);
    syscall(UMASK, 0o022, 0, 0, 0, 0);
    chdir(b"/\0" as *const u8);
}

unsafe fn place_of(id: u32) -> usize {
    let mut place = 0;
    while place < FILES && OPEN[place].id != id {
        place += 1;
    }
    place
}

/// The descriptor of the file the host calls `id`, or EBADF.
pub unsafe fn find(id: u32) -> isize {
    let place = place_of(id);
    if id == 0 || place == FILES {
        return -EBADF;
    }
    OPEN[place].fd as isize
}

/// Whether one more file may be called `id`: 0, or an errno.
pub unsafe fn check_free(id: u32) -> isize {
    if id == 0 || place_of(id) < FILES {
        return -EBUSY;
    }
    if place_of(0) == FILES {
        return -EMFILE;
    }
    0
}

/// Calls an open descriptor `id`, which is free.
pub unsafe fn insert(id: u32, fd: i32) {
    let place = place_of(0);
    OPEN[place].id = id;
    OPEN[place].fd = fd;
}

/// Closes a file; one that is not open is none of the host's mistakes, it may have been lost.
pub unsafe fn remove(id: u32) {
    let place = place_of(id);
    if id != 0 && place < FILES {
        close(OPEN[place].fd);
        OPEN[place].id = 0;
    }
}
