// The end of everything, in order.

use crate::HOSTED;
use crate::files;
use crate::kernel::*;
use crate::log;
use crate::mounts;
use crate::processes::*;
use crate::protocol;
use crate::reap;
use crate::syscall::*;
use crate::wire::*;

/// How long killed processes may take to disappear, and the channel to take the last frame.
const PATIENCE_MS: u64 = 1000;

/// Ends every process, writes back, unmounts, answers Done, and powers off or restarts.
pub unsafe fn shut_down(id: u32, action: u32, grace_ms: u32, control: i32) -> ! {
    files::end_server();
    if grace_ms > 0 {
        kill_all(SIGTERM);
        wait_for_all(grace_ms as u64);
    }
    kill_all(SIGKILL);
    wait_for_all(PATIENCE_MS);
    report_ends();
    syscall(SYNC, 0, 0, 0, 0, 0);
    if !HOSTED {
        mounts::unmount_all();
    }
    protocol::done(id);
    send_all(control);
    if HOSTED {
        exit(0);
    }
    switch_off(action);
}

/// The other end of `--control-fd` is gone: ends like a command whose terminal is.
pub unsafe fn abandon() -> ! {
    kill_all(SIGKILL);
    wait_for_all(PATIENCE_MS);
    exit(0);
}

/// Signals everything there is if this is the init of a machine or container, else its own commands.
unsafe fn kill_all(signal: usize) {
    if getpid() == 1 {
        kill(-1, signal);
        return;
    }
    files::kill_server(signal);
    let mut slot = 0;
    while slot < SLOTS {
        if is_alive(at(slot)) {
            kill(-((*at(slot)).pid as isize), signal);
        }
        slot += 1;
    }
}

/// Waits until no child is left, at most `ms`.
unsafe fn wait_for_all(ms: u64) {
    let deadline = now_ns() + ms * 1_000_000;
    while reap::reap_all() >= 0 && now_ns() < deadline {
        sleep_us(1000);
    }
}

/// Tells the host how its commands ended, as far as the channel has room.
unsafe fn report_ends() {
    let mut slot = 0;
    while slot < SLOTS {
        if (*at(slot)).state == ENDED {
            reap::report_end(at(slot));
        }
        slot += 1;
    }
}

unsafe fn send_all(control: i32) {
    let deadline = now_ns() + PATIENCE_MS * 1_000_000;
    protocol::send(control);
    while protocol::unsent() && now_ns() < deadline {
        sleep_us(1000);
        protocol::send(control);
    }
}

unsafe fn switch_off(action: u32) -> ! {
    const MAGIC1: usize = 0xfee1_dead;
    const MAGIC2: usize = 672_274_793;
    const POWER_OFF: usize = 0x4321_fedc;
    const RESTART: usize = 0x0123_4567;
    let command = if action == SHUTDOWN_RESTART {
        RESTART
    } else {
        POWER_OFF
    };
    let result = syscall(REBOOT, MAGIC1, MAGIC2, command, 0, 0);
    log::note(b"the kernel will not switch off\0" as *const u8, result);
    loop {
        sleep_us(1_000_000);
    }
}
