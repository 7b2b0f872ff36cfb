// What the host asks for, one frame at a time.

use crate::configure;
use crate::exec;
use crate::files;
use crate::freezer;
use crate::kernel::*;
use crate::mounts;
use crate::processes::*;
use crate::protocol;
use crate::protocol::Frame;
use crate::pty;
use crate::shutdown;
use crate::streams;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

/// Serves one frame.
pub unsafe fn serve(frame: *const Frame, control: i32) {
    let id = (*frame).id;
    let payload = (*frame).payload;
    let len = (*frame).len;
    match (*frame).kind {
        KIND_CONFIGURE => configure::configure(id, payload, len),
        KIND_MOUNT_ROOT => mounts::mount_root(id, payload, len),
        KIND_MOUNT => mounts::mount_share(id, payload, len),
        KIND_EXEC => exec::exec(id, payload, len),
        KIND_SYNC => {
            syscall(SYNC, 0, 0, 0, 0, 0);
            protocol::done(id);
        }
        KIND_SHUTDOWN => shut_down(id, payload, len, control),
        KIND_PING => protocol::done(id),
        KIND_FREEZE => freezer::set_frozen(id, true),
        KIND_THAW => freezer::set_frozen(id, false),
        KIND_FILE => files::request(frame),
        KIND_FILE_CLOSE => files::close_file(frame),
        KIND_SIGNAL | KIND_WINDOW_SIZE | KIND_DATA | KIND_EOF | KIND_CLOSE | KIND_CREDIT => {
            let slot = find(id);
            // Frames for what has just ended cross on the way.
            if slot < SLOTS {
                serve_process(frame, slot);
            }
        }
        _ => protocol::fail(
            id,
            -ENOSYS,
            STAGE_REQUEST,
            b"unknown kind of frame\0" as *const u8,
        ),
    }
}

unsafe fn serve_process(frame: *const Frame, slot: usize) {
    let process = at(slot);
    let payload = (*frame).payload;
    let len = (*frame).len;
    let stream = (*frame).stream;
    match (*frame).kind {
        KIND_SIGNAL if len == SIGNAL_LEN => send_signal(process, text::get_u32(payload)),
        KIND_WINDOW_SIZE if len == WINDOW_SIZE_LEN => {
            if (*process).tty && (*process).output[0] >= 0 {
                let rows = text::get_u16(payload);
                pty::set_size((*process).output[0], rows, text::get_u16(payload.add(2)));
            }
        }
        KIND_DATA if stream == STDIN => streams::accept_stdin(slot, payload, len),
        KIND_EOF if stream == STDIN && len == 0 => streams::end_stdin(slot),
        KIND_CLOSE if len == 0 => streams::close_by_host(process, stream),
        KIND_CREDIT if len == CREDIT_LEN => streams::grant(process, stream, text::get_u32(payload)),
        _ => protocol::fail_request((*frame).id, EPROTO),
    }
    release_if_over(process);
}

/// To the process's own group, which it leads since before its program ran.
unsafe fn send_signal(process: *mut Process, signal: u32) {
    if signal == 0 || signal > MAX_SIGNAL {
        protocol::fail_request((*process).id, EINVAL);
    } else if (*process).state == STARTING {
        (*process).early_signals |= 1 << (signal - 1);
    } else if (*process).state == RUNNING {
        let result = kill(-((*process).pid as isize), signal as usize);
        if result == -ESRCH {
            // It has moved to another group.
            kill((*process).pid as isize, signal as usize);
        }
    }
}

unsafe fn shut_down(id: u32, payload: *const u8, len: usize, control: i32) {
    if len != SHUTDOWN_LEN {
        protocol::fail_request(id, EPROTO);
        return;
    }
    let action = text::get_u32(payload.add(SHUTDOWN_ACTION));
    let grace = text::get_u32(payload.add(SHUTDOWN_GRACE));
    if action > SHUTDOWN_RESTART || grace > MAX_GRACE_MS {
        protocol::fail_request(id, EPROTO);
        return;
    }
    shutdown::shut_down(id, action, grace, control);
}
