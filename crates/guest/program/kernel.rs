// System calls by name, and the numbers and layouts of Linux that do not differ between architectures.

use crate::syscall::*;

pub const EPERM: isize = 1;
pub const ENOENT: isize = 2;
pub const ESRCH: isize = 3;
pub const EINTR: isize = 4;
pub const EIO: isize = 5;
pub const E2BIG: isize = 7;
pub const EBADF: isize = 9;
pub const EAGAIN: isize = 11;
pub const EACCES: isize = 13;
pub const EBUSY: isize = 16;
pub const EEXIST: isize = 17;
pub const ENOTDIR: isize = 20;
pub const EINVAL: isize = 22;
pub const EMFILE: isize = 24;
pub const ENAMETOOLONG: isize = 36;
pub const ENOSYS: isize = 38;
pub const EPROTO: isize = 71;
pub const EPROTONOSUPPORT: isize = 93;

pub const O_RDONLY: usize = 0;
pub const O_WRONLY: usize = 1;
pub const O_RDWR: usize = 2;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_NOCTTY: usize = 0o400;
pub const O_TRUNC: usize = 0o1000;
pub const O_APPEND: usize = 0o2000;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_PATH: usize = 0o10000000;

pub const MS_RDONLY: usize = 1;
pub const MS_NOSUID: usize = 2;
pub const MS_NODEV: usize = 4;
pub const MS_NOEXEC: usize = 8;
pub const MS_REMOUNT: usize = 32;
pub const MS_BIND: usize = 4096;
pub const MS_MOVE: usize = 8192;
pub const MNT_DETACH: usize = 2;

pub const POLLIN: i16 = 1;
pub const POLLOUT: i16 = 4;
pub const POLLERR: i16 = 8;
pub const POLLHUP: i16 = 16;

pub const SIGKILL: usize = 9;
pub const SIGTERM: usize = 15;
pub const SIGCHLD: usize = 17;

pub const TIOCSCTTY: usize = 0x540e;
pub const TIOCSWINSZ: usize = 0x5414;
pub const FIONREAD: usize = 0x541b;

pub const AT_FDCWD: isize = -100;
const SIGSET_BYTES: usize = 8;
const CLOCK_REALTIME: usize = 0;
const CLOCK_BOOTTIME: usize = 7;
const NS: u64 = 1_000_000_000;

#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

#[repr(C)]
pub struct Timespec {
    pub seconds: i64,
    pub ns: i64,
}

#[repr(C)]
pub struct Rusage {
    pub user_seconds: i64,
    pub user_us: i64,
    pub system_seconds: i64,
    pub system_us: i64,
    pub max_rss_kib: i64,
    pub rest: [i64; 13],
}

pub unsafe fn open(path: *const u8, flags: usize) -> isize {
    syscall(OPENAT, AT_FDCWD as usize, path as usize, flags | O_CLOEXEC, 0o644, 0)
}

/// Opens what is in the folder `folder`.
pub unsafe fn open_in(folder: i32, name: *const u8, flags: usize) -> isize {
    syscall(OPENAT, folder as usize, name as usize, flags | O_CLOEXEC, 0o644, 0)
}

pub unsafe fn close(fd: i32) {
    if fd >= 0 {
        syscall(CLOSE, fd as usize, 0, 0, 0, 0);
    }
}

pub unsafe fn read(fd: i32, to: *mut u8, len: usize) -> isize {
    loop {
        let n = syscall(READ, fd as usize, to as usize, len, 0, 0);
        if n != -EINTR {
            return n;
        }
    }
}

pub unsafe fn write(fd: i32, from: *const u8, len: usize) -> isize {
    loop {
        let n = syscall(WRITE, fd as usize, from as usize, len, 0, 0);
        if n != -EINTR {
            return n;
        }
    }
}

/// Reads up to `len` bytes of a small file.
pub unsafe fn read_file(path: *const u8, to: *mut u8, len: usize) -> isize {
    let fd = open(path, O_RDONLY);
    if fd < 0 {
        return fd;
    }
    let n = read(fd as i32, to, len);
    close(fd as i32);
    n
}

pub unsafe fn ioctl(fd: i32, request: usize, argument: usize) -> isize {
    syscall(IOCTL, fd as usize, request, argument, 0, 0)
}

/// `pipe2` with close-on-exec; `fds` gets the read end, then the write end.
pub unsafe fn pipe(fds: *mut i32) -> isize {
    syscall(PIPE2, fds as usize, O_CLOEXEC, 0, 0, 0)
}

/// A pair of connected sockets whose messages arrive as they were sent, with close-on-exec.
pub unsafe fn message_sockets(fds: *mut i32) -> isize {
    const AF_UNIX: usize = 1;
    const SOCK_SEQPACKET: usize = 5;
    syscall(SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET | O_CLOEXEC, 0, fds as usize, 0)
}

/// Duplicates onto a number below 3, which stays open across exec.
pub unsafe fn dup_to(fd: i32, to: usize) -> isize {
    syscall(DUP3, fd as usize, to, 0, 0, 0)
}

pub unsafe fn set_nonblocking(fd: i32) -> isize {
    const F_GETFL: usize = 3;
    const F_SETFL: usize = 4;
    let flags = syscall(FCNTL, fd as usize, F_GETFL, 0, 0, 0);
    if flags < 0 {
        return flags;
    }
    syscall(FCNTL, fd as usize, F_SETFL, flags as usize | O_NONBLOCK, 0, 0)
}

pub unsafe fn set_cloexec(fd: i32) -> isize {
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    syscall(FCNTL, fd as usize, F_SETFD, FD_CLOEXEC, 0, 0)
}

pub unsafe fn mkdir(path: *const u8, mode: usize) -> isize {
    syscall(MKDIRAT, AT_FDCWD as usize, path as usize, mode, 0, 0)
}

pub unsafe fn chmod(path: *const u8, mode: usize) -> isize {
    syscall(FCHMODAT, AT_FDCWD as usize, path as usize, mode, 0, 0)
}

pub unsafe fn unlink(path: *const u8) -> isize {
    syscall(UNLINKAT, AT_FDCWD as usize, path as usize, 0, 0, 0)
}

pub unsafe fn symlink(target: *const u8, path: *const u8) -> isize {
    syscall(SYMLINKAT, target as usize, AT_FDCWD as usize, path as usize, 0, 0)
}

pub unsafe fn mount(
    source: *const u8,
    target: *const u8,
    kind: *const u8,
    flags: usize,
    data: *const u8,
) -> isize {
    syscall(
        MOUNT,
        source as usize,
        target as usize,
        kind as usize,
        flags,
        data as usize,
    )
}

pub unsafe fn unmount(target: *const u8) -> isize {
    syscall(UMOUNT2, target as usize, MNT_DETACH, 0, 0, 0)
}

pub unsafe fn chdir(path: *const u8) -> isize {
    syscall(CHDIR, path as usize, 0, 0, 0, 0)
}

pub unsafe fn getpid() -> isize {
    syscall(GETPID, 0, 0, 0, 0, 0)
}

/// `fork`: 0 in the child.
pub unsafe fn fork() -> isize {
    syscall(CLONE, SIGCHLD, 0, 0, 0, 0)
}

/// `fork` into the control group whose folder `group` is: 0 in the child (clone(2), "clone3").
pub unsafe fn fork_into(group: i32) -> isize {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// struct clone_args, of which the others are zero.
    const WORDS: usize = 11;
    let mut arguments: [u64; WORDS] = [0; WORDS];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = SIGCHLD as u64;
    arguments[10] = group as u64;
    syscall(CLONE3, &raw const arguments as usize, WORDS * 8, 0, 0, 0)
}

pub unsafe fn exit(code: usize) -> ! {
    loop {
        syscall(EXIT_GROUP, code, 0, 0, 0, 0);
    }
}

pub unsafe fn kill(pid: isize, signal: usize) -> isize {
    syscall(KILL, pid as usize, signal, 0, 0, 0)
}

/// Reaps one child that has ended: its pid, 0 if none has, -ECHILD if there is none at all.
pub unsafe fn reap_any(status: *mut i32, usage: *mut Rusage) -> isize {
    const WNOHANG: usize = 1;
    syscall(
        WAIT4,
        -1isize as usize,
        status as usize,
        WNOHANG,
        usage as usize,
        0,
    )
}

/// Blocks every signal: children are heard of through a signalfd, and nothing else may disturb.
pub unsafe fn block_signals() {
    set_signal_mask(!0);
}

/// Gives every signal its default meaning, which exec keeps: whoever started this program may have ignored
/// some, and ignored signals are inherited too.
pub unsafe fn reset_signals() {
    // struct sigaction of the kernel: handler SIG_DFL, flags, restorer, mask.
    let default: [u64; 4] = [0; 4];
    let mut signal = 1;
    while signal <= 64 {
        syscall(
            RT_SIGACTION,
            signal,
            &raw const default as usize,
            0,
            SIGSET_BYTES,
            0,
        );
        signal += 1;
    }
}

pub unsafe fn set_signal_mask(mask: u64) {
    const SIG_SETMASK: usize = 2;
    syscall(
        RT_SIGPROCMASK,
        SIG_SETMASK,
        &raw const mask as usize,
        0,
        SIGSET_BYTES,
        0,
    );
}

/// A descriptor that is readable when a child has ended.
pub unsafe fn child_signals() -> isize {
    let mask: u64 = 1 << (SIGCHLD - 1);
    syscall(
        SIGNALFD4,
        -1isize as usize,
        &raw const mask as usize,
        SIGSET_BYTES,
        O_CLOEXEC | O_NONBLOCK,
        0,
    )
}

/// Waits for one of `count` descriptors, at most `timeout_ms`, or for ever if that is negative.
pub unsafe fn poll(fds: *mut PollFd, count: usize, timeout_ms: i64) -> isize {
    let time = Timespec {
        seconds: timeout_ms / 1000,
        ns: timeout_ms % 1000 * 1_000_000,
    };
    let time_pointer = if timeout_ms < 0 {
        0
    } else {
        &raw const time as usize
    };
    syscall(PPOLL, fds as usize, count, time_pointer, 0, 0)
}

pub unsafe fn sleep_us(us: i64) {
    let time = Timespec {
        seconds: us / 1_000_000,
        ns: us % 1_000_000 * 1000,
    };
    syscall(NANOSLEEP, &raw const time as usize, 0, 0, 0, 0);
}

/// Time since boot, suspend included, in ns.
pub unsafe fn now_ns() -> u64 {
    let mut time = Timespec { seconds: 0, ns: 0 };
    syscall(CLOCK_GETTIME, CLOCK_BOOTTIME, &raw mut time as usize, 0, 0, 0);
    time.seconds as u64 * NS + time.ns as u64
}

pub unsafe fn set_clock(ns: u64) -> isize {
    let time = Timespec {
        seconds: (ns / NS) as i64,
        ns: (ns % NS) as i64,
    };
    syscall(CLOCK_SETTIME, CLOCK_REALTIME, &raw const time as usize, 0, 0, 0)
}
