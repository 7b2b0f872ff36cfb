// What the program has to say about itself: lines in the kernel log, which reach the host's console.

use crate::kernel::*;
use crate::text;

const LINE: usize = 512;

static mut LOG: i32 = 2;

/// Writes to the kernel log from now on instead of stderr, if it can be opened.
pub unsafe fn use_kernel_log() {
    let fd = open(b"/dev/kmsg\0" as *const u8, O_WRONLY);
    if fd >= 0 {
        LOG = fd as i32;
    }
}

/// Logs `what`, and the errno `-error` if that is negative.
pub unsafe fn note(what: *const u8, error: isize) {
    note_about(what, b"\0" as *const u8, error);
}

/// Logs `what` about `name`, and the errno `-error` if that is negative.
pub unsafe fn note_about(what: *const u8, name: *const u8, error: isize) {
    let mut line: [u8; LINE] = [0; LINE];
    let to = &raw mut line as *mut u8;
    let mut len = text::append(to, 0, LINE - 64, b"<4>crumblecracker: \0" as *const u8);
    len = append_what_fits(to, len, what);
    if *name != 0 {
        len = append_what_fits(to, len, b" \0" as *const u8);
        len = append_what_fits(to, len, name);
    }
    if error < 0 {
        len = text::append(to, len, LINE, b": errno \0" as *const u8);
        len += text::format_decimal(to.add(len as usize), -error as u64) as isize;
    }
    len = text::append(to, len, LINE, b"\n\0" as *const u8);
    // The level is for the kernel log only.
    let skip = if LOG == 2 { 3 } else { 0 };
    write(LOG, to.add(skip), len as usize - skip);
}

unsafe fn append_what_fits(to: *mut u8, len: isize, s: *const u8) -> isize {
    let longer = text::append(to, len, LINE - 64, s);
    if longer < 0 { len } else { longer }
}
