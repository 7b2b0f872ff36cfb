// Exec as the host sends it: reading the request, and starting the process.

use crate::freezer;
use crate::kernel::*;
use crate::processes::*;
use crate::protocol;
use crate::pty;
use crate::spawn;
use crate::text;
use crate::wire::*;

const STRING_SLOTS: usize = MAX_STRINGS as usize + 1;
const GROUP_SLOTS: usize = MAX_GROUPS as usize;

/// What is to run. The strings lie in the input buffer, which the child gets a copy of.
pub struct Program {
    pub flags: u32,
    pub uid: u32,
    pub gid: u32,
    pub group_count: usize,
    pub rows: u16,
    pub cols: u16,
    pub cwd: *const u8,
    pub env_count: usize,
}

pub static mut PROGRAM: Program = Program {
    flags: 0,
    uid: 0,
    gid: 0,
    group_count: 0,
    rows: 0,
    cols: 0,
    cwd: core::ptr::null(),
    env_count: 0,
};
pub static mut ARGUMENTS: [*const u8; STRING_SLOTS] = [core::ptr::null(); STRING_SLOTS];
pub static mut ENVIRONMENT: [*const u8; STRING_SLOTS] = [core::ptr::null(); STRING_SLOTS];
pub static mut GROUPS: [u32; GROUP_SLOTS] = [0; GROUP_SLOTS];

/// Serves Exec.
pub unsafe fn exec(id: u32, payload: *const u8, len: usize) {
    let mut result = read_request(payload, len);
    if result < 0 || id == 0 {
        protocol::fail_exec(id, if result < 0 { result } else { -EINVAL }, STAGE_REQUEST);
        return;
    }
    if find(id) < SLOTS {
        protocol::fail_exec(id, -EEXIST, STAGE_SLOT);
        return;
    }
    let slot = find_free();
    if slot == SLOTS {
        protocol::fail_exec(id, -EAGAIN, STAGE_SLOT);
        return;
    }
    let process = at(slot);
    (*process).id = id;
    let mut child: [i32; 3] = [-1; 3];
    let child_ends = &raw mut child as *mut i32;
    result = make_stdio(process, child_ends);
    let mut stage = STAGE_STDIO;
    if result >= 0 {
        stage = STAGE_FORK;
        result = start(process, child_ends);
    }
    close(child[0]);
    if child[1] != child[0] {
        close(child[1]);
    }
    if child[2] != child[0] {
        close(child[2]);
    }
    if result < 0 {
        release(process);
        protocol::fail_exec(id, result, stage);
    }
}

/// Reads the payload into the statics above, checking every count and every end.
unsafe fn read_request(payload: *const u8, len: usize) -> isize {
    if len < EXEC_FIXED {
        return -EPROTO;
    }
    let groups = text::get_u32(payload.add(EXEC_GROUP_COUNT));
    let arguments = text::get_u32(payload.add(EXEC_ARG_COUNT));
    let variables = text::get_u32(payload.add(EXEC_ENV_COUNT));
    if groups > MAX_GROUPS || arguments > MAX_STRINGS || variables > MAX_STRINGS {
        return -E2BIG;
    }
    let mut offset = EXEC_FIXED + groups as usize * 4;
    if arguments == 0 || offset > len {
        return -EPROTO;
    }
    let mut i = 0;
    while i < groups as usize {
        GROUPS[i] = text::get_u32(payload.add(EXEC_FIXED + i * 4));
        i += 1;
    }
    PROGRAM.flags = text::get_u32(payload.add(EXEC_FLAGS));
    PROGRAM.uid = text::get_u32(payload.add(EXEC_UID));
    PROGRAM.gid = text::get_u32(payload.add(EXEC_GID));
    PROGRAM.rows = text::get_u16(payload.add(EXEC_ROWS));
    PROGRAM.cols = text::get_u16(payload.add(EXEC_COLS));
    PROGRAM.group_count = groups as usize;
    PROGRAM.env_count = variables as usize;
    PROGRAM.cwd = payload.add(offset);
    offset = text::string_end(payload, offset, len);
    if offset == 0 || text::length(PROGRAM.cwd) > MAX_PATH {
        return -EPROTO;
    }
    offset = read_strings(
        &raw mut ARGUMENTS as *mut *const u8,
        arguments as usize,
        payload,
        offset,
        len,
    );
    if offset != 0 {
        offset = read_strings(
            &raw mut ENVIRONMENT as *mut *const u8,
            variables as usize,
            payload,
            offset,
            len,
        );
    }
    // Neither fewer strings than announced nor anything after them.
    if offset != len {
        return -EPROTO;
    }
    0
}

/// Notes where `count` strings lie and a null after them. Returns the offset after them, or 0.
unsafe fn read_strings(
    to: *mut *const u8,
    count: usize,
    payload: *const u8,
    start: usize,
    len: usize,
) -> usize {
    let mut offset = start;
    let mut i = 0;
    while i < count {
        let end = text::string_end(payload, offset, len);
        if end == 0 {
            return 0;
        }
        *to.add(i) = payload.add(offset);
        offset = end;
        i += 1;
    }
    *to.add(count) = core::ptr::null();
    offset
}

/// Makes the process's streams: our ends into the slot, its ends into `child`.
unsafe fn make_stdio(process: *mut Process, child: *mut i32) -> isize {
    if PROGRAM.flags & EXEC_TTY != 0 {
        return pty::make_terminal(process, child, PROGRAM.rows, PROGRAM.cols);
    }
    let mut result = make_stream(EXEC_STDIN, child, &raw mut (*process).stdin);
    if result >= 0 {
        result = make_stream(EXEC_STDOUT, child.add(1), &raw mut (*process).output[0]);
    }
    if result >= 0 {
        result = make_stream(EXEC_STDERR, child.add(2), &raw mut (*process).output[1]);
    }
    result
}

/// One stream: a pipe if the flag is set, else `/dev/null` for the process and nothing for us.
unsafe fn make_stream(flag: u32, theirs: *mut i32, ours: *mut i32) -> isize {
    if PROGRAM.flags & flag == 0 {
        let null = open(b"/dev/null\0" as *const u8, O_RDWR);
        *theirs = null as i32;
        return null;
    }
    let mut ends: [i32; 2] = [-1; 2];
    let result = pipe(&raw mut ends as *mut i32);
    if result < 0 {
        return result;
    }
    let reads = if flag == EXEC_STDIN { 0 } else { 1 };
    *theirs = ends[reads];
    *ours = ends[1 - reads];
    set_nonblocking(*ours)
}

/// Forks. The child reports through a pipe that exec closes, so that a slow exec holds up nobody.
unsafe fn start(process: *mut Process, child: *mut i32) -> isize {
    let mut ends: [i32; 2] = [-1; 2];
    let result = pipe(&raw mut ends as *mut i32);
    if result < 0 {
        return result;
    }
    set_nonblocking(ends[0]);
    (*process).exec_pipe = ends[0];
    let pid = freezer::fork_command();
    if pid == 0 {
        spawn::become_program(child, ends[1]);
    }
    close(ends[1]);
    if pid < 0 {
        return pid;
    }
    (*process).pid = pid as i32;
    (*process).state = STARTING;
    0
}

/// Hears from the child whether its program runs: reports Started or ExecFailed, or does nothing if the
/// child has not said yet.
pub unsafe fn read_exec_result(process: *mut Process) {
    let mut words: [u32; 2] = [0; 2];
    let n = read((*process).exec_pipe, &raw mut words as *mut u8, 8);
    if n == -EAGAIN {
        return;
    }
    if n == 8 {
        protocol::fail_exec((*process).id, -(words[0] as isize), words[1]);
        release(process);
        return;
    }
    close((*process).exec_pipe);
    (*process).exec_pipe = -1;
    (*process).state = RUNNING;
    protocol::signal_number(KIND_STARTED, 0, (*process).id, (*process).pid as u32);
    let mut signal = 1;
    while signal <= MAX_SIGNAL as usize {
        if (*process).early_signals & (1 << (signal - 1)) != 0 {
            kill(-((*process).pid as isize), signal);
        }
        signal += 1;
    }
}
