//! Requests about open files and extended attributes.

use rustix::io::Errno;

use super::Server;
use super::call::Call;
use crate::protocol::{
    CopyFileRangeIn, FOPEN_KEEP_CACHE, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, GetxattrIn,
    GetxattrOut, LseekIn, LseekOut, OPEN_KILL_SUIDGID, OpenIn, OpenOut, ReadIn, ReleaseIn, SetxattrIn,
    WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut, XATTR_SIZE_MAX, init_flag,
};
use crate::tree::{FileRef, WriteKind};

/// Largest offset of a byte in a file plus one, as `loff_t` has it.
const OFFSET_MAX: u64 = i64::MAX as u64;

impl Server {
    pub(super) fn open(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: OpenIn = call.arguments().take()?;
        if self.tree.cache_policy().stateless {
            if self.negotiated(init_flag::NO_OPEN_SUPPORT) {
                // From now on the kernel opens files by itself and keeps their pages.
                return Err(Errno::NOSYS);
            }
            return call.reply(&OpenOut {
                fh: 0,
                open_flags: FOPEN_KEEP_CACHE,
                padding: 0,
            });
        }
        call.require_space::<OpenOut>()?;
        let kill_set_id = asked.open_flags & OPEN_KILL_SUIDGID != 0;
        let opened = self.tree.open(call.node(), asked.flags, kill_set_id)?;
        let open_flags = if opened.keep_cache { FOPEN_KEEP_CACHE } else { 0 };
        call.reply(&OpenOut {
            fh: opened.handle,
            open_flags,
            padding: 0,
        })
    }

    pub(super) fn release(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: ReleaseIn = call.arguments().take()?;
        self.tree.release(asked.fh);
        Ok(0)
    }

    pub(super) fn read(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: ReadIn = call.arguments().take()?;
        if asked.offset > OFFSET_MAX {
            return Err(Errno::INVAL);
        }
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        let mut out = call.read_buffer(asked.size as usize);
        self.tree.read(file, asked.offset, &mut out)?;
        Ok(out.filled())
    }

    pub(super) fn write(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: WriteIn = arguments.take()?;
        let end = asked
            .offset
            .checked_add(u64::from(asked.size))
            .ok_or(Errno::INVAL)?;
        if end > OFFSET_MAX {
            return Err(Errno::FBIG);
        }
        call.require_space::<WriteOut>()?;
        let mut data = arguments.contents(asked.size as usize)?;
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        let kind = WriteKind {
            from_cache: asked.write_flags & WRITE_CACHE != 0,
            kill_set_id: asked.write_flags & WRITE_KILL_SUIDGID != 0,
        };
        let written = self.tree.write(file, asked.offset, &mut data, kind)?;
        // Never more than asked.size, which has 32 bits.
        call.reply(&WriteOut {
            size: written as u32,
            padding: 0,
        })
    }

    pub(super) fn flush(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: FlushIn = call.arguments().take()?;
        if self.tree.cache_policy().stateless {
            // Nothing is held back here; ENOSYS spares the guest a request at every close.
            return Err(Errno::NOSYS);
        }
        self.tree
            .flush(FileRef {
                node: call.node(),
                handle: Some(asked.fh),
            })
            .map(|()| 0)
    }

    pub(super) fn fsync(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: FsyncIn = call.arguments().take()?;
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        self.tree
            .fsync(file, asked.fsync_flags & FSYNC_FDATASYNC != 0)
            .map(|()| 0)
    }

    pub(super) fn fallocate(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: FallocateIn = call.arguments().take()?;
        let end = asked.offset.checked_add(asked.length).ok_or(Errno::FBIG)?;
        if asked.length == 0 {
            return Err(Errno::INVAL);
        }
        if end > OFFSET_MAX {
            return Err(Errno::FBIG);
        }
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        self.tree
            .fallocate(file, asked.offset, asked.length, asked.mode)
            .map(|()| 0)
    }

    pub(super) fn lseek(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: LseekIn = call.arguments().take()?;
        if asked.offset > OFFSET_MAX {
            return Err(Errno::NXIO);
        }
        let file = FileRef {
            node: call.node(),
            handle: Some(asked.fh),
        };
        let offset = self.tree.lseek(file, asked.offset, asked.whence)?;
        call.reply(&LseekOut { offset })
    }

    pub(super) fn copy_file_range(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: CopyFileRangeIn = call.arguments().take()?;
        let in_range = |offset: u64| offset.checked_add(asked.len).is_some_and(|end| end <= OFFSET_MAX);
        if asked.flags != 0 || !in_range(asked.off_in) || !in_range(asked.off_out) {
            return Err(Errno::INVAL);
        }
        call.require_space::<WriteOut>()?;
        let from = FileRef {
            node: call.node(),
            handle: Some(asked.fh_in),
        };
        let to = FileRef {
            node: asked.nodeid_out,
            handle: Some(asked.fh_out),
        };
        // The answer has 32 bits; the caller goes on behind a short copy.
        let len = asked.len.min(u64::from(u32::MAX));
        let copied = self
            .tree
            .copy_file_range(from, asked.off_in, to, asked.off_out, len)?;
        call.reply(&WriteOut {
            size: copied as u32,
            padding: 0,
        })
    }

    pub(super) fn getxattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: GetxattrIn = arguments.take()?;
        let name = arguments.text()?.attribute_name()?;
        let value = self.tree.getxattr(call.node(), &name)?;
        reply_sized(call, asked.size, &value)
    }

    pub(super) fn listxattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let asked: GetxattrIn = call.arguments().take()?;
        let names = self.tree.listxattr(call.node())?;
        reply_sized(call, asked.size, &names)
    }

    pub(super) fn setxattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let mut arguments = call.arguments();
        let asked: SetxattrIn = arguments.take()?;
        let size = asked.size as usize;
        if size > XATTR_SIZE_MAX {
            return Err(Errno::TOOBIG);
        }
        let mut text = arguments.text()?;
        let name = text.attribute_name()?;
        let value = text.bytes(size)?;
        self.tree
            .setxattr(call.node(), &name, value, asked.flags)
            .map(|()| 0)
    }

    pub(super) fn removexattr(&self, call: &mut Call<'_>) -> Result<usize, Errno> {
        let name = call.arguments().text()?.attribute_name()?;
        self.tree.removexattr(call.node(), &name).map(|()| 0)
    }
}

/// Answers GETXATTR and LISTXATTR: the size alone when the caller has no space, else the bytes.
fn reply_sized(call: &mut Call<'_>, size: u32, bytes: &[u8]) -> Result<usize, Errno> {
    if size == 0 {
        let len = u32::try_from(bytes.len()).map_err(|_| Errno::TOOBIG)?;
        return call.reply(&GetxattrOut {
            size: len,
            padding: 0,
        });
    }
    if bytes.len() > size as usize {
        return Err(Errno::RANGE);
    }
    call.reply_bytes(bytes)
}
