// Requests about files, handed to a process of their own whose replies are passed on: a file system that is
// slow, or hangs, holds up no command and no request of another kind.

use crate::file_server;
use crate::kernel::*;
use crate::mounts;
use crate::protocol;
use crate::protocol::Frame;
use crate::ring;
use crate::ring::Ring;
use crate::wire::*;

const MOST_OWED: usize = MAX_FILE_REQUESTS as usize;
/// Room for all requests the host may have unanswered, and a close of every open file.
const QUEUE_BYTES: usize =
    MOST_OWED * (HEADER_LEN + FILE_FIXED + MAX_DATA) + MAX_OPEN_FILES as usize * HEADER_LEN;

/// The server's process id, or 0.
static mut SERVER: i32 = 0;
/// The write end of the pipe of requests, or -1.
static mut REQUESTS: i32 = -1;
/// This end of the socket of replies, or -1.
static mut REPLIES: i32 = -1;
/// Ids of the requests the server has not answered; 0 is a free place.
static mut OWED: [u32; MOST_OWED] = [0; MOST_OWED];
/// What the pipe of requests has not taken yet.
static mut QUEUE: Ring = Ring { start: 0, len: 0 };
static mut STORAGE: [u8; QUEUE_BYTES] = [0; QUEUE_BYTES];

/// Serves a request about files.
pub unsafe fn request(frame: *const Frame) {
    let id = (*frame).id;
    if id == 0 || (*frame).len < FILE_FIXED || (*frame).len > FILE_FIXED + MAX_DATA {
        protocol::fail_request(id, EPROTO);
        return;
    }
    if !mounts::has_root() {
        protocol::fail_request(id, EPERM);
        return;
    }
    let place = owed(0);
    if place == MOST_OWED {
        protocol::fail(
            id,
            -EAGAIN,
            STAGE_SLOT,
            b"too many file requests\0" as *const u8,
        );
        return;
    }
    if REPLIES < 0 {
        let result = start_server();
        if result < 0 {
            protocol::fail(id, result, STAGE_FORK, b"file server\0" as *const u8);
            return;
        }
    }
    if hand_over(frame) {
        OWED[place] = id;
    }
}

/// Serves the close of a file; without a server none is open.
pub unsafe fn close_file(frame: *const Frame) {
    if (*frame).len != 0 {
        protocol::fail_request((*frame).id, EPROTO);
    } else if REPLIES >= 0 {
        hand_over(frame);
    }
}

/// The place of a request the server owes an answer, or MOST_OWED.
unsafe fn owed(id: u32) -> usize {
    let mut place = 0;
    while place < MOST_OWED && OWED[place] != id {
        place += 1;
    }
    place
}

unsafe fn start_server() -> isize {
    let mut requests: [i32; 2] = [-1; 2];
    let mut replies: [i32; 2] = [-1; 2];
    let mut result = pipe(&raw mut requests as *mut i32);
    if result >= 0 {
        result = message_sockets(&raw mut replies as *mut i32);
    }
    if result >= 0 {
        result = set_nonblocking(requests[1]);
    }
    if result >= 0 {
        result = set_nonblocking(replies[0]);
    }
    if result >= 0 {
        result = fork();
        if result == 0 {
            file_server::run(requests[0], replies[1]);
        }
    }
    close(requests[0]);
    close(replies[1]);
    if result < 0 {
        close(requests[1]);
        close(replies[0]);
        return result;
    }
    SERVER = result as i32;
    REQUESTS = requests[1];
    REPLIES = replies[0];
    result
}

/// Sends a frame to the server, or queues what the pipe does not take; where there is no room, which a host
/// that keeps its limits never sees, it fails and false is returned.
unsafe fn hand_over(frame: *const Frame) -> bool {
    // A frame lies as it came: its header is before its payload.
    let bytes = ((*frame).payload as usize - HEADER_LEN) as *const u8;
    let len = HEADER_LEN + (*frame).len;
    if len > QUEUE_BYTES - QUEUE.len {
        protocol::fail(
            (*frame).id,
            -EAGAIN,
            STAGE_SLOT,
            b"file requests\0" as *const u8,
        );
        return false;
    }
    let mut written = 0;
    if QUEUE.len == 0 {
        let n = write(REQUESTS, bytes, len);
        if n > 0 {
            written = n as usize;
        }
        // Whatever else is wrong with the pipe shows when the queue is sent.
    }
    ring::push(
        &raw mut QUEUE,
        &raw mut STORAGE as *mut u8,
        QUEUE_BYTES,
        bytes.add(written),
        len - written,
    );
    true
}

/// The descriptor that is to take queued requests; -1 where none are queued.
pub unsafe fn requests_waiting() -> i32 {
    if QUEUE.len > 0 { REQUESTS } else { -1 }
}

/// The descriptor replies come from, or -1.
pub unsafe fn replies() -> i32 {
    REPLIES
}

/// Sends of the queue what the pipe takes now.
pub unsafe fn send_requests() {
    while QUEUE.len > 0 {
        let n = ring::readable(&raw const QUEUE, QUEUE_BYTES);
        let written = write(REQUESTS, (&raw const STORAGE as *const u8).add(QUEUE.start), n);
        if written == -EAGAIN {
            return;
        }
        if written <= 0 {
            // The server has ended, which the socket of replies tells next.
            QUEUE.len = 0;
            QUEUE.start = 0;
            return;
        }
        ring::consume(&raw mut QUEUE, QUEUE_BYTES, written as usize);
    }
}

/// Passes one reply on to the host.
pub unsafe fn pass_reply_on() {
    let id = protocol::pass_on(REPLIES);
    if id < 0 {
        lose_server();
    } else if id > 0 {
        let place = owed(id as u32);
        if place < MOST_OWED {
            OWED[place] = 0;
        }
    }
}

/// The server has ended, which only a signal makes it do: what it owed fails, and its open files are gone.
unsafe fn lose_server() {
    end_server();
    let mut place = 0;
    while place < MOST_OWED {
        if OWED[place] != 0 {
            protocol::fail(
                OWED[place],
                -EIO,
                STAGE_FILE,
                b"file server was killed\0" as *const u8,
            );
            OWED[place] = 0;
        }
        place += 1;
    }
}

/// Hears no more of the server, which ends when it has nothing to do or nobody to answer.
pub unsafe fn end_server() {
    close(REQUESTS);
    close(REPLIES);
    REQUESTS = -1;
    REPLIES = -1;
    QUEUE.len = 0;
    QUEUE.start = 0;
}

/// Signals the server, if there is one.
pub unsafe fn kill_server(signal: usize) {
    if SERVER > 0 {
        kill(SERVER as isize, signal);
    }
}

/// Notes that a process has been reaped, whose number may be another's from now on.
pub unsafe fn forget_server(pid: i32) {
    if pid == SERVER {
        SERVER = 0;
    }
}
