// The end of processes: every orphan is reaped, and commands are reported.

use crate::exec::read_exec_result;
use crate::files;
use crate::kernel::*;
use crate::processes::*;
use crate::protocol;
use crate::streams::*;
use crate::text;
use crate::wire::*;

/// The most a terminal holds back: its buffers' limit in the kernel, rounded up.
const TERMINAL_BUFFERS: usize = 128 * 1024;

/// Reaps whatever has ended.
pub unsafe fn reap(children: i32) {
    let mut signal: [u8; 128] = [0; 128];
    while read(children, &raw mut signal as *mut u8, 128) > 0 {}
    reap_all();
}

/// Reaps whatever has ended; -ECHILD if no child is left, else 0.
pub unsafe fn reap_all() -> isize {
    loop {
        let mut status: i32 = 0;
        let mut usage = Rusage {
            user_seconds: 0,
            user_us: 0,
            system_seconds: 0,
            system_us: 0,
            max_rss_kib: 0,
            rest: [0; 13],
        };
        let pid = reap_any(&raw mut status, &raw mut usage);
        if pid <= 0 {
            return pid;
        }
        let slot = find_pid(pid as i32);
        if slot < SLOTS {
            note_end(at(slot), status, &raw const usage);
        }
        files::forget_server(pid as i32);
    }
}

unsafe fn note_end(process: *mut Process, status: i32, usage: *const Rusage) {
    if (*process).state == STARTING {
        read_exec_result(process);
    }
    if (*process).state != RUNNING {
        return;
    }
    (*process).state = ENDED;
    (*process).wait_status = status;
    (*process).user_us = (*usage).user_seconds as u64 * 1_000_000 + (*usage).user_us as u64;
    (*process).system_us = (*usage).system_seconds as u64 * 1_000_000 + (*usage).system_us as u64;
    (*process).max_rss_kib = (*usage).max_rss_kib as u64;
    if !(*process).tty {
        close((*process).stdin);
        (*process).stdin = -1;
    }
    let mut n = 0;
    while n < 2 {
        (*process).undrained[n] = held_back(process, n);
        n += 1;
    }
}

/// Bytes an output holds that its process wrote before it ended. Without this bound a background process
/// that keeps writing would keep Exited back for ever.
unsafe fn held_back(process: *const Process, n: usize) -> usize {
    if (*process).output[n] < 0 {
        return 0;
    }
    if (*process).tty {
        return TERMINAL_BUFFERS;
    }
    let mut bytes: i32 = 0;
    ioctl((*process).output[n], FIONREAD, &raw mut bytes as usize);
    bytes as usize
}

/// Sends what an ended process left in its outputs as far as there is credit, then Exited. Does nothing
/// while the channel has no room; the loop comes again.
pub unsafe fn report_end(process: *mut Process) {
    let mut undrained: u8 = 0;
    let mut n = 0;
    while n < 2 {
        while (*process).undrained[n] > 0 {
            let result = pump(process, n);
            if result == NO_ROOM {
                return;
            }
            if result == NO_CREDIT {
                undrained |= 1 << (n as u8 + STDOUT);
                break;
            }
        }
        n += 1;
    }
    let payload = protocol::begin_frame(EXITED_LEN);
    if payload as usize == 0 {
        return;
    }
    let status = (*process).wait_status;
    let signal = (status & 0x7f) as u8;
    text::put_u64(payload, 0);
    if signal == 0 {
        *payload.add(EXITED_HOW) = EXITED_BY_CODE;
        *payload.add(EXITED_CODE) = (status >> 8) as u8;
    } else {
        *payload.add(EXITED_HOW) = EXITED_BY_SIGNAL;
        *payload.add(EXITED_CODE) = signal;
        *payload.add(EXITED_CORE) = (status >> 7 & 1) as u8;
    }
    *payload.add(EXITED_UNDRAINED) = undrained;
    text::put_u64(payload.add(EXITED_USER_US), (*process).user_us);
    text::put_u64(payload.add(EXITED_SYSTEM_US), (*process).system_us);
    text::put_u64(payload.add(EXITED_MAX_RSS), (*process).max_rss_kib);
    protocol::end_frame(KIND_EXITED, 0, (*process).id, EXITED_LEN);
    (*process).state = REPORTED;
    release_if_over(process);
}
