//! Mounts a [`vfs::Server`] on this machine through `/dev/fuse`, so that the Linux kernel is its client and
//! any program can try it.
//!
//! Needs Linux with `/dev/fuse` and the right to mount (root); where these are missing the tests fail and
//! say so.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use device_backends::{FileService, ReplySink, RequestSource};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, pread, pwrite};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vfs::{Server, Tree};

/// A request of at most 1 MiB of contents with its headers.
const BUFFER: usize = (1 << 20) + (1 << 16);
/// The tree is served by as many threads as a device with several queues has.
const THREADS: usize = 3;

/// A mounted tree; unmounted when dropped.
pub(crate) struct Mounted {
    directory: tempfile::TempDir,
    server: Arc<RwLock<Server>>,
    threads: Vec<JoinHandle<()>>,
}

impl Mounted {
    /// Mounts `tree` the way virtio-fs is mounted in a guest.
    pub(crate) fn new(tree: Arc<dyn Tree>) -> Self {
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .expect("these tests need /dev/fuse (load the module fuse)");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        let options = CString::new(options).expect("no NUL");
        mount(
            "vfs-test",
            directory.path(),
            "fuse",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("these tests need the right to mount: run them as root");
        let server = Arc::new(RwLock::new(Server::new(tree)));
        let device = Arc::new(device);
        let threads = (0..THREADS)
            .map(|_| {
                let (server, device) = (Arc::clone(&server), Arc::clone(&device));
                std::thread::spawn(move || serve(&server, &device))
            })
            .collect();
        Self {
            directory,
            server,
            threads,
        }
    }

    /// Saves the server and goes on with another one of `tree`, of which the kernel is told nothing. Returns how many
    /// bytes of contents were saved.
    #[allow(dead_code, reason = "not every test moves")]
    pub(crate) fn move_to(&self, tree: Arc<dyn Tree>) -> usize {
        // No request is being served while the lock is held.
        let mut server = self.server.write().expect("no panic");
        let mut contents = Vec::new();
        let unit = server.save(&mut contents).expect("saved");
        let new = Server::new(tree);
        new.restore(&unit, &mut &contents[..]).expect("restored");
        *server = new;
        contents.len()
    }

    /// Where the tree is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = unmount(self.path(), UnmountFlags::DETACH);
        for thread in self.threads.drain(..) {
            // A panic of the server has failed the test's own requests already.
            let _ = thread.join();
        }
        unmounted.expect("unmounting");
    }
}

fn serve(server: &RwLock<Server>, device: &OwnedFd) {
    let mut request = vec![0; BUFFER];
    let mut reply = vec![0; BUFFER];
    loop {
        let len = match rustix::io::read(device, &mut request) {
            Ok(len) => len,
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
            // ENODEV: unmounted.
            Err(_) => return,
        };
        let len = server
            .read()
            .expect("no panic")
            .handle(&Bytes(&request[..len]), &mut Space(&mut reply));
        if len > 0 {
            // ENOENT: the request was interrupted meanwhile.
            let _ = rustix::io::write(device.as_fd(), &reply[..len]);
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl RequestSource for Bytes<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let from = self
            .0
            .get(offset..offset + bytes.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn write_to_file(&self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<usize> {
        Ok(pwrite(file, &self.0[offset..offset + len], at)?)
    }
}

struct Space<'a>(&'a mut [u8]);

impl ReplySink for Space<'_> {
    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self
            .0
            .get_mut(offset..offset + bytes.len())
            .ok_or(io::ErrorKind::WriteZero)?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn fill_from_file(&mut self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<usize> {
        Ok(pread(file, &mut self.0[offset..offset + len], at)?)
    }
}
