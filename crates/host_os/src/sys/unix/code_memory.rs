//! Code memory: one anonymous file, mapped twice.

use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::Error;

#[derive(Debug)]
pub(crate) struct CodeMemory {
    pub(crate) writable: NonNull<u8>,
    pub(crate) executable: NonNull<u8>,
    pub(crate) len: usize,
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
        let map = |protection| {
            // SAFETY: a new mapping at an address of the kernel's choice takes nothing from anybody.
            let address = unsafe { mmap(null_mut(), len, protection, MapFlags::SHARED, &file, 0) };
            let address = address.map_err(Error::os("map memory for code"))?;
            Ok(NonNull::new(address.cast::<u8>()).unwrap_or(NonNull::dangling()))
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let executable = map(ProtFlags::READ | ProtFlags::EXEC).inspect_err(|_| {
            // SAFETY: the mapping was just made, and nobody knows of it.
            let _ = unsafe { munmap(writable.as_ptr().cast(), len) };
        })?;
        Ok(Self {
            writable,
            executable,
            len,
        })
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for address in [self.writable, self.executable] {
            // SAFETY: mapped in `new` with this length, and given up with this value.
            let _ = unsafe { munmap(address.as_ptr().cast(), self.len) };
        }
    }
}
