//! Linux.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Error;

/// SO_PEERCRED (unix(7)).
pub(crate) fn is_peer_ours(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(peer.uid == rustix::process::geteuid())
}

/// An eventfd.
#[derive(Debug)]
pub(crate) struct Event {
    fd: OwnedFd,
}

impl Event {
    pub(crate) fn new() -> Result<Self, Error> {
        let fd =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::os("make an event"))?;
        Ok(Self { fd })
    }

    pub(crate) fn signal(&self) {
        // Fails only when the counter is full, and then the event is set.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    pub(crate) fn take(&self) -> bool {
        // Fails only when the counter is zero.
        rustix::io::read(&self.fd, &mut [0_u8; 8]).is_ok()
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.take() {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::os("wait for an event")(error)),
            }
        }
    }

    pub(crate) fn raw_handle(&self) -> usize {
        self.fd.as_raw_fd() as usize
    }
}

pub(crate) fn boot_id() -> Result<String, Error> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(Error::os("read the boot id from /proc/sys/kernel/random/boot_id"))?;
    Ok(id.trim().to_owned())
}

pub(crate) fn program_identity(address: usize) -> Result<[u64; 7], Error> {
    let failed = || Error::os("look at this program's file");
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(failed())?;
    let (inode, path) = maps
        .lines()
        .find_map(|line| file_mapped_at(line, address))
        .ok_or(std::io::Error::from(rustix::io::Errno::NOENT))
        .map_err(failed())?;
    let file = std::fs::metadata(path).map_err(failed())?;
    if file.ino() != inode {
        // Another file is there by now.
        return Err(failed()(rustix::io::Errno::STALE.into()));
    }
    Ok([
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime() as u64,
        file.mtime_nsec() as u64,
        file.ctime() as u64,
        file.ctime_nsec() as u64,
    ])
}

/// The inode and the path of a line of `/proc/self/maps`, where that is of a mapping with `address` in it
/// (proc_pid_maps(5)).
fn file_mapped_at(line: &str, address: usize) -> Option<(u64, &str)> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    let inode = words.nth(3)?.parse().ok()?;
    let path = words.next()?.trim_start();
    (number(start)?..number(end)?)
        .contains(&address)
        .then_some((inode, path))
}

pub(crate) fn random_bytes(mut buffer: &mut [u8]) -> Result<(), Error> {
    while !buffer.is_empty() {
        match getrandom(&mut *buffer, GetRandomFlags::empty()) {
            Ok(count) => buffer = &mut buffer[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::os("read random bytes")(error)),
        }
    }
    Ok(())
}

pub(crate) fn set_direct(file: &File, on: bool) -> Result<(), Error> {
    let failed = || Error::os("choose how a file is written");
    let mut flags = fcntl_getfl(file).map_err(failed())?;
    flags.set(OFlags::DIRECT, on);
    fcntl_setfl(file, flags).map_err(failed())
}

/// Bits of an entry of `/proc/self/pagemap` (proc_pid_pagemap(5)): the page is there; it is in swap; it is a file's, or shared.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

pub(crate) fn own_pages(address: usize, len: usize) -> Result<Vec<Range<usize>>, Error> {
    pages(address, len, |bits| {
        bits & SWAPPED != 0 || bits & (PRESENT | FILE_OR_SHARED) == PRESENT
    })
}

pub(crate) fn used_pages(address: usize, len: usize) -> Result<Vec<Range<usize>>, Error> {
    pages(address, len, |bits| bits & (PRESENT | SWAPPED) != 0)
}

/// The pages whose entries `count`.
fn pages(address: usize, len: usize, count: impl Fn(u64) -> bool) -> Result<Vec<Range<usize>>, Error> {
    let failed = || Error::os("read /proc/self/pagemap");
    let page = rustix::param::page_size();
    let entry = size_of::<u64>();
    let pagemap = File::open("/proc/self/pagemap").map_err(failed())?;
    let mut entries = vec![0; len / page * entry];
    pagemap
        .read_exact_at(&mut entries, (address / page * entry) as u64)
        .map_err(failed())?;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (index, bytes) in entries.chunks_exact(entry).enumerate() {
        let bits = bytes
            .iter()
            .rev()
            .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        if !count(bits) {
            continue;
        }
        let start = index * page;
        match ranges.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end += page,
            None => ranges.push(start..start + page),
        }
    }
    Ok(ranges)
}

/// Pages of a file are entered with those around them, but only of the same mapping (mm/memory.c, `do_fault_around`), and
/// mappings whose advice differs are not joined. This advice changes nothing about pages that are in memory.
pub(crate) fn tell_pages_apart(address: usize, len: usize, piece: usize) -> Result<(), Error> {
    for start in (0..len).step_by(piece.max(1)).step_by(2) {
        let (at, len) = (address + start, piece.min(len - start));
        // SAFETY: no byte changes by this, whatever is mapped there (madvise(2), MADV_RANDOM).
        unsafe { rustix::mm::madvise(at as *mut _, len, rustix::mm::Advice::Random) }
            .map_err(Error::os("tell pages apart"))?;
    }
    Ok(())
}

pub(crate) fn bring_in(address: usize, len: usize) -> Result<(), Error> {
    let advice = rustix::mm::Advice::LinuxPopulateWrite;
    // SAFETY: no byte changes by this, whatever is mapped there (madvise(2), MADV_POPULATE_WRITE).
    unsafe { rustix::mm::madvise(address as *mut _, len, advice) }.map_err(Error::os("bring memory in"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ptr::null_mut;

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    #[test]
    fn mapped_file_is_found_by_an_address_in_its_line_alone() {
        let line = "55d0-55e0 r-xp 00001000 fe:00 1234                       /a folder/file";

        assert_eq!(file_mapped_at(line, 0x55d0), Some((1234, "/a folder/file")));
        assert_eq!(file_mapped_at(line, 0x55e0), None);
        assert_eq!(
            file_mapped_at("55d0-55e0 rw-p 00000000 00:00 0 ", 0x55d0),
            Some((0, ""))
        );
        assert_eq!(file_mapped_at("no such line", 0x55d0), None);
    }

    #[test]
    fn pages_told_apart_are_used_one_by_one() {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 8 * page]).unwrap();
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(null_mut(), 8 * page, rights, MapFlags::PRIVATE, &file, 0) }.unwrap();
        let first = start.cast::<u8>();

        tell_pages_apart(start as usize, 8 * page, page).unwrap();

        // SAFETY: inside the mapping, which nobody else has.
        unsafe {
            assert_eq!(first.add(2 * page).read(), 7);
            assert_eq!(first.add(5 * page).read(), 7);
            first.add(7 * page).write(1);
        }
        let used = used_pages(start as usize, 8 * page).unwrap();
        assert_eq!(used, [2 * page..3 * page, 5 * page..6 * page, 7 * page..8 * page]);
        // SAFETY: the mapping goes.
        unsafe { munmap(start, 8 * page) }.unwrap();
    }

    #[test]
    fn own_pages_are_those_that_were_written_or_brought_in() {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 8 * page]).unwrap();
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(null_mut(), 8 * page, rights, MapFlags::PRIVATE, &file, 0) }.unwrap();
        let first = start.cast::<u8>();
        // SAFETY: inside the mapping, which nobody else has.
        unsafe {
            first.add(page).write(1);
            assert_eq!(first.add(3 * page).read(), 7);
        }

        bring_in(start as usize + 2 * page, page).unwrap();
        bring_in(start as usize + 6 * page, page).unwrap();

        let own = own_pages(start as usize, 8 * page).unwrap();
        assert_eq!(own, [page..3 * page, 6 * page..7 * page]);
        assert!(used_pages(start as usize, 8 * page).unwrap()[0].contains(&(3 * page)));
        // SAFETY: as above; then the mapping goes.
        unsafe {
            assert_eq!(first.add(6 * page).read(), 7);
            munmap(start, 8 * page).unwrap();
        }
    }
}
