// The numbers of the control channel, and nothing else: constants and simple functions on integers, so that
// the freestanding guest program includes this very file with `#[path]` and cannot drift from the host.
//
// Every integer is little endian. Strings inside a payload end in one NUL byte, so that the guest can hand
// them to the kernel where they lie. Offsets are from the start of the payload.

/// The oldest version of this protocol that this source speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of this protocol that this source speaks.
pub const VERSION_MAX: u16 = 1;

/// `CRKR`: the first four bytes of a Hello payload.
pub const MAGIC: u32 = u32::from_le_bytes(*b"CRKR");

/// A frame's header: `u32` payload length, `u16` kind, `u8` stream, `u8` zero, `u32` id.
pub const HEADER_LEN: usize = 12;
/// Offset of the payload length in the header.
pub const HEADER_PAYLOAD_LEN: usize = 0;
/// Offset of the kind in the header.
pub const HEADER_KIND: usize = 4;
/// Offset of the stream number in the header.
pub const HEADER_STREAM: usize = 6;
/// Offset of a byte that is zero.
pub const HEADER_ZERO: usize = 7;
/// Offset of the request or process id in the header.
pub const HEADER_ID: usize = 8;

/// The longest payload of any frame, in bytes. Only Exec comes near it.
pub const MAX_PAYLOAD: usize = 256 * 1024;
/// The longest payload of a Data frame: what Linux's virtio-console driver writes in one go.
pub const MAX_DATA: usize = 32 * 1024;
/// The bytes a sender may send on a fresh stream before the receiver grants more.
pub const INITIAL_CREDIT: u32 = 64 * 1024;
/// The most credit a stream may ever hold, in bytes; grants beyond it break the protocol.
pub const MAX_CREDIT: u32 = 1 << 30;

/// The stream a process reads.
pub const STDIN: u8 = 0;
/// The stream a process writes; with a terminal, all that it writes.
pub const STDOUT: u8 = 1;
/// The stream a process writes errors to; unused with a terminal.
pub const STDERR: u8 = 2;

// Kinds, host to guest. 0x0040..=0x00ff are kept for network operations.
/// Hostname, wall clock and entropy; version agreed on.
pub const KIND_CONFIGURE: u16 = 0x0001;
/// Mount the root file system and move into it.
pub const KIND_MOUNT_ROOT: u16 = 0x0002;
/// Mount a share.
pub const KIND_MOUNT: u16 = 0x0003;
/// Start a process.
pub const KIND_EXEC: u16 = 0x0004;
/// Send a signal to a process group.
pub const KIND_SIGNAL: u16 = 0x0005;
/// Set the size of a process's terminal.
pub const KIND_WINDOW_SIZE: u16 = 0x0006;
/// Write all file systems back.
pub const KIND_SYNC: u16 = 0x0007;
/// End everything and power off or restart.
pub const KIND_SHUTDOWN: u16 = 0x0008;
/// Ask for a Done.
pub const KIND_PING: u16 = 0x0009;
/// Stop all commands.
pub const KIND_FREEZE: u16 = 0x000a;
/// Let them go on.
pub const KIND_THAW: u16 = 0x000b;
/// An operation on files.
pub const KIND_FILE: u16 = 0x0020;
/// Close a file.
pub const KIND_FILE_CLOSE: u16 = 0x0021;

// Kinds, both ways.
/// Bytes of a stream.
pub const KIND_DATA: u16 = 0x0101;
/// From a stream's sender: no more bytes.
pub const KIND_EOF: u16 = 0x0102;
/// From a stream's receiver: nobody reads any more.
pub const KIND_CLOSE: u16 = 0x0103;
/// From a stream's receiver: so many more bytes may be sent.
pub const KIND_CREDIT: u16 = 0x0104;

// Kinds, guest to host. 0x0240..=0x02ff are kept for network operations.
/// The guest is there.
pub const KIND_HELLO: u16 = 0x0201;
/// A request was done.
pub const KIND_DONE: u16 = 0x0202;
/// A request failed.
pub const KIND_FAILED: u16 = 0x0203;
/// A process runs its program.
pub const KIND_STARTED: u16 = 0x0204;
/// A process could not be started.
pub const KIND_EXEC_FAILED: u16 = 0x0205;
/// A process ended.
pub const KIND_EXITED: u16 = 0x0206;
/// All that an ended process itself wrote to a stream has been sent.
pub const KIND_DRAINED: u16 = 0x0207;
/// A point of the guest's timeline.
pub const KIND_MARK: u16 = 0x0208;
/// A file operation is done and gives bytes.
pub const KIND_FILE_DATA: u16 = 0x0220;
/// A file operation is done and gives what is known about a file.
pub const KIND_FILE_METADATA: u16 = 0x0221;
/// A file operation is done and wrote so many bytes.
pub const KIND_FILE_WRITTEN: u16 = 0x0222;

// Hello: `u32` magic, `u16` oldest and `u16` newest version, `u16` architecture, `u16` flags, `u32` process
// slots, 16 bytes boot id, `u64` ns of program start, `u64` ns of Hello, then the kernel release.
/// Offset of the magic number.
pub const HELLO_MAGIC: usize = 0;
/// Offset of the oldest version spoken.
pub const HELLO_VERSION_MIN: usize = 4;
/// Offset of the newest version spoken.
pub const HELLO_VERSION_MAX: usize = 6;
/// Offset of the architecture.
pub const HELLO_ARCH: usize = 8;
/// Offset of the flags.
pub const HELLO_FLAGS: usize = 10;
/// Offset of the number of processes the guest program can hold at once.
pub const HELLO_SLOTS: usize = 12;
/// Offset of the kernel's boot id, 16 bytes.
pub const HELLO_BOOT_ID: usize = 16;
/// Offset of the time the guest program started, in ns of `CLOCK_BOOTTIME`.
pub const HELLO_START_NS: usize = 32;
/// Offset of the time Hello was written, in ns of `CLOCK_BOOTTIME`.
pub const HELLO_NOW_NS: usize = 40;
/// Length of the fixed part; the kernel release follows to the end of the payload.
pub const HELLO_FIXED: usize = 48;
/// The longest kernel release, in bytes (`__NEW_UTS_LEN`).
pub const MAX_RELEASE: usize = 64;
/// Hello flag: the program was started with `--control-fd` and leaves the machine alone.
pub const HELLO_HOSTED: u16 = 1;
/// x86-64.
pub const ARCH_AMD64: u16 = 1;
/// AArch64.
pub const ARCH_ARM64: u16 = 2;
/// 64-bit RISC-V.
pub const ARCH_RISCV64: u16 = 3;

// Configure: `u16` version, `u16` zero, `u32` entropy length, `u64` wall clock, hostname string, entropy.
/// Offset of the version the host chose.
pub const CONFIGURE_VERSION: usize = 0;
/// Offset of the number of entropy bytes at the end.
pub const CONFIGURE_ENTROPY_LEN: usize = 4;
/// Offset of the wall clock, in ns since 1970; zero leaves the guest's clock alone.
pub const CONFIGURE_CLOCK: usize = 8;
/// Length of the fixed part.
pub const CONFIGURE_FIXED: usize = 16;
/// The longest entropy seed, in bytes.
pub const MAX_ENTROPY: usize = 512;
/// The longest hostname, in bytes (`__NEW_UTS_LEN`).
pub const MAX_HOSTNAME: usize = 64;

// MountRoot: `u32` flags, tag string. Mount: `u32` flags, tag, path and source strings.
/// Offset of the flags of MountRoot and Mount.
pub const MOUNT_FLAGS: usize = 0;
/// Length of the fixed part of MountRoot and Mount.
pub const MOUNT_FIXED: usize = 4;
/// Mount flag: read-only.
pub const MOUNT_READ_ONLY: u32 = 1;
/// The longest virtio-fs tag, in bytes (virtio 1.2, 5.11.4).
pub const MAX_TAG: usize = 36;
/// The longest path, in bytes, without its NUL (`PATH_MAX` - 1).
pub const MAX_PATH: usize = 4095;

// Exec: `u32` flags, uid and gid, `u16` rows and columns, `u32` counts of groups, arguments and variables;
// then the groups (`u32` each), the working directory, the arguments and the variables (strings).
/// Offset of the flags.
pub const EXEC_FLAGS: usize = 0;
/// Offset of the user id.
pub const EXEC_UID: usize = 4;
/// Offset of the group id.
pub const EXEC_GID: usize = 8;
/// Offset of the terminal's rows.
pub const EXEC_ROWS: usize = 12;
/// Offset of the terminal's columns.
pub const EXEC_COLS: usize = 14;
/// Offset of the number of supplementary groups.
pub const EXEC_GROUP_COUNT: usize = 16;
/// Offset of the number of arguments, the program's name among them.
pub const EXEC_ARG_COUNT: usize = 20;
/// Offset of the number of environment variables.
pub const EXEC_ENV_COUNT: usize = 24;
/// Length of the fixed part.
pub const EXEC_FIXED: usize = 28;
/// Exec flag: the process has a stdin stream; without it stdin is `/dev/null`.
pub const EXEC_STDIN: u32 = 1;
/// Exec flag: the process has a stdout stream; without it stdout is `/dev/null`.
pub const EXEC_STDOUT: u32 = 2;
/// Exec flag: the process has a stderr stream; without it stderr is `/dev/null`.
pub const EXEC_STDERR: u32 = 4;
/// Exec flag: stdin, stdout and stderr are one controlling terminal; the three flags above are ignored.
pub const EXEC_TTY: u32 = 8;
/// Exec flag: a missing working directory is made first, as Docker does for an image's `WORKDIR`.
pub const EXEC_CREATE_CWD: u32 = 16;
/// The most supplementary groups.
pub const MAX_GROUPS: u32 = 256;
/// The most arguments, and the most environment variables.
pub const MAX_STRINGS: u32 = 8192;
/// The most processes at once.
pub const MAX_PROCESSES: u32 = 64;

// Signal: `u32` number. WindowSize: `u16` rows, `u16` columns. Credit: `u32` bytes. Started: `u32` pid.
/// Length of a Signal payload.
pub const SIGNAL_LEN: usize = 4;
/// Length of a WindowSize payload.
pub const WINDOW_SIZE_LEN: usize = 4;
/// Length of a Credit payload.
pub const CREDIT_LEN: usize = 4;
/// Length of a Started payload.
pub const STARTED_LEN: usize = 4;
/// The highest signal number (`_NSIG` of Linux).
pub const MAX_SIGNAL: u32 = 64;

// Shutdown: `u32` action, `u32` grace in ms.
/// Offset of the action.
pub const SHUTDOWN_ACTION: usize = 0;
/// Offset of the time between SIGTERM and SIGKILL, in ms.
pub const SHUTDOWN_GRACE: usize = 4;
/// Length of a Shutdown payload.
pub const SHUTDOWN_LEN: usize = 8;
/// Shutdown action: power off.
pub const SHUTDOWN_POWER_OFF: u32 = 0;
/// Shutdown action: restart.
pub const SHUTDOWN_RESTART: u32 = 1;
/// The longest grace, in ms.
pub const MAX_GRACE_MS: u32 = 60_000;

// Failed: `u32` errno, `u32` stage, text to the end. ExecFailed: the same without text.
/// Offset of the errno, as Linux numbers them.
pub const FAILED_ERRNO: usize = 0;
/// Offset of the stage.
pub const FAILED_STAGE: usize = 4;
/// Length of the fixed part.
pub const FAILED_FIXED: usize = 8;
/// The longest text of a Failed or Mark, in bytes.
pub const MAX_TEXT: usize = 256;
/// Stage: the request itself was not understood, or not allowed now.
pub const STAGE_REQUEST: u32 = 1;
/// Stage: the version asked for.
pub const STAGE_VERSION: u32 = 2;
/// Stage: a mount, or the making of its mount point.
pub const STAGE_MOUNT: u32 = 3;
/// Stage: hostname, clock or entropy.
pub const STAGE_CONFIGURE: u32 = 4;
/// Stage: all process slots are taken, or the id is.
pub const STAGE_SLOT: u32 = 5;
/// Stage: pipes or terminal.
pub const STAGE_STDIO: u32 = 6;
/// Stage: fork.
pub const STAGE_FORK: u32 = 7;
/// Stage: the working directory.
pub const STAGE_CWD: u32 = 8;
/// Stage: user and group ids.
pub const STAGE_CREDENTIALS: u32 = 9;
/// Stage: finding and executing the program.
pub const STAGE_EXEC: u32 = 10;
/// Stage: the file operation itself.
pub const STAGE_FILE: u32 = 11;

// Exited: `u8` how, `u8` code or signal, `u8` undrained streams, `u8` core dumped, `u32` zero, `u64` user and
// system time in µs, `u64` peak resident set in KiB.
/// Offset of how it ended.
pub const EXITED_HOW: usize = 0;
/// Offset of the exit code or signal number.
pub const EXITED_CODE: usize = 1;
/// Offset of the bits `1 << stream` of streams that wait for credit.
pub const EXITED_UNDRAINED: usize = 2;
/// Offset of whether the kernel wrote a core.
pub const EXITED_CORE: usize = 3;
/// Offset of the user time.
pub const EXITED_USER_US: usize = 8;
/// Offset of the system time.
pub const EXITED_SYSTEM_US: usize = 16;
/// Offset of the peak resident set size.
pub const EXITED_MAX_RSS: usize = 24;
/// Length of an Exited payload.
pub const EXITED_LEN: usize = 32;
/// How: it exited with a code.
pub const EXITED_BY_CODE: u8 = 0;
/// How: a signal ended it.
pub const EXITED_BY_SIGNAL: u8 = 1;

// File: `u32` operation, `u32` flags, `u32` file, `u32` number, `u64` first and `u64` second value; then
// strings or data to the end. What an operation does not use is zero. `file` is an open file, or for an
// operation with a path the open directory a relative path starts from, where zero is the root; an empty path
// is that open file itself, where the operation can be done to one.
/// Offset of the operation.
pub const FILE_OPERATION: usize = 0;
/// Offset of the flags.
pub const FILE_FLAGS: usize = 4;
/// Offset of the open file or directory.
pub const FILE_FILE: usize = 8;
/// Offset of the number: a length, a mode or a user id.
pub const FILE_NUMBER: usize = 12;
/// Offset of the first value: an offset, a length, a group id or a time.
pub const FILE_FIRST: usize = 16;
/// Offset of the second value: a time.
pub const FILE_SECOND: usize = 24;
/// Length of the fixed part.
pub const FILE_FIXED: usize = 32;
/// The most requests with [`KIND_FILE`] that may wait for their replies at once.
pub const MAX_FILE_REQUESTS: u32 = 16;
/// The most files open at once.
pub const MAX_OPEN_FILES: u32 = 512;
/// Open `path` with the open flags, mode `number` if it is made; the request's id names it. → Done
pub const FILE_OPEN: u32 = 1;
/// Read at most `number` bytes at offset `first`. → FileData, empty at the end
pub const FILE_READ: u32 = 2;
/// Write the data at offset `first`, or at the end of a file opened to append. → FileWritten
pub const FILE_WRITE: u32 = 3;
/// Read at most `number` bytes of entries. → FileData, as getdents64(2) has them, empty after the last
pub const FILE_READ_DIRECTORY: u32 = 4;
/// Tell about `path`. → FileMetadata
pub const FILE_METADATA: u32 = 5;
/// Cut or extend to `first` bytes. → Done
pub const FILE_SET_LEN: u32 = 6;
/// Write back to the disk. → Done
pub const FILE_SYNC: u32 = 7;
/// Make directory `path` with mode `number`. → Done
pub const FILE_CREATE_DIRECTORY: u32 = 8;
/// Remove `path`, a directory with its flag, else anything but one. → Done
pub const FILE_REMOVE: u32 = 9;
/// Rename the first path to the second. → Done
pub const FILE_RENAME: u32 = 10;
/// Make the second path a symbolic link that says what the first string says. → Done
pub const FILE_SYMLINK: u32 = 11;
/// Make the second path another name of the first. → Done
pub const FILE_HARD_LINK: u32 = 12;
/// Read the symbolic link `path`. → FileData
pub const FILE_READ_LINK: u32 = 13;
/// Give `path` mode `number`. → Done
pub const FILE_SET_MODE: u32 = 14;
/// Give `path` user `number` and group `first`, each left alone by [`FILE_KEEP_OWNER`]. → Done
pub const FILE_SET_OWNER: u32 = 15;
/// Give `path` the times of last access `first` and last change `second`, in ns since 1970, each left alone
/// by [`FILE_KEEP_TIME`]. → Done
pub const FILE_SET_TIMES: u32 = 16;
/// Open flag: to read.
pub const FILE_OPEN_READ: u32 = 1;
/// Open flag: to write.
pub const FILE_OPEN_WRITE: u32 = 2;
/// Open flag: to write at the end always.
pub const FILE_OPEN_APPEND: u32 = 4;
/// Open flag: cut to nothing.
pub const FILE_OPEN_TRUNCATE: u32 = 8;
/// Open flag: make it if it is missing.
pub const FILE_OPEN_CREATE: u32 = 16;
/// Open flag: make it, and fail if it is there.
pub const FILE_OPEN_CREATE_NEW: u32 = 32;
/// Open flag: fail unless it is a directory.
pub const FILE_OPEN_DIRECTORY: u32 = 64;
/// Open flag: fail if it is a symbolic link.
pub const FILE_OPEN_NO_FOLLOW: u32 = 128;
/// Metadata, SetOwner and SetTimes flag: of a symbolic link itself.
pub const FILE_NO_FOLLOW: u32 = 1;
/// Sync flag: what is not needed to read the data again may wait.
pub const FILE_SYNC_DATA: u32 = 1;
/// Remove flag: an empty directory.
pub const FILE_REMOVE_DIRECTORY: u32 = 1;
/// A user or group that stays.
pub const FILE_KEEP_OWNER: u32 = u32::MAX;
/// A time that stays.
pub const FILE_KEEP_TIME: i64 = i64::MIN;

// FileMetadata: the start of Linux's struct statx (include/uapi/linux/stat.h), the same for every architecture.
/// Offset of `u32` bits of which fields the file system has.
pub const METADATA_MASK: usize = 0x00;
/// Offset of the `u32` preferred block size for reading and writing, in bytes.
pub const METADATA_BLOCK_SIZE: usize = 0x04;
/// Offset of the `u32` number of names.
pub const METADATA_LINKS: usize = 0x10;
/// Offset of the `u32` user id.
pub const METADATA_UID: usize = 0x14;
/// Offset of the `u32` group id.
pub const METADATA_GID: usize = 0x18;
/// Offset of the `u16` type and permissions.
pub const METADATA_MODE: usize = 0x1c;
/// Offset of the `u64` inode number.
pub const METADATA_INODE: usize = 0x20;
/// Offset of the `u64` length, in bytes.
pub const METADATA_SIZE: usize = 0x28;
/// Offset of the `u64` space it takes, in units of 512 bytes.
pub const METADATA_BLOCKS: usize = 0x30;
/// Offset of the time of last access. Times are `i64` seconds since 1970, `u32` ns, `u32` unused.
pub const METADATA_ACCESSED: usize = 0x40;
/// Offset of the time it was made.
pub const METADATA_CREATED: usize = 0x50;
/// Offset of the time its metadata last changed.
pub const METADATA_CHANGED: usize = 0x60;
/// Offset of the time its contents last changed.
pub const METADATA_MODIFIED: usize = 0x70;
/// Offset of the device a device file stands for: `u32` major and `u32` minor number.
pub const METADATA_DEVICE_FILE: usize = 0x80;
/// Offset of the device it lies on: `u32` major and `u32` minor number.
pub const METADATA_DEVICE: usize = 0x88;
/// Length of a FileMetadata payload.
pub const METADATA_LEN: usize = 0x90;
/// Bit of the mask: there is a time it was made (`STATX_BTIME`).
pub const METADATA_HAS_CREATED: u32 = 0x800;

// Directory entries in FileData: Linux's struct linux_dirent64, one after the other.
/// Offset of the `u64` inode number.
pub const ENTRY_INODE: usize = 0;
/// Offset of the `u16` length of this entry.
pub const ENTRY_LEN: usize = 16;
/// Offset of the `u8` type.
pub const ENTRY_TYPE: usize = 18;
/// Offset of the name and its NUL.
pub const ENTRY_NAME: usize = 19;

// Mark: `u64` ns of CLOCK_BOOTTIME, text to the end.
/// Length of the fixed part of a Mark.
pub const MARK_FIXED: usize = 8;

/// The credit a receiver returns once it has consumed `owed` bytes since the last return: all of it as soon
/// as it is a quarter of the window, else nothing yet. A sender never starves: at least three quarters of
/// the window are with it or on their way.
pub const fn credit_due(owed: u32) -> u32 {
    if owed >= INITIAL_CREDIT / 4 { owed } else { 0 }
}
