//! A two-way stream of bytes with back-pressure, and an in-memory one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Called when a stream that had no room or no bytes may have some again. Must not block and must not call
/// back into the stream.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// What a serial-like device is plugged into: never blocks, says when it is worth trying again.
///
/// *Direction* is named from the guest: [`ByteStream::write`] takes what the guest sent.
/// *Ownership:* the device holds the stream for its whole life; one device thread uses it at a time.
/// *Close order:* either side may close first; a closed stream swallows writes and yields no bytes.
pub trait ByteStream: Send + Sync {
    /// Takes bytes from the guest; returns how many. Fewer than given means full for now.
    fn write(&self, bytes: &[u8]) -> usize;

    /// Gives bytes to the guest; returns how many. 0 means none for now.
    fn read(&self, bytes: &mut [u8]) -> usize;

    /// Sets who is to be called when `read` or `write` may make progress again, or the stream closes.
    fn set_waker(&self, waker: Waker);

    /// Whether the host side is there; a port shows this to its driver.
    fn is_open(&self) -> bool;
}

/// Makes an in-memory pipe: the device's end never blocks, the host's end does.
///
/// `capacity` is the most bytes that wait in each direction.
pub fn byte_pipe(capacity: usize) -> (DeviceEnd, HostEnd) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            to_host: VecDeque::new(),
            to_guest: VecDeque::new(),
            capacity: capacity.max(1),
            device_gone: false,
            host_gone: false,
            waker: None,
        }),
        changed: Condvar::new(),
    });
    let host = HostEnd {
        side: Arc::new(HostSide(shared.clone())),
    };
    (DeviceEnd { shared }, host)
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    to_host: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    capacity: usize,
    device_gone: bool,
    host_gone: bool,
    waker: Option<Waker>,
}

impl Shared {
    /// The state stays consistent at every step, so a panic elsewhere while it was held does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes for the host; returns how many.
    fn take(&self, bytes: &mut [u8]) -> usize {
        let mut state = self.lock();
        let was_full = state.to_host.len() == state.capacity;
        let count = pop_into(&mut state.to_host, bytes);
        if was_full && count > 0 {
            wake(state);
        }
        count
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(state: MutexGuard<'_, State>) {
    let waker = state.waker.clone();
    drop(state);
    if let Some(waker) = waker {
        waker();
    }
}

/// Moves bytes from the front of `queue` into `bytes`; returns how many.
fn pop_into(queue: &mut VecDeque<u8>, bytes: &mut [u8]) -> usize {
    let count = queue.read(bytes).unwrap_or(0);
    debug_assert!(count <= bytes.len());
    count
}

/// The device's end of a [`byte_pipe`].
pub struct DeviceEnd {
    shared: Arc<Shared>,
}

impl ByteStream for DeviceEnd {
    fn write(&self, bytes: &[u8]) -> usize {
        let mut state = self.shared.lock();
        if state.host_gone {
            return bytes.len();
        }
        let count = bytes.len().min(state.capacity - state.to_host.len());
        state.to_host.extend(&bytes[..count]);
        self.shared.changed.notify_all();
        count
    }

    fn read(&self, bytes: &mut [u8]) -> usize {
        let mut state = self.shared.lock();
        let count = pop_into(&mut state.to_guest, bytes);
        if count > 0 {
            self.shared.changed.notify_all();
        }
        count
    }

    fn set_waker(&self, waker: Waker) {
        self.shared.lock().waker = Some(waker);
    }

    fn is_open(&self) -> bool {
        !self.shared.lock().host_gone
    }
}

impl Drop for DeviceEnd {
    fn drop(&mut self) {
        self.shared.lock().device_gone = true;
        self.shared.changed.notify_all();
    }
}

/// The host's end of a [`byte_pipe`]: blocking reads and writes, cloneable so that one thread can read
/// while another writes. A read returns 0 and a write fails with `BrokenPipe` once the device is gone or the
/// end was [shut down](HostEnd::shutdown).
#[derive(Clone)]
pub struct HostEnd {
    side: Arc<HostSide>,
}

/// Closes the host's side when the last clone of [`HostEnd`] goes.
struct HostSide(Arc<Shared>);

impl HostEnd {
    /// Closes the host's side now, in all clones: readers and writers that wait return.
    pub fn shutdown(&self) {
        self.side.close();
    }

    /// Waits until there is something to read; false where there will never be.
    pub fn wait_readable(&self) -> bool {
        let shared = &self.side.0;
        let mut state = shared.lock();
        while state.to_host.is_empty() {
            if state.device_gone || state.host_gone {
                return false;
            }
            state = shared.wait(state);
        }
        true
    }

    /// What was written and the device has not taken yet. It stays.
    pub fn untaken(&self) -> Vec<u8> {
        self.side.0.lock().to_guest.iter().copied().collect()
    }

    /// Reads without waiting; returns how many bytes.
    pub fn read_available(&self, bytes: &mut [u8]) -> usize {
        self.side.0.take(bytes)
    }
}

impl HostSide {
    fn close(&self) {
        let mut state = self.0.lock();
        state.host_gone = true;
        state.to_host.clear();
        self.0.changed.notify_all();
        wake(state);
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        self.close();
    }
}

impl Read for HostEnd {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // Another clone may take what this one waited for.
        while !bytes.is_empty() && self.wait_readable() {
            if let count @ 1.. = self.read_available(bytes) {
                return Ok(count);
            }
        }
        Ok(0)
    }
}

impl Write for HostEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let shared = &self.side.0;
        let mut state = shared.lock();
        loop {
            if state.device_gone || state.host_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if state.to_guest.len() < state.capacity {
                break;
            }
            state = shared.wait(state);
        }
        let count = bytes.len().min(state.capacity - state.to_guest.len());
        state.to_guest.extend(&bytes[..count]);
        wake(state);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn pipe_both_directions_keeps_order() {
        let (device, mut host) = byte_pipe(8);
        assert_eq!(device.write(b"abc"), 3);
        host.write_all(b"xyz").unwrap();
        let mut from_guest = [0; 3];
        host.read_exact(&mut from_guest).unwrap();
        let mut from_host = [0; 8];
        assert_eq!((&from_guest, device.read(&mut from_host)), (b"abc", 3));
        assert_eq!(&from_host[..3], b"xyz");
    }

    #[test]
    fn untaken_bytes_are_those_the_device_has_not_read() {
        let (device, mut host) = byte_pipe(8);
        host.write_all(b"abcd").unwrap();
        device.read(&mut [0; 2]);
        assert_eq!(host.untaken(), b"cd");
        assert_eq!(device.read(&mut [0; 8]), 2);
    }

    #[test]
    fn host_end_reads_what_is_there_without_waiting() {
        let (device, host) = byte_pipe(8);
        assert_eq!(host.read_available(&mut [0; 4]), 0);
        device.write(b"abc");
        let mut bytes = [0; 8];

        assert!(host.wait_readable());
        assert_eq!((host.read_available(&mut bytes), &bytes[..3]), (3, &b"abc"[..]));
        drop(device);
        assert!(!host.wait_readable());
    }

    #[test]
    fn device_write_over_capacity_takes_what_fits_and_wakes_later() {
        let (device, mut host) = byte_pipe(4);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        device.set_waker(Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        assert_eq!(device.write(b"abcdef"), 4);
        assert_eq!(device.write(b"ef"), 0);
        let mut bytes = [0; 2];
        host.read_exact(&mut bytes).unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert_eq!(device.write(b"ef"), 2);
    }

    #[test]
    fn host_write_over_capacity_waits_for_the_device() {
        let (device, mut host) = byte_pipe(2);
        let writer = thread::spawn(move || host.write_all(b"0123456789"));
        let mut all = Vec::new();
        while all.len() < 10 {
            let mut bytes = [0; 3];
            let count = device.read(&mut bytes);
            all.extend_from_slice(&bytes[..count]);
            thread::yield_now();
        }
        writer.join().unwrap().unwrap();
        assert_eq!(all, b"0123456789");
    }

    #[test]
    fn host_read_after_device_is_gone_drains_then_ends() {
        let (device, mut host) = byte_pipe(8);
        device.write(b"last");
        drop(device);
        let mut all = Vec::new();
        host.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last");
        assert_eq!(host.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn shutdown_releases_a_waiting_reader() {
        let (device, host) = byte_pipe(8);
        let mut reading = host.clone();
        let reader = thread::spawn(move || reading.read(&mut [0; 1]));
        host.shutdown();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        assert!(!device.is_open());
        assert_eq!(device.write(b"swallowed"), 9);
    }
}
