//! The FUSE wire format: numbers and structures of `include/uapi/linux/fuse.h`.
//!
//! Every structure is little- or big-endian as the guest is; this server supports guests of the host's own
//! byte order only, which is little-endian on every machine CrumbleCracker runs. Structures have no hidden
//! padding, so each can be read from and written as plain bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Major version of the protocol; another one cannot be spoken.
pub const KERNEL_VERSION: u32 = 7;
/// Newest minor version this server knows: 7.39 brought FUSE_STATX.
pub const KERNEL_MINOR_VERSION: u32 = 39;
/// Oldest minor version accepted: 7.31, of Linux 5.4, the first Linux with virtio-fs.
pub const MIN_MINOR_VERSION: u32 = 31;
/// The node id of the root directory.
pub const ROOT_ID: u64 = 1;
/// Longest name of a directory entry in bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest symbolic link target in bytes: PATH_MAX without its terminating NUL.
pub const SYMLINK_MAX: usize = 4095;
/// Longest value of an extended attribute in bytes (XATTR_SIZE_MAX); also the longest list of names.
pub const XATTR_SIZE_MAX: usize = 65536;
/// Records of READDIR begin at multiples of this many bytes (FUSE_REC_ALIGN).
pub const RECORD_ALIGNMENT: usize = 8;

/// `enum fuse_opcode`.
pub mod opcode {
    #![allow(missing_docs, reason = "the names are those of fuse.h without their prefix")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Flags of FUSE_INIT: the low half travels in `flags`, the high half in `flags2`.
pub mod init_flag {
    #![allow(missing_docs, reason = "the names are those of fuse.h without their prefix")]
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const INIT_EXT: u64 = 1 << 30;
}

/// `FATTR_*`: which members of [`SetattrIn`] count.
pub mod setattr_flag {
    #![allow(missing_docs, reason = "the names are those of fuse.h without their prefix")]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `FOPEN_KEEP_CACHE`: opening does not drop the pages the guest has cached.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FUSE_GETATTR_FH`: the handle of [`GetattrIn`] is valid.
pub const GETATTR_FH: u32 = 1 << 0;
/// `FUSE_WRITE_CACHE`: pages written back from the guest's cache.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `FUSE_WRITE_KILL_SUIDGID`: the writer may not keep set-id bits.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_OPEN_KILL_SUIDGID`: truncating at open removes set-id bits.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC`: contents only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

/// Flags of `renameat2(2)`.
pub mod rename_flag {
    #![allow(
        missing_docs,
        reason = "the names are those of linux/fs.h without their prefix"
    )]
    pub const NOREPLACE: u32 = 1 << 0;
    pub const EXCHANGE: u32 = 1 << 1;
}

/// Mode bits of `fallocate(2)` (`linux/falloc.h`).
pub mod fallocate_flag {
    #![allow(
        missing_docs,
        reason = "the names are those of linux/falloc.h without their prefix"
    )]
    pub const KEEP_SIZE: u32 = 0x01;
    pub const PUNCH_HOLE: u32 = 0x02;
    pub const ZERO_RANGE: u32 = 0x10;
}

/// `XATTR_CREATE`: fail when the attribute exists.
pub const XATTR_CREATE: u32 = 1;
/// `XATTR_REPLACE`: fail when the attribute does not exist.
pub const XATTR_REPLACE: u32 = 2;
/// `SEEK_DATA` of `lseek(2)`.
pub const SEEK_DATA: u32 = 3;
/// `SEEK_HOLE` of `lseek(2)`.
pub const SEEK_HOLE: u32 = 4;

/// The type part of a mode (`S_IFMT`).
pub const S_IFMT: u32 = 0o170000;
/// Set-user-ID.
pub const S_ISUID: u32 = 0o4000;
/// Set-group-ID.
pub const S_ISGID: u32 = 0o2000;
/// Sticky.
pub const S_ISVTX: u32 = 0o1000;
/// Group may execute; with set-group-ID it makes the bit mean what it says.
pub const S_IXGRP: u32 = 0o010;
/// All bits of a mode that `chmod` sets.
pub const PERMISSION_BITS: u32 = 0o7777;

/// What a guest may set in `flags` of [`OpenIn`] (Linux generic `O_*`).
pub mod open_flag {
    #![allow(
        missing_docs,
        reason = "the names are those of asm-generic/fcntl.h without their prefix"
    )]
    pub const ACCMODE: u32 = 0o3;
    pub const WRONLY: u32 = 0o1;
    pub const RDWR: u32 = 0o2;
    pub const EXCL: u32 = 0o200;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
}

/// Declares wire structures: plain integers, every member public, no padding.
macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        #[allow(missing_docs, reason = "members have the names of fuse.h")]
        pub struct $name { $(pub $field: $type),* }
    )* };
}

wire! {
    /// `struct fuse_in_header`: begins every request.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// `struct fuse_out_header`: begins every reply; `error` is 0 or a negated errno.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// `struct fuse_attr`.
    FuseAttr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32,
    }
    /// `struct fuse_init_in` since 7.36.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    /// `struct fuse_init_in` before 7.36.
    InitInShort { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// `struct fuse_init_out`.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16,
        flags2: u32, unused: [u32; 7],
    }
    /// `struct fuse_entry_out`.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: FuseAttr,
    }
    /// `struct fuse_forget_in`.
    ForgetIn { nlookup: u64 }
    /// `struct fuse_forget_one`.
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// `struct fuse_batch_forget_in`.
    BatchForgetIn { count: u32, dummy: u32 }
    /// `struct fuse_getattr_in`.
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    /// `struct fuse_attr_out`.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: FuseAttr }
    /// `struct fuse_mknod_in`.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `struct fuse_mkdir_in`.
    MkdirIn { mode: u32, umask: u32 }
    /// `struct fuse_rename_in`.
    RenameIn { newdir: u64 }
    /// `struct fuse_rename2_in`.
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// `struct fuse_link_in`.
    LinkIn { oldnodeid: u64 }
    /// `struct fuse_setattr_in`.
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32,
        unused5: u32,
    }
    /// `struct fuse_open_in`.
    OpenIn { flags: u32, open_flags: u32 }
    /// `struct fuse_create_in`, also of FUSE_TMPFILE.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `struct fuse_open_out`.
    OpenOut { fh: u64, open_flags: u32, padding: u32 }
    /// `struct fuse_release_in`.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `struct fuse_flush_in`.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// `struct fuse_read_in`.
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// `struct fuse_write_in`.
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// `struct fuse_write_out`.
    WriteOut { size: u32, padding: u32 }
    /// `struct fuse_statfs_out`.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    /// `struct fuse_fsync_in`.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// `struct fuse_setxattr_in` without the extension FUSE_SETXATTR_EXT.
    SetxattrIn { size: u32, flags: u32 }
    /// `struct fuse_getxattr_in`, also of FUSE_LISTXATTR.
    GetxattrIn { size: u32, padding: u32 }
    /// `struct fuse_getxattr_out`.
    GetxattrOut { size: u32, padding: u32 }
    /// `struct fuse_access_in`.
    AccessIn { mask: u32, padding: u32 }
    /// `struct fuse_fallocate_in`.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `struct fuse_lseek_in`.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// `struct fuse_lseek_out`.
    LseekOut { offset: u64 }
    /// `struct fuse_copy_file_range_in`.
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    /// `struct fuse_dirent` without the name that follows it.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// `struct fuse_statx_in`.
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// `struct fuse_sx_time`.
    StatxTime { seconds: i64, nanoseconds: u32, reserved: i32 }
    /// `struct fuse_statx_out` with its `struct fuse_statx`.
    StatxOut {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2],
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
}

/// `STATX_BASIC_STATS` of `linux/stat.h`.
pub const STATX_BASIC_STATS: u32 = 0x7ff;
/// `STATX_BTIME` of `linux/stat.h`.
pub const STATX_BTIME: u32 = 0x800;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes by hand from the members in fuse.h.
    #[test]
    fn wire_structures_have_the_sizes_of_fuse_h() {
        let sizes = [
            (size_of::<InHeader>(), 40),
            (size_of::<OutHeader>(), 16),
            (size_of::<FuseAttr>(), 88),
            (size_of::<InitIn>(), 64),
            (size_of::<InitOut>(), 64),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttrOut>(), 104),
            (size_of::<SetattrIn>(), 88),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<StatfsOut>(), 80),
            (size_of::<CopyFileRangeIn>(), 56),
            (size_of::<Dirent>(), 24),
            (size_of::<StatxOut>(), 32 + 256),
        ];

        sizes
            .into_iter()
            .for_each(|(found, expected)| assert_eq!(found, expected));
    }
}
