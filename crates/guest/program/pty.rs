// Terminals.

use crate::kernel::*;
use crate::processes::Process;
use crate::syscall::*;

/// struct winsize.
#[repr(C)]
struct Size {
    rows: u16,
    cols: u16,
    pixels: [u16; 2],
}

/// Makes a terminal: its controlling side into the slot, its other side into all three of `child`.
pub unsafe fn make_terminal(process: *mut Process, child: *mut i32, rows: u16, cols: u16) -> isize {
    const TIOCSPTLCK: usize = 0x4004_5431;
    const TIOCGPTPEER: usize = 0x5441;
    const F_DUPFD_CLOEXEC: usize = 1030;
    let controller = open(b"/dev/ptmx\0" as *const u8, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if controller < 0 {
        return controller;
    }
    (*process).tty = true;
    (*process).output[0] = controller as i32;
    let unlocked: i32 = 0;
    let mut result = ioctl(controller as i32, TIOCSPTLCK, &raw const unlocked as usize);
    if result < 0 {
        return result;
    }
    result = set_size(controller as i32, rows, cols);
    if result < 0 {
        return result;
    }
    // A number of its own for each direction, so that they are closed one by one like pipes.
    let input = syscall(FCNTL, controller as usize, F_DUPFD_CLOEXEC, 3, 0, 0);
    if input < 0 {
        return input;
    }
    (*process).stdin = input as i32;
    // Not by its name: /dev/pts may be another one for the process.
    let terminal = ioctl(controller as i32, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if terminal >= 0 {
        *child = terminal as i32;
        *child.add(1) = terminal as i32;
        *child.add(2) = terminal as i32;
    }
    terminal
}

/// Sets the size; the kernel tells the foreground processes by SIGWINCH.
pub unsafe fn set_size(terminal: i32, rows: u16, cols: u16) -> isize {
    let size = Size {
        rows,
        cols,
        pixels: [0; 2],
    };
    ioctl(terminal, TIOCSWINSZ, &raw const size as usize)
}
