// The root file system, what every Linux userland expects inside it, and shares.

use crate::HOSTED;
use crate::kernel::*;
use crate::log;
use crate::memory::memcpy;
use crate::protocol;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

const PATH_BYTES: usize = MAX_PATH + 1;
const MAX_SHARES: usize = 32;
const VIRTIOFS: *const u8 = b"virtiofs\0" as *const u8;
const NONE: *const u8 = core::ptr::null();

static mut ROOT_MOUNTED: bool = false;
static mut ROOT_READ_ONLY: bool = false;
/// The paths of mounted shares, for unmounting them in reverse.
static mut SHARES: [[u8; PATH_BYTES]; MAX_SHARES] = [[0; PATH_BYTES]; MAX_SHARES];
static mut SHARE_COUNT: usize = 0;
static mut SCRATCH: [u8; PATH_BYTES + MAX_PATH] = [0; PATH_BYTES + MAX_PATH];

/// Whether paths lead into the root file system that the host has given.
pub unsafe fn has_root() -> bool {
    HOSTED || ROOT_MOUNTED
}

/// Serves MountRoot.
pub unsafe fn mount_root(id: u32, payload: *const u8, len: usize) {
    let end = text::string_end(payload, MOUNT_FIXED, len);
    if end == 0 || end != len || end - MOUNT_FIXED - 1 > MAX_TAG {
        protocol::fail_request(id, EPROTO);
        return;
    }
    if HOSTED {
        protocol::fail_request(id, EPERM);
        return;
    }
    if ROOT_MOUNTED {
        protocol::fail_request(id, EBUSY);
        return;
    }
    let tag = payload.add(MOUNT_FIXED);
    mkdir(b"/newroot\0" as *const u8, 0o755);
    let mut result = mount(tag, b"/newroot\0" as *const u8, VIRTIOFS, 0, NONE);
    if result < 0 {
        protocol::fail(id, result, STAGE_MOUNT, tag);
        return;
    }
    result = move_in();
    if result < 0 {
        protocol::fail(
            id,
            result,
            STAGE_MOUNT,
            b"moving into the root file system\0" as *const u8,
        );
        return;
    }
    ROOT_MOUNTED = true;
    furnish();
    if text::get_u32(payload.add(MOUNT_FLAGS)) & MOUNT_READ_ONLY != 0 {
        result = set_root_writable(false);
        if result < 0 {
            protocol::fail(id, result, STAGE_MOUNT, b"/ read-only\0" as *const u8);
            return;
        }
        ROOT_READ_ONLY = true;
    }
    protocol::mark(b"root mounted\0" as *const u8);
    protocol::done(id);
}

unsafe fn set_root_writable(writable: bool) -> isize {
    let flags = if writable {
        MS_REMOUNT | MS_BIND
    } else {
        MS_REMOUNT | MS_BIND | MS_RDONLY
    };
    mount(NONE, b"/\0" as *const u8, NONE, flags, NONE)
}

/// What is mounted before there is a root, and moves into it.
const MOVED_COUNT: usize = 4;
const MOVED: [*const u8; MOVED_COUNT] = [
    b"/newroot/proc\0" as *const u8,
    b"/newroot/sys\0" as *const u8,
    b"/newroot/dev\0" as *const u8,
    b"/newroot/run\0" as *const u8,
];
/// Bytes of `/newroot`.
const NEW_ROOT_LEN: usize = 8;

/// Makes `/newroot` the root, as switch_root does: the initramfs stays below it, empty and out of reach.
unsafe fn move_in() -> isize {
    let mut i = 0;
    while i < MOVED_COUNT {
        let result = move_mount(MOVED[i].add(NEW_ROOT_LEN), MOVED[i]);
        if result < 0 {
            return result;
        }
        i += 1;
    }
    let mut result = chdir(b"/newroot\0" as *const u8);
    if result >= 0 {
        result = mount(b".\0" as *const u8, b"/\0" as *const u8, NONE, MS_MOVE, NONE);
    }
    if result >= 0 {
        result = syscall(CHROOT, b".\0" as *const u8 as usize, 0, 0, 0, 0);
    }
    if result >= 0 {
        result = chdir(b"/\0" as *const u8);
    }
    result
}

unsafe fn move_mount(from: *const u8, to: *const u8) -> isize {
    let made = mkdir(to, 0o755);
    let result = mount(from, to, NONE, MS_MOVE, NONE);
    if result < 0 {
        log::note_about(
            b"cannot use mount point\0" as *const u8,
            to,
            if made < 0 { made } else { result },
        );
    }
    result
}

/// Everything a userland expects around its files, as far as it can be had before there is a root: what is done here is
/// in the snapshot that guests start from. `/proc`, `/sys` and `/dev` are there. What a kernel was built without is
/// noted, no more.
pub unsafe fn furnish_early() {
    let plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    let tmpfs = b"tmpfs\0" as *const u8;
    furnish_one(
        b"/dev/pts\0" as *const u8,
        b"devpts\0" as *const u8,
        MS_NOSUID | MS_NOEXEC,
        b"gid=5,mode=620,ptmxmode=666\0" as *const u8,
    );
    furnish_one(
        b"/dev/shm\0" as *const u8,
        tmpfs,
        MS_NOSUID | MS_NODEV,
        b"mode=1777\0" as *const u8,
    );
    furnish_one(
        b"/dev/mqueue\0" as *const u8,
        b"mqueue\0" as *const u8,
        plain,
        NONE,
    );
    furnish_one(
        b"/run\0" as *const u8,
        tmpfs,
        MS_NOSUID | MS_NODEV,
        b"mode=755\0" as *const u8,
    );
    furnish_one(
        b"/sys/fs/cgroup\0" as *const u8,
        b"cgroup2\0" as *const u8,
        plain,
        NONE,
    );
    symlink(b"/proc/self/fd\0" as *const u8, b"/dev/fd\0" as *const u8);
    symlink(b"/proc/self/fd/0\0" as *const u8, b"/dev/stdin\0" as *const u8);
    symlink(b"/proc/self/fd/1\0" as *const u8, b"/dev/stdout\0" as *const u8);
    symlink(b"/proc/self/fd/2\0" as *const u8, b"/dev/stderr\0" as *const u8);
}

/// The rest of it.
unsafe fn furnish() {
    // An image's own /tmp is left as it is.
    if mkdir(b"/tmp\0" as *const u8, 0o1777) >= 0 {
        chmod(b"/tmp\0" as *const u8, 0o1777);
    }
}

unsafe fn furnish_one(path: *const u8, kind: *const u8, flags: usize, options: *const u8) {
    mkdir(path, 0o755);
    let result = mount(kind, path, kind, flags, options);
    if result < 0 {
        log::note_about(b"cannot mount\0" as *const u8, path, result);
    }
}

/// Serves Mount.
pub unsafe fn mount_share(id: u32, payload: *const u8, len: usize) {
    let tag_end = text::string_end(payload, MOUNT_FIXED, len);
    let path_end = if tag_end == 0 {
        0
    } else {
        text::string_end(payload, tag_end, len)
    };
    let source_end = if path_end == 0 {
        0
    } else {
        text::string_end(payload, path_end, len)
    };
    if source_end == 0 || source_end != len {
        protocol::fail_request(id, EPROTO);
        return;
    }
    let tag = payload.add(MOUNT_FIXED);
    let path = payload.add(tag_end);
    let source = payload.add(path_end);
    let lengths_fit = tag_end - MOUNT_FIXED - 1 <= MAX_TAG
        && path_end - tag_end - 1 <= MAX_PATH
        && source_end - path_end - 1 <= MAX_PATH;
    if !lengths_fit || *path != b'/' {
        protocol::fail_request(id, EPROTO);
        return;
    }
    if HOSTED {
        protocol::fail_request(id, EPERM);
        return;
    }
    if SHARE_COUNT == MAX_SHARES {
        protocol::fail_request(id, EBUSY);
        return;
    }
    let mut flags = 0;
    if text::get_u32(payload.add(MOUNT_FLAGS)) & MOUNT_READ_ONLY != 0 {
        flags = MS_RDONLY;
    }
    // A missing mount point is made even in a root that is read-only for everybody else.
    if ROOT_READ_ONLY {
        set_root_writable(true);
    }
    let result = if *source == 0 {
        mount_whole(tag, path, flags)
    } else {
        mount_part(tag, path, source, flags)
    };
    if ROOT_READ_ONLY {
        set_root_writable(false);
    }
    if result < 0 {
        protocol::fail(id, result, STAGE_MOUNT, path);
        return;
    }
    let kept = &raw mut SHARES[SHARE_COUNT] as *mut u8;
    memcpy(kept, path, path_end - tag_end);
    SHARE_COUNT += 1;
    protocol::done(id);
}

unsafe fn mount_whole(tag: *const u8, path: *const u8, flags: usize) -> isize {
    make_directories(path);
    let result = mkdir(path, 0o755);
    if result < 0 && result != -EEXIST {
        return result;
    }
    mount(tag, path, VIRTIOFS, flags, NONE)
}

/// Mounts a file or directory of a share: the share at a place of its own, its part bound to the path, and
/// the place unmounted again; the binding keeps the share alive.
unsafe fn mount_part(tag: *const u8, path: *const u8, source: *const u8, flags: usize) -> isize {
    let place = b"/run/crumblecracker\0" as *const u8;
    mkdir(place, 0o700);
    let mut result = mount(tag, place, VIRTIOFS, flags, NONE);
    if result < 0 {
        return result;
    }
    let scratch = &raw mut SCRATCH as *mut u8;
    let capacity = PATH_BYTES + MAX_PATH;
    let mut len = text::append(scratch, 0, capacity, place);
    len = text::append(scratch, len, capacity, b"/\0" as *const u8);
    if text::append(scratch, len, capacity, source) < 0 {
        result = -ENAMETOOLONG;
    } else {
        result = bind(scratch, path);
    }
    unmount(place);
    result
}

unsafe fn bind(source: *const u8, path: *const u8) -> isize {
    make_directories(path);
    let directory = open(source, O_PATH | O_DIRECTORY);
    let result;
    if directory >= 0 {
        close(directory as i32);
        result = mkdir(path, 0o755);
    } else if directory == -ENOTDIR {
        result = open(path, O_WRONLY | O_CREAT);
        if result >= 0 {
            close(result as i32);
        }
    } else {
        return directory;
    }
    if result < 0 && result != -EEXIST {
        return result;
    }
    mount(source, path, NONE, MS_BIND, NONE)
}

/// Makes the directories above `path` as far as they are missing; whether that worked shows at the next step.
pub unsafe fn make_directories(path: *const u8) {
    let mut prefix: [u8; PATH_BYTES] = [0; PATH_BYTES];
    let to = &raw mut prefix as *mut u8;
    let mut i = 0;
    while *path.add(i) != 0 && i < MAX_PATH {
        if *path.add(i) == b'/' && i > 0 {
            mkdir(to, 0o755);
        }
        *to.add(i) = *path.add(i);
        i += 1;
    }
}

/// Unmounts the shares and makes the root read-only, before the power goes.
pub unsafe fn unmount_all() {
    while SHARE_COUNT > 0 {
        SHARE_COUNT -= 1;
        unmount(&raw const SHARES[SHARE_COUNT] as *const u8);
    }
    mount(NONE, b"/\0" as *const u8, NONE, MS_REMOUNT | MS_RDONLY, NONE);
}
