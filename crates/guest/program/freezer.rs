// Commands stopped, all at once and without their notice, while the host writes the guest down: whoever takes it up
// again gives it its name, clock and seed before one of them runs.

use crate::HOSTED;
use crate::kernel::*;
use crate::log;
use crate::protocol;
use crate::syscall::*;

/// The control group (Documentation/admin-guide/cgroup-v2.rst) that commands are started in.
const GROUP: *const u8 = b"/sys/fs/cgroup/commands\0" as *const u8;
const FROZEN: *const u8 = b"frozen 1\0" as *const u8;
const FROZEN_LEN: usize = 8;
const EVENTS_BYTES: usize = 256;
/// How long commands may take to stop that wait for what cannot be interrupted.
const PATIENCE_MS: u64 = 1000;
const POLL_US: i64 = 500;

/// The folder of the group; -1 where the kernel has none.
static mut FOLDER: i32 = -1;

/// Makes the group.
pub unsafe fn prepare() {
    mkdir(GROUP, 0o755);
    FOLDER = open(GROUP, O_RDONLY | O_DIRECTORY) as i32;
    if FOLDER < 0 {
        log::note(b"commands cannot be stopped together\0" as *const u8, FOLDER as isize);
        FOLDER = -1;
    }
}

/// `fork` of a command: 0 in the child, which is in the group from its first instruction on.
pub unsafe fn fork_command() -> isize {
    if FOLDER >= 0 {
        let pid = fork_into(FOLDER);
        if pid >= 0 {
            return pid;
        }
        // As when the guest has made something of the group that takes no processes.
        log::note(b"command outside of its control group\0" as *const u8, pid);
    }
    fork()
}

/// Serves Freeze and Thaw.
pub unsafe fn set_frozen(id: u32, frozen: bool) {
    if HOSTED {
        protocol::fail_request(id, EPERM);
        return;
    }
    if FOLDER >= 0 {
        let digit = if frozen { b"1\0" } else { b"0\0" };
        let fd = open_in(FOLDER, b"cgroup.freeze\0" as *const u8, O_WRONLY);
        let mut result = fd;
        if fd >= 0 {
            result = write(fd as i32, digit as *const u8, 1);
            close(fd as i32);
        }
        if result < 0 {
            protocol::fail_request(id, -result);
            return;
        }
        if frozen {
            wait_until_frozen();
        }
    }
    protocol::done(id);
}

/// What does not stop in time is noted, and goes on when the guest does.
unsafe fn wait_until_frozen() {
    let deadline = now_ns() + PATIENCE_MS * 1_000_000;
    while !is_frozen() {
        if now_ns() > deadline {
            log::note(b"commands that do not stop\0" as *const u8, -EBUSY);
            return;
        }
        sleep_us(POLL_US);
    }
}

unsafe fn is_frozen() -> bool {
    let mut events: [u8; EVENTS_BYTES] = [0; EVENTS_BYTES];
    let text = &raw mut events as *mut u8;
    let fd = open_in(FOLDER, b"cgroup.events\0" as *const u8, O_RDONLY);
    let len = read(fd as i32, text, EVENTS_BYTES);
    close(fd as i32);
    if len < 0 {
        // Whatever it is will not be another the next time.
        return true;
    }
    let mut start = 0;
    while start + FROZEN_LEN <= len as usize {
        let mut same = 0;
        while same < FROZEN_LEN && *text.add(start + same) == *FROZEN.add(same) {
            same += 1;
        }
        if same == FROZEN_LEN {
            return true;
        }
        start += 1;
    }
    false
}
