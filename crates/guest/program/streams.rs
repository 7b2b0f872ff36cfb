// The bytes of commands: stdin from the channel, outputs to it, each within its credit.

use crate::kernel::*;
use crate::processes::*;
use crate::protocol;
use crate::ring;
use crate::wire::*;

/// The character that makes a terminal in line mode report its end of file.
const END_OF_TRANSMISSION: u8 = 4;

/// Bytes were sent, and there may be more.
pub const SENT: u32 = 0;
/// Nothing is there now.
pub const EMPTY: u32 = 1;
/// The stream is closed.
pub const CLOSED: u32 = 2;
/// The host's credit is used up.
pub const NO_CREDIT: u32 = 3;
/// The channel must take something first.
pub const NO_ROOM: u32 = 4;

/// Whether the output buffer has room for a whole Data frame besides what is reserved.
pub unsafe fn room_for_data() -> bool {
    protocol::room() >= HEADER_LEN + MAX_DATA + protocol::RESERVE
}

/// Moves what one output has ready into one frame. `n` is 0 for stdout or the terminal, 1 for stderr.
pub unsafe fn pump(process: *mut Process, n: usize) -> u32 {
    let fd = (*process).output[n];
    if fd < 0 {
        return CLOSED;
    }
    let mut most = (*process).output_credit[n] as usize;
    if most == 0 {
        return NO_CREDIT;
    }
    if !room_for_data() {
        return NO_ROOM;
    }
    if most > MAX_DATA {
        most = MAX_DATA;
    }
    let stream = n as u8 + STDOUT;
    let payload = protocol::begin_frame(most);
    let got = read(fd, payload, most);
    (*process).resting = got <= 0 && got != -EAGAIN && (*process).tty && (*process).state == RUNNING;
    if (*process).resting {
        return EMPTY;
    }
    if got == -EAGAIN {
        drained(process, n, (*process).undrained[n]);
        return EMPTY;
    }
    if got <= 0 {
        // The end; a terminal says so by an error, once all its other ends are closed.
        close_output(process, n);
        protocol::signal(KIND_EOF, stream, (*process).id);
        return CLOSED;
    }
    protocol::end_frame(KIND_DATA, stream, (*process).id, got as usize);
    (*process).output_credit[n] -= got as u32;
    drained(process, n, got as usize);
    SENT
}

/// Counts bytes that lay in the output when the process ended, and says Drained after the last of them if
/// Exited named the stream as undrained.
unsafe fn drained(process: *mut Process, n: usize, bytes: usize) {
    if (*process).undrained[n] == 0 {
        return;
    }
    if bytes < (*process).undrained[n] {
        (*process).undrained[n] -= bytes;
        return;
    }
    (*process).undrained[n] = 0;
    if (*process).state == REPORTED {
        protocol::signal(KIND_DRAINED, n as u8 + STDOUT, (*process).id);
    }
}

unsafe fn close_output(process: *mut Process, n: usize) {
    close((*process).output[n]);
    (*process).output[n] = -1;
    (*process).undrained[n] = 0;
    if (*process).tty {
        // A terminal whose output nobody reads is hung up.
        close((*process).stdin);
        (*process).stdin = -1;
    }
}

/// Serves Close of an output.
pub unsafe fn close_by_host(process: *mut Process, stream: u8) {
    if stream == STDOUT || stream == STDERR {
        close_output(process, (stream - STDOUT) as usize);
    }
}

/// Serves Credit of an output.
pub unsafe fn grant(process: *mut Process, stream: u8, bytes: u32) {
    if stream != STDOUT && stream != STDERR {
        protocol::fail_request((*process).id, EPROTO);
        return;
    }
    let n = (stream - STDOUT) as usize;
    let sum = (*process).output_credit[n] as u64 + bytes as u64;
    if sum > MAX_CREDIT as u64 {
        protocol::fail_request((*process).id, EPROTO);
        return;
    }
    (*process).output_credit[n] = sum as u32;
}

/// Serves Data: to the process at once if it takes it, else into the ring.
pub unsafe fn accept_stdin(slot: usize, data: *const u8, len: usize) {
    let process = at(slot);
    if len == 0 || len > MAX_DATA || len > (*process).stdin_credit as usize || (*process).stdin_ending {
        protocol::fail_request((*process).id, EPROTO);
        return;
    }
    (*process).stdin_credit -= len as u32;
    if (*process).stdin < 0 {
        return;
    }
    let mut written = 0;
    if (*process).stdin_ring.len == 0 {
        let n = write((*process).stdin, data, len);
        if n < 0 && n != -EAGAIN {
            lose_stdin(process);
            return;
        }
        if n > 0 {
            written = n as usize;
            consumed(process, written);
        }
    }
    // The ring holds a whole window, so what the credit allows has room.
    ring::push(
        &raw mut (*process).stdin_ring,
        stdin_storage(slot),
        STDIN_BYTES,
        data.add(written),
        len - written,
    );
}

/// Serves Eof of stdin.
pub unsafe fn end_stdin(slot: usize) {
    let process = at(slot);
    if (*process).stdin < 0 {
        return;
    }
    if (*process).tty {
        let end = END_OF_TRANSMISSION;
        ring::push(
            &raw mut (*process).stdin_ring,
            stdin_storage(slot),
            STDIN_BYTES,
            &raw const end,
            1,
        );
    } else {
        (*process).stdin_ending = true;
    }
    write_stdin(slot);
}

/// Writes from the ring what the process takes now.
pub unsafe fn write_stdin(slot: usize) {
    let process = at(slot);
    let queue = &raw mut (*process).stdin_ring;
    while (*process).stdin >= 0 && (*queue).len > 0 {
        let n = ring::readable(queue, STDIN_BYTES);
        let written = write((*process).stdin, stdin_storage(slot).add((*queue).start), n);
        if written == -EAGAIN {
            return;
        }
        if written <= 0 {
            lose_stdin(process);
            return;
        }
        ring::consume(queue, STDIN_BYTES, written as usize);
        consumed(process, written as usize);
    }
    if (*process).stdin_ending && (*queue).len == 0 {
        close((*process).stdin);
        (*process).stdin = -1;
    }
}

/// The process reads no more: tells the host, unless that has nothing more to send anyway.
pub unsafe fn lose_stdin(process: *mut Process) {
    close((*process).stdin);
    (*process).stdin = -1;
    (*process).stdin_ring.len = 0;
    if !(*process).stdin_ending {
        protocol::signal(KIND_CLOSE, STDIN, (*process).id);
    }
}

unsafe fn consumed(process: *mut Process, bytes: usize) {
    (*process).stdin_owed += bytes as u32;
    let due = credit_due((*process).stdin_owed);
    if due > 0 {
        (*process).stdin_owed = 0;
        (*process).stdin_credit += due;
        protocol::signal_number(KIND_CREDIT, STDIN, (*process).id, due);
    }
}
