//! Code memory: one anonymous file, mapped twice.

use std::os::fd::OwnedFd;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::pwrite;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::Error;

/// Large pages can be had only at multiples of their size; there, code costs fewer faults and fewer entries of the TLB.
const LARGE_PAGE: usize = 2 << 20;

#[derive(Debug)]
pub(crate) struct CodeMemory {
    pub(crate) writable: NonNull<u8>,
    pub(crate) executable: NonNull<u8>,
    pub(crate) len: usize,
    file: OwnedFd,
    /// Where both lie, and nothing else does.
    _room: Room,
}

// SAFETY: two addresses of memory that belongs to this value; whoever writes through them answers for it.
unsafe impl Send for CodeMemory {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    pub(crate) fn new(len: usize) -> Result<Self, Error> {
        let page = rustix::param::page_size();
        let len = len.max(1).next_multiple_of(page);
        let file = memfd_create("crumblecracker-code", MemfdFlags::CLOEXEC)
            .map_err(Error::os("make memory for code"))?;
        ftruncate(&file, len as u64).map_err(Error::os("make memory for code"))?;
        let stride = len.next_multiple_of(if len < LARGE_PAGE { page } else { LARGE_PAGE });
        let room = Room::new(LARGE_PAGE + 2 * stride)?;
        let map = |offset, protection| {
            let to_boundary = room.address.as_ptr().align_offset(LARGE_PAGE);
            let address = room.address.as_ptr().wrapping_add(to_boundary + offset);
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: the room is as long as both mappings and the way to the boundary, and nobody uses it.
            let address = unsafe { mmap(address.cast(), len, protection, flags, &file, 0) };
            let address = address.map_err(Error::os("map memory for code"))?;
            // SAFETY: no byte changes by this advice; the range was just mapped.
            let _ = unsafe { madvise(address, len, Advice::LinuxHugepage) };
            Ok(NonNull::new(address.cast::<u8>()).unwrap_or(NonNull::dangling()))
        };
        Ok(Self {
            writable: map(0, ProtFlags::READ | ProtFlags::WRITE)?,
            executable: map(stride, ProtFlags::READ | ProtFlags::EXEC)?,
            len,
            file,
            _room: room,
        })
    }

    pub(crate) fn write_at(&self, mut offset: usize, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let written =
                pwrite(&self.file, bytes, offset as u64).map_err(Error::os("fill memory for code"))?;
            (offset, bytes) = (offset + written, &bytes[written..]);
        }
        Ok(())
    }
}

/// A range of addresses; what is mapped there goes with it.
#[derive(Debug)]
struct Room {
    address: NonNull<u8>,
    len: usize,
}

impl Room {
    fn new(len: usize) -> Result<Self, Error> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing from anybody.
        let address = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), flags) };
        let address = address.map_err(Error::os("map memory for code"))?;
        let address = NonNull::new(address.cast()).unwrap_or(NonNull::dangling());
        Ok(Self { address, len })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; all in it is given up with this value.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.len) };
    }
}
