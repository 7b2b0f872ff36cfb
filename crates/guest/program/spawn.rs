// The child's way from fork to its program. Nothing here returns, and nothing touches the channel.

use crate::exec::*;
use crate::kernel::*;
use crate::mounts::make_directories;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

const CANDIDATE_BYTES: usize = MAX_PATH + 1;
const DEFAULT_PATH: *const u8 =
    b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0" as *const u8;

static mut CANDIDATE: [u8; CANDIDATE_BYTES] = [0; CANDIDATE_BYTES];

/// Turns the child into the program, or reports why not and exits. `stdio` has three descriptors.
pub unsafe fn become_program(stdio: *const i32, report: i32) -> ! {
    set_signal_mask(0);
    syscall(SETSID, 0, 0, 0, 0, 0);
    syscall(UMASK, 0o022, 0, 0, 0, 0);
    take_stdio(stdio, report);
    enter_directory(report);
    take_identity(report);
    // Whatever whoever started this program left open for it is not for its commands.
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    syscall(CLOSE_RANGE, 3, 0xffff_ffff, CLOSE_RANGE_CLOEXEC, 0, 0);
    let error = search_and_execute();
    give_up(report, error, STAGE_EXEC);
}

unsafe fn give_up(report: i32, error: isize, stage: u32) -> ! {
    let words: [u32; 2] = [-error as u32, stage];
    write(report, &raw const words as *const u8, 8);
    exit(127);
}

/// Puts the streams where a program expects them. They belong to its user, because programs open them again
/// as `/dev/stdout` and the like.
unsafe fn take_stdio(stdio: *const i32, report: i32) {
    let mut i = 0;
    while i < 3 {
        let result = dup_to(*stdio.add(i), i);
        if result < 0 {
            give_up(report, result, STAGE_STDIO);
        }
        i += 1;
    }
    let streams = [EXEC_STDIN, EXEC_STDOUT, EXEC_STDERR];
    let tty = PROGRAM.flags & EXEC_TTY != 0;
    i = 0;
    while i < 3 {
        // Never `/dev/null`, which is everybody's.
        if tty || PROGRAM.flags & streams[i] != 0 {
            syscall(FCHOWN, i, PROGRAM.uid as usize, -1isize as usize, 0, 0);
        }
        i += 1;
    }
    if tty {
        let result = ioctl(0, TIOCSCTTY, 0);
        if result < 0 {
            give_up(report, result, STAGE_STDIO);
        }
    }
}

/// While still root: an image's working directory may be closed to its user.
unsafe fn enter_directory(report: i32) {
    let mut cwd = PROGRAM.cwd;
    if *cwd == 0 {
        cwd = b"/\0" as *const u8;
    }
    let mut result = chdir(cwd);
    if result == -ENOENT && PROGRAM.flags & EXEC_CREATE_CWD != 0 {
        make_directories(cwd);
        result = mkdir(cwd, 0o755);
        if result >= 0 || result == -EEXIST {
            result = chdir(cwd);
        }
    }
    if result < 0 {
        give_up(report, result, STAGE_CWD);
    }
}

unsafe fn take_identity(report: i32) {
    let uid = PROGRAM.uid as usize;
    let gid = PROGRAM.gid as usize;
    let mut result = syscall(
        SETGROUPS,
        PROGRAM.group_count,
        &raw const GROUPS as usize,
        0,
        0,
        0,
    );
    if result >= 0 {
        result = syscall(SETRESGID, gid, gid, gid, 0, 0);
    }
    if result >= 0 {
        result = syscall(SETRESUID, uid, uid, uid, 0, 0);
    }
    if result < 0 {
        give_up(report, result, STAGE_CREDENTIALS);
    }
}

/// As execvpe(3) searches, with the command's own `PATH`: a file that may not be executed is passed over but
/// remembered. Unlike execvpe, a file of unknown format is not given to a shell: that would hide a program
/// for another architecture behind a shell's syntax error. Returns why nothing was executed.
unsafe fn search_and_execute() -> isize {
    let name = ARGUMENTS[0];
    if *name == 0 {
        return -ENOENT;
    }
    if text::contains(name, b'/') {
        return execute(name);
    }
    let env = &raw const ENVIRONMENT as *const *const u8;
    let mut path = text::variable(env, PROGRAM.env_count, b"PATH\0" as *const u8);
    if path as usize == 0 {
        path = DEFAULT_PATH;
    }
    let candidate = &raw mut CANDIDATE as *mut u8;
    let mut denied = false;
    let mut offset: isize = 0;
    while offset >= 0 {
        offset = text::path_candidate(path, offset as usize, name, candidate, CANDIDATE_BYTES);
        if *candidate == 0 {
            continue;
        }
        let error = execute(candidate);
        if error == -EACCES {
            denied = true;
        } else if error != -ENOENT && error != -ENOTDIR {
            return error;
        }
    }
    if denied { -EACCES } else { -ENOENT }
}

unsafe fn execute(path: *const u8) -> isize {
    syscall(
        EXECVE,
        path as usize,
        &raw const ARGUMENTS as usize,
        &raw const ENVIRONMENT as usize,
        0,
        0,
    )
}
