// From the kernel's first call to an open control channel.

use crate::configure;
use crate::freezer;
use crate::kernel::*;
use crate::log;
use crate::mounts;
use crate::syscall::*;
use crate::text;

const PORTS: *const u8 = b"/sys/class/virtio-ports\0" as *const u8;
const PORT_NAME: *const u8 = b"crumblecracker.control\n\0" as *const u8;
const NAME_BYTES: usize = 320;
const ORDER_BYTES: usize = 8192;
const ENTRIES_BYTES: usize = 4096;

static mut ORDER: [u8; ORDER_BYTES] = [0; ORDER_BYTES];
static mut ENTRIES: [u8; ENTRIES_BYTES] = [0; ENTRIES_BYTES];

/// Takes over an inherited control descriptor.
pub unsafe fn adopt(control: i32) {
    reset_signals();
    hold_standard_descriptors(b"/dev/null\0" as *const u8);
    let result = set_cloexec(control);
    if result < 0 {
        log::note(b"--control-fd names no open descriptor\0" as *const u8, result);
        exit(125);
    }
    set_nonblocking(control);
}

/// Makes the machine usable: kernel file systems, log, limits, modules.
pub unsafe fn prepare() {
    mount_at(
        b"/proc\0" as *const u8,
        b"proc\0" as *const u8,
        MS_NOSUID | MS_NODEV | MS_NOEXEC,
    );
    mount_at(
        b"/sys\0" as *const u8,
        b"sysfs\0" as *const u8,
        MS_NOSUID | MS_NODEV | MS_NOEXEC,
    );
    mount_at(b"/dev\0" as *const u8, b"devtmpfs\0" as *const u8, MS_NOSUID);
    hold_standard_descriptors(b"/dev/console\0" as *const u8);
    log::use_kernel_log();
    raise_open_files();
    load_modules();
    mounts::furnish_early();
    freezer::prepare();
    configure::raise_loopback();
    // The program runs on from memory; its file would only take more of it.
    unlink(b"/init\0" as *const u8);
}

unsafe fn mount_at(path: *const u8, kind: *const u8, flags: usize) {
    mkdir(path, 0o755);
    let result = mount(kind, path, kind, flags, core::ptr::null());
    if result < 0 && result != -EBUSY {
        log::note_about(b"cannot mount\0" as *const u8, path, result);
    }
}

/// Sees to it that 0, 1 and 2 are open, so that no other descriptor of this program ever has such a number.
unsafe fn hold_standard_descriptors(path: *const u8) {
    loop {
        let mut fd = open(path, O_RDWR | O_NOCTTY);
        if fd < 0 {
            fd = open(b"/dev/null\0" as *const u8, O_RDWR);
        }
        if fd < 0 {
            // There is nothing to hold them with, and nobody to tell.
            return;
        }
        if fd > 2 {
            close(fd as i32);
            return;
        }
    }
}

/// Open files as systemd gives them to services: few by default, for programs that walk all numbers, and
/// room for those that ask.
unsafe fn raise_open_files() {
    const RLIMIT_NOFILE: usize = 7;
    let limits: [u64; 2] = [1024, 524_288];
    syscall(PRLIMIT64, 0, RLIMIT_NOFILE, &raw const limits as usize, 0, 0);
}

/// Loads the modules that `/modules/order` names, one a line.
unsafe fn load_modules() {
    let order = &raw mut ORDER as *mut u8;
    let len = read_file(b"/modules/order\0" as *const u8, order, ORDER_BYTES - 1);
    if len <= 0 {
        return;
    }
    let mut start = 0;
    let mut i = 0;
    while i < len as usize {
        if *order.add(i) == b'\n' {
            *order.add(i) = 0;
            load_module(order.add(start));
            start = i + 1;
        }
        i += 1;
    }
    unlink(b"/modules/order\0" as *const u8);
}

unsafe fn load_module(name: *const u8) {
    let mut path: [u8; NAME_BYTES] = [0; NAME_BYTES];
    let to = &raw mut path as *mut u8;
    let len = text::append(to, 0, NAME_BYTES, b"/modules/\0" as *const u8);
    if text::append(to, len, NAME_BYTES, name) < 0 {
        log::note_about(b"module name too long:\0" as *const u8, name, 0);
        return;
    }
    let mut result = open(to, O_RDONLY);
    if result >= 0 {
        let fd = result as i32;
        result = syscall(FINIT_MODULE, fd as usize, b"\0" as *const u8 as usize, 0, 0, 0);
        close(fd);
    }
    if result < 0 && result != -EEXIST {
        log::note_about(b"cannot load module\0" as *const u8, name, result);
    }
    // The kernel has its own copy now.
    unlink(to);
}

/// Waits for the port and opens it. Its device may appear any time after boot; without it there is nobody to
/// talk to, so the wait has no end, but says what it waits for.
pub unsafe fn find_control_port() -> i32 {
    let mut slept_us: i64 = 0;
    let mut said = false;
    loop {
        let fd = open_named_port();
        if fd >= 0 {
            return fd as i32;
        }
        // Short at first: every boot passes here.
        let pause = if slept_us < 100_000 { 500 } else { 10_000 };
        sleep_us(pause);
        slept_us += pause;
        if slept_us > 5_000_000 && !said {
            said = true;
            log::note(b"still no virtio port crumblecracker.control\0" as *const u8, fd);
        }
    }
}

/// Looks through all ports once: the open descriptor, or why there is none.
unsafe fn open_named_port() -> isize {
    let directory = open(PORTS, O_RDONLY | O_DIRECTORY);
    if directory < 0 {
        return directory;
    }
    let entries = &raw mut ENTRIES as *mut u8;
    let mut found = -ENOENT;
    while found < 0 {
        let n = syscall(
            GETDENTS64,
            directory as usize,
            entries as usize,
            ENTRIES_BYTES,
            0,
            0,
        );
        if n <= 0 {
            break;
        }
        let mut at = 0;
        while at < n as usize && found < 0 {
            // struct linux_dirent64: u64 inode, u64 offset, u16 record length, u8 type, name.
            let entry = entries.add(at);
            let name = entry.add(19);
            if *name != b'.' && is_control_port(name) {
                found = open_device(name);
            }
            at += text::get_u16(entry.add(16)) as usize;
        }
    }
    close(directory as i32);
    found
}

unsafe fn is_control_port(device: *const u8) -> bool {
    let mut path: [u8; NAME_BYTES] = [0; NAME_BYTES];
    let mut name: [u8; 64] = [0; 64];
    let to = &raw mut path as *mut u8;
    let mut len = text::append(to, 0, NAME_BYTES, PORTS);
    len = text::append(to, len, NAME_BYTES, b"/\0" as *const u8);
    len = text::append(to, len, NAME_BYTES, device);
    if text::append(to, len, NAME_BYTES, b"/name\0" as *const u8) < 0 {
        return false;
    }
    read_file(to, &raw mut name as *mut u8, 63) > 0 && text::equal(&raw const name as *const u8, PORT_NAME)
}

unsafe fn open_device(device: *const u8) -> isize {
    let mut path: [u8; NAME_BYTES] = [0; NAME_BYTES];
    let to = &raw mut path as *mut u8;
    let len = text::append(to, 0, NAME_BYTES, b"/dev/\0" as *const u8);
    if text::append(to, len, NAME_BYTES, device) < 0 {
        return -ENAMETOOLONG;
    }
    open(to, O_RDWR | O_NONBLOCK)
}
