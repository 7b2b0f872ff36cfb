//! One request: a chain of descriptors as two streams of bytes.

use std::fs::File;
use std::io;

use device_backends::{ReplySink, RequestSource};
use guest_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestRange};
use virtio_queue::DescriptorChain;

use crate::Error;

/// The most descriptors of one chain. No driver needs more: those of Linux stay below the queue's size.
const MAX_DESCRIPTORS: usize = 1024;

/// A request that a driver made available: first the bytes it wrote, then the space it gave for an answer.
/// Its descriptors were copied and checked to lie in RAM, so the driver cannot change them any more; the
/// bytes themselves it can change at any time.
pub struct Chain {
    head: u16,
    memory: GuestMemory,
    readable: Segments,
    writable: Segments,
}

/// Stretches of RAM that follow each other in a stream.
#[derive(Default)]
struct Segments {
    parts: Vec<Segment>,
    len: usize,
}

struct Segment {
    /// Place of the first byte in the stream.
    start: usize,
    range: GuestRange,
}

impl Segments {
    fn push(&mut self, range: GuestRange) {
        self.parts.push(Segment {
            start: self.len,
            range,
        });
        self.len += range.len;
    }

    /// The stretches of RAM that hold `len` bytes of the stream from `offset` on; fewer where it ends.
    fn ranges(&self, offset: usize, len: usize) -> impl Iterator<Item = GuestRange> {
        let end = offset.saturating_add(len);
        let first = self
            .parts
            .partition_point(|part| part.start + part.range.len <= offset);
        self.parts[first..]
            .iter()
            .take_while(move |part| part.start < end)
            .map(move |part| {
                let from = offset.max(part.start);
                let to = end.min(part.start + part.range.len);
                GuestRange {
                    gpa: part.range.gpa + (from - part.start) as u64,
                    len: to - from,
                }
            })
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Chain {
    /// Follows and checks all descriptors (2.7.5).
    pub(super) fn new(
        memory: GuestMemory,
        descriptors: DescriptorChain<&<GuestMemory as std::ops::Deref>::Target>,
    ) -> Result<Self, Error> {
        let head = descriptors.head_index();
        let mut readable = Segments::default();
        let mut writable = Segments::default();
        // A chain ends with a descriptor that names no next one. Where the iterator ends otherwise it ran
        // into a loop, the end of the table, a nested or impossible indirect table, or 2^32 bytes.
        let mut ended = false;
        for (count, descriptor) in descriptors.enumerate() {
            if count >= MAX_DESCRIPTORS {
                return Err(Error::Chain { head });
            }
            ended = !descriptor.has_next();
            let (gpa, len) = (descriptor.addr(), descriptor.len());
            if len == 0 {
                continue;
            }
            if !GuestMemoryBackend::check_range(&*memory, gpa, len as usize) {
                return Err(Error::Wild {
                    head,
                    gpa: gpa.0,
                    len,
                });
            }
            let range = GuestRange {
                gpa: gpa.0,
                len: len as usize,
            };
            if descriptor.is_write_only() {
                writable.push(range);
            } else if writable.parts.is_empty() {
                readable.push(range);
            } else {
                return Err(Error::ChainOrder { head });
            }
        }
        if !ended {
            return Err(Error::Chain { head });
        }
        Ok(Self {
            head,
            memory,
            readable,
            writable,
        })
    }

    /// Index of the first descriptor, by which the driver knows the chain.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The bytes that the driver wrote.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            chain: self,
            position: 0,
        }
    }

    /// The space that the driver gave.
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            chain: self,
            position: 0,
        }
    }
}

/// The driver-written bytes of a chain: a stream, and by place as a [`RequestSource`].
pub struct Reader<'a> {
    chain: &'a Chain,
    position: usize,
}

impl Reader<'_> {
    /// Bytes not yet read from the stream.
    pub fn remaining(&self) -> usize {
        self.chain.readable.len - self.position
    }

    /// Skips `count` bytes of the stream, or what is left of it.
    pub fn skip(&mut self, count: usize) {
        self.position += count.min(self.remaining());
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.remaining());
        self.read_at(self.position, &mut bytes[..count])?;
        self.position += count;
        Ok(count)
    }
}

impl RequestSource for Reader<'_> {
    fn len(&self) -> usize {
        self.chain.readable.len
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        if !self.chain.readable.holds(offset, bytes.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = bytes;
        for range in self.chain.readable.ranges(offset, rest.len()) {
            let (part, others) = rest.split_at_mut(range.len);
            let result = self.chain.memory.read_slice(part, GuestAddress(range.gpa));
            result.map_err(io::Error::other)?;
            rest = others;
        }
        Ok(())
    }

    fn write_to_file(&self, offset: usize, len: usize, file: &File, file_offset: u64) -> io::Result<usize> {
        if !self.chain.readable.holds(offset, len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let ranges: Vec<_> = self.chain.readable.ranges(offset, len).collect();
        self.chain.memory.write_to_file(&ranges, file, file_offset)
    }
}

/// The device-writable space of a chain: a stream, and by place as a [`ReplySink`].
pub struct Writer<'a> {
    chain: &'a Chain,
    position: usize,
}

impl Writer<'_> {
    /// Bytes that still fit into the stream.
    pub fn remaining(&self) -> usize {
        self.chain.writable.len - self.position
    }

    /// Bytes written to the stream.
    pub fn written(&self) -> usize {
        self.position
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.remaining());
        self.write_at(self.position, &bytes[..count])?;
        self.position += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReplySink for Writer<'_> {
    fn capacity(&self) -> usize {
        self.chain.writable.len
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        if !self.chain.writable.holds(offset, bytes.len()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut rest = bytes;
        for range in self.chain.writable.ranges(offset, rest.len()) {
            let (part, others) = rest.split_at(range.len);
            let result = self.chain.memory.write_slice(part, GuestAddress(range.gpa));
            result.map_err(io::Error::other)?;
            rest = others;
        }
        Ok(())
    }

    fn fill_from_file(
        &mut self,
        offset: usize,
        len: usize,
        file: &File,
        file_offset: u64,
    ) -> io::Result<usize> {
        if !self.chain.writable.holds(offset, len) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let ranges: Vec<_> = self.chain.writable.ranges(offset, len).collect();
        self.chain.memory.read_from_file(&ranges, file, file_offset)
    }
}
