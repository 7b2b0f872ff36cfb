//! Linux.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
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
