//! The seam between a file-system device and a file server: FUSE messages, undecoded.

use std::fs::File;
use std::io;

/// A server of FUSE requests (`include/uapi/linux/fuse.h`).
///
/// The device only moves bytes: it hands over the driver-written part of a request as a
/// [`RequestSource`] and the space for the answer as a [`ReplySink`]. Decoding happens once, in the server.
///
/// *Concurrency:* called from several device threads at once; a request may block in host I/O.
/// *Hostility:* every byte of the request is the guest's; a malformed request gets an error reply or, where
/// no reply can be made, a length of 0. It never panics and never ends the VM.
pub trait FileService: Send + Sync {
    /// Serves one request and returns how many bytes of `reply`, counted from its start, are valid.
    ///
    /// 0 means that the request has no reply (FUSE_FORGET and its kind).
    fn handle(&self, request: &dyn RequestSource, reply: &mut dyn ReplySink) -> usize;

    /// Forgets all that a guest has open or looked up, as after a device reset. Handles of the earlier
    /// connection are invalid from then on.
    fn reset(&self);
}

/// The driver-written bytes of one request, wherever they lie.
pub trait RequestSource {
    /// Length of the request in bytes.
    fn len(&self) -> usize;

    /// Whether the request holds no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes from `offset` on into the whole of `bytes`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the request is shorter than that.
    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes `len` bytes of the request from `offset` on to `file` at `file_offset`, without an
    /// intermediate copy where the platform allows. Returns how many were written, as `pwrite` does.
    fn write_to_file(&self, offset: usize, len: usize, file: &File, file_offset: u64) -> io::Result<usize>;
}

/// The space that the driver gave for one reply, wherever it lies.
pub trait ReplySink {
    /// How many bytes the reply may have.
    fn capacity(&self) -> usize;

    /// Copies `bytes` into the reply at `offset`.
    ///
    /// # Errors
    /// `WriteZero` when they do not fit.
    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Fills up to `len` bytes of the reply at `offset` from `file` at `file_offset`, without an
    /// intermediate copy where the platform allows. Returns how many were read, as `pread` does: fewer at
    /// the end of the file.
    fn fill_from_file(
        &mut self,
        offset: usize,
        len: usize,
        file: &File,
        file_offset: u64,
    ) -> io::Result<usize>;
}
