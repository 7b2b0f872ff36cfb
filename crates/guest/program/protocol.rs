// Frames in and out: two buffers around the control descriptor.

use crate::kernel::*;
use crate::memory::{memcpy, memmove};
use crate::text;
use crate::wire::*;

const IN_BYTES: usize = HEADER_LEN + MAX_PAYLOAD + 64 * 1024;
const OUT_BYTES: usize = 256 * 1024;
/// What is kept free for replies and reports of one round of the loop: a round sends at most four short
/// frames for each of its processes, and serves requests only while half of this is free.
pub const RESERVE: usize = 48 * 1024;

static mut IN: [u8; IN_BYTES] = [0; IN_BYTES];
static mut IN_START: usize = 0;
static mut IN_END: usize = 0;
/// Bytes of a frame that is too long, still to be dropped.
static mut IN_SKIP: usize = 0;
static mut OUT: [u8; OUT_BYTES] = [0; OUT_BYTES];
static mut OUT_START: usize = 0;
static mut OUT_END: usize = 0;

/// A frame that lies in the input buffer until the next call of `next_frame`.
pub struct Frame {
    pub kind: u16,
    pub stream: u8,
    pub id: u32,
    pub payload: *const u8,
    pub len: usize,
}

/// Forgets everything in both buffers: for a process that was forked with them.
pub unsafe fn clear() {
    IN_START = 0;
    IN_END = 0;
    IN_SKIP = 0;
    OUT_START = 0;
    OUT_END = 0;
}

/// Reads what has come, once. Returns the bytes read, 0 at the end of the stream, or an errno.
pub unsafe fn receive(control: i32) -> isize {
    let buffer = &raw mut IN as *mut u8;
    if IN_START == IN_END {
        IN_START = 0;
        IN_END = 0;
    } else if IN_BYTES - IN_END < 64 * 1024 {
        memmove(buffer, buffer.add(IN_START), IN_END - IN_START);
        IN_END -= IN_START;
        IN_START = 0;
    }
    if IN_END == IN_BYTES {
        return -EAGAIN;
    }
    let n = read(control, buffer.add(IN_END), IN_BYTES - IN_END);
    if n > 0 {
        IN_END += n as usize;
    }
    n
}

/// Takes the next whole frame out of the input buffer; false if there is none.
pub unsafe fn next_frame(frame: *mut Frame) -> bool {
    loop {
        let buffered = IN_END - IN_START;
        if IN_SKIP > 0 {
            let dropped = if IN_SKIP < buffered { IN_SKIP } else { buffered };
            IN_START += dropped;
            IN_SKIP -= dropped;
            if IN_SKIP > 0 {
                return false;
            }
            continue;
        }
        if buffered < HEADER_LEN {
            return false;
        }
        let header = (&raw const IN as *const u8).add(IN_START);
        let len = text::get_u32(header.add(HEADER_PAYLOAD_LEN)) as usize;
        (*frame).kind = text::get_u16(header.add(HEADER_KIND));
        (*frame).stream = *header.add(HEADER_STREAM);
        (*frame).id = text::get_u32(header.add(HEADER_ID));
        if len > MAX_PAYLOAD {
            IN_START += HEADER_LEN;
            IN_SKIP = len;
            fail(
                (*frame).id,
                -E2BIG,
                STAGE_REQUEST,
                b"frame longer than any may be\0" as *const u8,
            );
            continue;
        }
        if buffered < HEADER_LEN + len {
            return false;
        }
        (*frame).payload = header.add(HEADER_LEN);
        (*frame).len = len;
        IN_START += HEADER_LEN + len;
        return true;
    }
}

/// Free bytes of the output buffer.
pub unsafe fn room() -> usize {
    OUT_BYTES - (OUT_END - OUT_START)
}

/// Whether bytes wait to be sent.
pub unsafe fn unsent() -> bool {
    OUT_END > OUT_START
}

/// Sends as much as the channel takes now.
pub unsafe fn send(control: i32) {
    while OUT_START < OUT_END {
        let n = write(
            control,
            (&raw const OUT as *const u8).add(OUT_START),
            OUT_END - OUT_START,
        );
        if n <= 0 {
            return;
        }
        OUT_START += n as usize;
    }
    OUT_START = 0;
    OUT_END = 0;
}

/// The place of a new frame's payload, with `len` bytes of room; null where there is none. The frame exists
/// once it is given to `end_frame`.
pub unsafe fn begin_frame(len: usize) -> *mut u8 {
    let buffer = &raw mut OUT as *mut u8;
    if OUT_BYTES - OUT_END < HEADER_LEN + len {
        memmove(buffer, buffer.add(OUT_START), OUT_END - OUT_START);
        OUT_END -= OUT_START;
        OUT_START = 0;
    }
    if OUT_BYTES - OUT_END < HEADER_LEN + len {
        return core::ptr::null_mut();
    }
    buffer.add(OUT_END + HEADER_LEN)
}

/// Puts the header before a payload of `len` bytes and queues the frame.
pub unsafe fn end_frame(kind: u16, stream: u8, id: u32, len: usize) {
    let header = (&raw mut OUT as *mut u8).add(OUT_END);
    text::put_u32(header.add(HEADER_PAYLOAD_LEN), len as u32);
    text::put_u16(header.add(HEADER_KIND), kind);
    *header.add(HEADER_STREAM) = stream;
    *header.add(HEADER_ZERO) = 0;
    text::put_u32(header.add(HEADER_ID), id);
    OUT_END += HEADER_LEN + len;
}

/// Queues the next message of a socket, which is a whole frame made by `end_frame`. Returns its id, 0 where
/// nothing has come or there is no room, or an errno; the end of the socket is EIO.
pub unsafe fn pass_on(socket: i32) -> isize {
    let payload = begin_frame(MAX_DATA);
    if payload as usize == 0 {
        return 0;
    }
    let header = (payload as usize - HEADER_LEN) as *mut u8;
    let n = read(socket, header, HEADER_LEN + MAX_DATA);
    if n == -EAGAIN {
        return 0;
    }
    if n < HEADER_LEN as isize {
        return if n < 0 { n } else { -EIO };
    }
    OUT_END += n as usize;
    text::get_u32(header.add(HEADER_ID)) as isize
}

/// Queues a frame without a payload.
pub unsafe fn signal(kind: u16, stream: u8, id: u32) {
    if begin_frame(0) as usize != 0 {
        end_frame(kind, stream, id, 0);
    }
}

/// Queues a frame whose payload is one number.
pub unsafe fn signal_number(kind: u16, stream: u8, id: u32, number: u32) {
    let payload = begin_frame(4);
    if payload as usize != 0 {
        text::put_u32(payload, number);
        end_frame(kind, stream, id, 4);
    }
}

pub unsafe fn done(id: u32) {
    signal(KIND_DONE, 0, id);
}

/// Queues Failed; `error` is a negative errno.
pub unsafe fn fail(id: u32, error: isize, stage: u32, what: *const u8) {
    let mut len = text::length(what);
    if len > MAX_TEXT {
        len = MAX_TEXT;
    }
    let payload = begin_frame(FAILED_FIXED + len);
    if payload as usize != 0 {
        text::put_u32(payload.add(FAILED_ERRNO), -error as u32);
        text::put_u32(payload.add(FAILED_STAGE), stage);
        memcpy(payload.add(FAILED_FIXED), what, len);
        end_frame(KIND_FAILED, 0, id, FAILED_FIXED + len);
    }
}

/// Queues Failed for a request that is malformed or not allowed now; `errno` is positive.
pub unsafe fn fail_request(id: u32, errno: isize) {
    fail(id, -errno, STAGE_REQUEST, b"request\0" as *const u8);
}

/// Queues ExecFailed; `error` is a negative errno.
pub unsafe fn fail_exec(id: u32, error: isize, stage: u32) {
    let payload = begin_frame(FAILED_FIXED);
    if payload as usize != 0 {
        text::put_u32(payload.add(FAILED_ERRNO), -error as u32);
        text::put_u32(payload.add(FAILED_STAGE), stage);
        end_frame(KIND_EXEC_FAILED, 0, id, FAILED_FIXED);
    }
}

/// Queues a Mark of this moment.
pub unsafe fn mark(name: *const u8) {
    let len = text::length(name);
    let payload = begin_frame(MARK_FIXED + len);
    if payload as usize != 0 {
        text::put_u64(payload, now_ns());
        memcpy(payload.add(MARK_FIXED), name, len);
        end_frame(KIND_MARK, 0, 0, MARK_FIXED + len);
    }
}
