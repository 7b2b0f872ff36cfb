// The table of commands that run for the host, one slot each.

use crate::kernel::close;
use crate::ring::Ring;
use crate::wire::*;

pub const SLOTS: usize = MAX_PROCESSES as usize;
/// Room for all stdin the host may send ahead, and a few end-of-file characters of a terminal.
pub const STDIN_BYTES: usize = INITIAL_CREDIT as usize + 16;

/// The slot holds nothing.
pub const FREE: u32 = 0;
/// Forked; not known yet whether the program could be executed.
pub const STARTING: u32 = 1;
/// Runs its program.
pub const RUNNING: u32 = 2;
/// Has ended and been reaped; Exited not sent yet.
pub const ENDED: u32 = 3;
/// Exited was sent; outputs may still be open.
pub const REPORTED: u32 = 4;

/// How often a resting terminal is looked at, in ms.
pub const RESTING_MS: i64 = 20;

pub struct Process {
    pub state: u32,
    pub id: u32,
    pub pid: i32,
    pub tty: bool,
    /// A terminal that the living process has closed everywhere. It is not hung up, since the process may
    /// open it again or be about to end well; it is looked at again every `RESTING_MS`.
    pub resting: bool,
    /// Readable when exec succeeded (end of file) or failed (errno and stage); -1 once known.
    pub exec_pipe: i32,
    /// Write end of stdin, or a descriptor of the terminal; -1 when closed.
    pub stdin: i32,
    /// The host has no more stdin; it is closed when the ring is empty.
    pub stdin_ending: bool,
    /// What the host may still send.
    pub stdin_credit: u32,
    /// What the process took since credit was last returned.
    pub stdin_owed: u32,
    pub stdin_ring: Ring,
    /// Read ends of stdout and stderr, or the terminal first; -1 when closed.
    pub output: [i32; 2],
    /// What may still be sent of each.
    pub output_credit: [u32; 2],
    /// Bytes that lay in each when the process ended and are not sent yet.
    pub undrained: [usize; 2],
    /// Signals 1..=64 that came before the program ran, as bits from zero.
    pub early_signals: u64,
    pub wait_status: i32,
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kib: u64,
}

const NOTHING: Process = Process {
    state: FREE,
    id: 0,
    pid: 0,
    tty: false,
    resting: false,
    exec_pipe: 0,
    stdin: 0,
    stdin_ending: false,
    stdin_credit: 0,
    stdin_owed: 0,
    stdin_ring: Ring { start: 0, len: 0 },
    output: [0; 2],
    output_credit: [0; 2],
    undrained: [0; 2],
    early_signals: 0,
    wait_status: 0,
    user_us: 0,
    system_us: 0,
    max_rss_kib: 0,
};

static mut PROCESSES: [Process; SLOTS] = [NOTHING; SLOTS];
static mut STDIN: [[u8; STDIN_BYTES]; SLOTS] = [[0; STDIN_BYTES]; SLOTS];

/// The process in a slot.
pub unsafe fn at(slot: usize) -> *mut Process {
    &raw mut PROCESSES[slot]
}

/// The storage of a slot's stdin ring.
pub unsafe fn stdin_storage(slot: usize) -> *mut u8 {
    &raw mut STDIN[slot] as *mut u8
}

/// Makes every slot free.
pub unsafe fn clear() {
    let mut slot = 0;
    while slot < SLOTS {
        reset(at(slot));
        slot += 1;
    }
}

/// Makes a slot free, closing what it holds.
pub unsafe fn release(process: *mut Process) {
    close((*process).exec_pipe);
    close((*process).stdin);
    close((*process).output[0]);
    close((*process).output[1]);
    reset(process);
}

unsafe fn reset(process: *mut Process) {
    *process = NOTHING;
    (*process).exec_pipe = -1;
    (*process).stdin = -1;
    (*process).output[0] = -1;
    (*process).output[1] = -1;
    (*process).stdin_credit = INITIAL_CREDIT;
    (*process).output_credit[0] = INITIAL_CREDIT;
    (*process).output_credit[1] = INITIAL_CREDIT;
}

/// Makes the slot of a reported process free once both its outputs are closed.
pub unsafe fn release_if_over(process: *mut Process) {
    if (*process).state == REPORTED && (*process).output[0] < 0 && (*process).output[1] < 0 {
        release(process);
    }
}

/// The slot of the process the host calls `id`, or SLOTS.
pub unsafe fn find(id: u32) -> usize {
    let mut slot = 0;
    while slot < SLOTS && ((*at(slot)).state == FREE || (*at(slot)).id != id) {
        slot += 1;
    }
    slot
}

/// The slot of the living process `pid`, or SLOTS.
pub unsafe fn find_pid(pid: i32) -> usize {
    let mut slot = 0;
    while slot < SLOTS && !(is_alive(at(slot)) && (*at(slot)).pid == pid) {
        slot += 1;
    }
    slot
}

/// A free slot, or SLOTS.
pub unsafe fn find_free() -> usize {
    let mut slot = 0;
    while slot < SLOTS && (*at(slot)).state != FREE {
        slot += 1;
    }
    slot
}

/// Whether the process is not reaped yet.
pub unsafe fn is_alive(process: *const Process) -> bool {
    (*process).state == STARTING || (*process).state == RUNNING
}
