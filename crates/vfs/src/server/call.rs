//! One request being served: its header, its arguments, and the space for its reply.

use device_backends::{ReplySink, RequestSource};
use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::protocol::{InHeader, NAME_MAX, OutHeader, SYMLINK_MAX, XATTR_SIZE_MAX};
use crate::transfer::{ReadBuffer, WriteSource};
use crate::tree::Caller;

/// Length of a reply's header in bytes.
const OUT_HEADER: usize = size_of::<OutHeader>();
/// Longest text of a request: a name, a NUL, and the largest value or target with its NUL.
const TEXT_MAX: usize = NAME_MAX + 1 + XATTR_SIZE_MAX + 1;

/// A request and the space for its reply.
pub(super) struct Call<'a> {
    header: InHeader,
    request: &'a dyn RequestSource,
    /// Where the request ends, by its header; not beyond the bytes there are.
    end: usize,
    reply: &'a mut dyn ReplySink,
}

impl<'a> Call<'a> {
    /// Decodes the header; `None` when it is cut short, so that nothing can be answered.
    pub(super) fn new(request: &'a dyn RequestSource, reply: &'a mut dyn ReplySink) -> Option<Self> {
        let mut header = InHeader::new_zeroed();
        request.read_at(0, header.as_mut_bytes()).ok()?;
        // Of a length that is a lie the bytes that are there count.
        let end = usize::try_from(header.len)
            .unwrap_or(usize::MAX)
            .min(request.len());
        Some(Self {
            header,
            request,
            end,
            reply,
        })
    }

    pub(super) fn opcode(&self) -> u32 {
        self.header.opcode
    }

    pub(super) fn node(&self) -> u64 {
        self.header.nodeid
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            uid: self.header.uid,
            gid: self.header.gid,
        }
    }

    /// The arguments behind the header.
    pub(super) fn arguments(&self) -> Arguments<'a> {
        Arguments {
            request: self.request,
            at: size_of::<InHeader>(),
            end: self.end,
        }
    }

    /// Whether the reply's header at least has space.
    pub(super) fn can_reply(&self) -> bool {
        self.reply.capacity() >= OUT_HEADER
    }

    /// How many bytes may follow the reply's header.
    pub(super) fn reply_space(&self) -> usize {
        self.reply.capacity().saturating_sub(OUT_HEADER)
    }

    /// Space for up to `len` bytes of file contents.
    pub(super) fn read_buffer(&mut self, len: usize) -> ReadBuffer<'_> {
        ReadBuffer::new(self.reply, OUT_HEADER, len)
    }

    /// Fails when `T` will not fit; asked before a change that could not be told about.
    pub(super) fn require_space<T>(&self) -> Result<(), Errno> {
        if self.reply_space() < size_of::<T>() {
            Err(Errno::INVAL)
        } else {
            Ok(())
        }
    }

    /// Replies with one structure.
    pub(super) fn reply<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<usize, Errno> {
        self.reply_at(0, value.as_bytes())
    }

    /// Replies with bytes.
    pub(super) fn reply_bytes(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.reply_at(0, bytes)
    }

    /// Puts `bytes` `offset` bytes behind the reply's header and returns where they end.
    pub(super) fn reply_at(&mut self, offset: usize, bytes: &[u8]) -> Result<usize, Errno> {
        self.reply
            .write_at(OUT_HEADER + offset, bytes)
            .map_err(|_| Errno::INVAL)?;
        Ok(offset + bytes.len())
    }

    /// Writes the reply's header; returns the length of the whole reply.
    pub(super) fn finish(self, outcome: Result<usize, Errno>) -> usize {
        let (payload, error) = match outcome {
            Ok(payload) => (payload, 0),
            Err(errno) => (0, -errno.raw_os_error()),
        };
        let len = OUT_HEADER + payload;
        // A payload was written into the reply's capacity, which a guest describes in 32 bits.
        let wire_len = u32::try_from(len).unwrap_or(u32::MAX);
        let header = OutHeader {
            len: wire_len,
            error,
            unique: self.header.unique,
        };
        match self.reply.write_at(0, header.as_bytes()) {
            Ok(()) => len,
            Err(_) => 0,
        }
    }
}

/// The arguments of a request, taken from front to back.
pub(super) struct Arguments<'a> {
    request: &'a dyn RequestSource,
    at: usize,
    end: usize,
}

impl<'a> Arguments<'a> {
    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// Takes one structure; EINVAL when the request is too short for it.
    pub(super) fn take<T: FromBytes + IntoBytes>(&mut self) -> Result<T, Errno> {
        if self.remaining() < size_of::<T>() {
            return Err(Errno::INVAL);
        }
        let mut value = T::new_zeroed();
        self.request
            .read_at(self.at, value.as_mut_bytes())
            .map_err(|_| Errno::INVAL)?;
        self.at += size_of::<T>();
        Ok(value)
    }

    /// Takes the rest as text.
    pub(super) fn text(self) -> Result<Text, Errno> {
        let len = self.remaining();
        if len > TEXT_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut bytes = vec![0; len];
        self.request
            .read_at(self.at, &mut bytes)
            .map_err(|_| Errno::INVAL)?;
        Ok(Text { bytes, at: 0 })
    }

    /// Takes `len` bytes of file contents, which must all be there.
    pub(super) fn contents(self, len: usize) -> Result<WriteSource<'a>, Errno> {
        if self.remaining() < len {
            return Err(Errno::INVAL);
        }
        Ok(WriteSource::new(self.request, self.at, len))
    }
}

/// The names at the end of a request.
pub(super) struct Text {
    bytes: Vec<u8>,
    at: usize,
}

impl Text {
    /// The next string that a NUL ends.
    fn string(&mut self) -> Result<&[u8], Errno> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
        let start = self.at;
        self.at += len + 1;
        Ok(&self.bytes[start..start + len])
    }

    /// The next string as the name of a directory entry. The kernel never sends `.` or `..`, because this
    /// server does not offer FUSE_EXPORT_SUPPORT.
    pub(super) fn name(&mut self) -> Result<Vec<u8>, Errno> {
        let name = self.string()?;
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name.to_vec())
    }

    /// The next string as the name of an extended attribute.
    pub(super) fn attribute_name(&mut self) -> Result<Vec<u8>, Errno> {
        let name = self.string()?;
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Errno::RANGE);
        }
        Ok(name.to_vec())
    }

    /// The next string as a symbolic link's target.
    pub(super) fn target(&mut self) -> Result<Vec<u8>, Errno> {
        let target = self.string()?;
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        if target.len() > SYMLINK_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(target.to_vec())
    }

    /// The next `len` bytes as they are.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&[u8], Errno> {
        let end = self.at.checked_add(len).ok_or(Errno::INVAL)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Errno::INVAL)?;
        self.at = end;
        Ok(bytes)
    }
}
