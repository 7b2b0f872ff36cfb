// The loop: waits for the channel, children and streams, and moves whatever can move.

use crate::HOSTED;
use crate::exec::read_exec_result;
use crate::files;
use crate::kernel::*;
use crate::memory::memcpy;
use crate::processes::*;
use crate::protocol;
use crate::protocol::Frame;
use crate::reap;
use crate::requests;
use crate::shutdown;
use crate::streams;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

/// Before the slots: the control channel, the children, and the file server's two descriptors.
const FIRST_SLOT: usize = 4;
/// All of them, with three descriptors of every slot.
const POLLED: usize = FIRST_SLOT + 3 * SLOTS;
const IDLE: PollFd = PollFd {
    fd: -1,
    events: 0,
    revents: 0,
};

static mut POLL: [PollFd; POLLED] = [IDLE; POLLED];

/// Says Hello and serves the channel for ever.
pub unsafe fn serve(control: i32, start_ns: u64) -> ! {
    let children = child_signals() as i32;
    hello(start_ns);
    let mut frame = Frame {
        kind: 0,
        stream: 0,
        id: 0,
        payload: core::ptr::null(),
        len: 0,
    };
    loop {
        while protocol::room() >= protocol::RESERVE / 2 && protocol::next_frame(&raw mut frame) {
            requests::serve(&raw const frame, control);
        }
        protocol::send(control);
        let roomy = protocol::room() >= protocol::RESERVE;
        prepare_poll(control, children, roomy);
        poll(
            &raw mut POLL as *mut PollFd,
            POLLED,
            patience(roomy),
        );
        if POLL[0].revents & (POLLIN | POLLHUP | POLLERR) != 0 {
            listen(control, roomy);
        }
        if roomy {
            if POLL[1].revents != 0 {
                reap::reap(children);
            }
            if POLL[2].revents != 0 {
                files::send_requests();
            }
            if POLL[3].revents != 0 {
                files::pass_reply_on();
            }
            serve_slots();
        }
    }
}

/// Reads the channel. Where its other end is gone a hosted program ends; a machine waits for it to come back.
unsafe fn listen(control: i32, roomy: bool) {
    let mut n = -EAGAIN;
    if roomy {
        n = protocol::receive(control);
    }
    let gone = n == 0 || (n < 0 && n != -EAGAIN) || (!roomy && POLL[0].revents & POLLHUP != 0);
    if gone && HOSTED {
        shutdown::abandon();
    }
    if gone || POLL[0].revents & POLLHUP != 0 {
        sleep_us(10_000);
    }
}

/// How long to wait for a descriptor, in ms; -1 is for ever.
unsafe fn patience(roomy: bool) -> i64 {
    if work_left(roomy) {
        return 0;
    }
    let mut slot = 0;
    while slot < SLOTS {
        if (*at(slot)).state == RUNNING && (*at(slot)).resting {
            return RESTING_MS;
        }
        slot += 1;
    }
    -1
}

/// Whether something can be done without waiting for a descriptor: an ended process to report.
unsafe fn work_left(roomy: bool) -> bool {
    let mut slot = 0;
    while roomy && slot < SLOTS {
        if (*at(slot)).state == ENDED && streams::room_for_data() {
            return true;
        }
        slot += 1;
    }
    false
}

/// Fills the array: a descriptor is watched only while its event could be served.
unsafe fn prepare_poll(control: i32, children: i32, roomy: bool) {
    let mut control_events = 0;
    if roomy {
        control_events = POLLIN;
    }
    if protocol::unsent() {
        control_events |= POLLOUT;
    }
    watch(0, control, control_events);
    watch(1, if roomy { children } else { -1 }, POLLIN);
    watch(2, if roomy { files::requests_waiting() } else { -1 }, POLLOUT);
    let replies_wanted = roomy && streams::room_for_data();
    watch(3, if replies_wanted { files::replies() } else { -1 }, POLLIN);
    let mut slot = 0;
    while slot < SLOTS {
        watch_slot(slot, roomy);
        slot += 1;
    }
}

unsafe fn watch(n: usize, fd: i32, events: i16) {
    POLL[n].fd = fd;
    POLL[n].events = events;
    POLL[n].revents = 0;
}

unsafe fn watch_slot(slot: usize, roomy: bool) {
    let process = at(slot);
    let first = FIRST_SLOT + 3 * slot;
    watch(first, -1, 0);
    watch(first + 1, -1, 0);
    watch(first + 2, -1, 0);
    if !roomy || (*process).state == FREE {
        return;
    }
    if (*process).state == STARTING {
        watch(first, (*process).exec_pipe, POLLIN);
        return;
    }
    if (*process).stdin_ring.len > 0 {
        watch(first, (*process).stdin, POLLOUT);
    } else if !(*process).tty {
        // For the error that tells that nobody reads it any more.
        watch(first, (*process).stdin, 0);
    }
    let mut n = 0;
    while n < 2 {
        if (*process).output_credit[n] > 0 && streams::room_for_data() && !(*process).resting {
            watch(first + 1 + n, (*process).output[n], POLLIN);
        }
        n += 1;
    }
}

unsafe fn serve_slots() {
    let mut slot = 0;
    while slot < SLOTS {
        if (*at(slot)).state != FREE {
            serve_slot(slot);
        }
        slot += 1;
    }
}

unsafe fn serve_slot(slot: usize) {
    let process = at(slot);
    let first = FIRST_SLOT + 3 * slot;
    if (*process).state == STARTING {
        if POLL[first].revents != 0 {
            read_exec_result(process);
        }
        return;
    }
    if POLL[first].fd >= 0 && (*process).stdin == POLL[first].fd {
        if POLL[first].revents & POLLOUT != 0 {
            streams::write_stdin(slot);
        } else if POLL[first].revents & (POLLERR | POLLHUP) != 0 {
            streams::lose_stdin(process);
        }
    }
    let mut n = 0;
    while n < 2 {
        if POLL[first + 1 + n].revents != 0 || (n == 0 && (*process).resting) {
            streams::pump(process, n);
        }
        n += 1;
    }
    if (*process).state == ENDED {
        reap::report_end(process);
    }
    release_if_over(process);
}

/// Queues Hello.
unsafe fn hello(start_ns: u64) {
    let mut release: [u8; 6 * 65] = [0; 6 * 65];
    syscall(UNAME, &raw mut release as usize, 0, 0, 0, 0);
    // struct utsname: system, node, release, …, 65 bytes each.
    let name = (&raw const release as *const u8).add(2 * 65);
    let len = text::length(name);
    let payload = protocol::begin_frame(HELLO_FIXED + MAX_RELEASE);
    text::put_u32(payload.add(HELLO_MAGIC), MAGIC);
    text::put_u16(payload.add(HELLO_VERSION_MIN), VERSION_MIN);
    text::put_u16(payload.add(HELLO_VERSION_MAX), VERSION_MAX);
    text::put_u16(payload.add(HELLO_ARCH), ARCH);
    text::put_u16(payload.add(HELLO_FLAGS), if HOSTED { HELLO_HOSTED } else { 0 });
    text::put_u32(payload.add(HELLO_SLOTS), MAX_PROCESSES);
    boot_id(payload.add(HELLO_BOOT_ID));
    text::put_u64(payload.add(HELLO_START_NS), start_ns);
    text::put_u64(payload.add(HELLO_NOW_NS), now_ns());
    memcpy(payload.add(HELLO_FIXED), name, len);
    protocol::end_frame(KIND_HELLO, 0, 0, HELLO_FIXED + len);
}

/// The kernel's boot id, 36 characters of hexadecimal digits and hyphens, as 16 bytes.
unsafe fn boot_id(to: *mut u8) {
    let mut digits: [u8; 37] = [0; 37];
    read_file(
        b"/proc/sys/kernel/random/boot_id\0" as *const u8,
        &raw mut digits as *mut u8,
        36,
    );
    text::parse_uuid(&raw const digits as *const u8, to);
}
