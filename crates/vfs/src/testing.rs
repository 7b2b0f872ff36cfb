//! A FUSE client for tests: real bytes in, real bytes out.

use std::fs::File;
use std::io;

use device_backends::{FileService, ReplySink, RequestSource};
use rustix::io::{Errno, pread, pwrite};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::protocol::*;
use crate::server::Server;

/// The bytes of a request.
pub(crate) struct Request(pub(crate) Vec<u8>);

impl RequestSource for Request {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(self.0.get(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_to_file(&self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<usize> {
        let bytes = self
            .0
            .get(offset..offset + len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(pwrite(file, bytes, at)?)
    }
}

/// Space for a reply.
pub(crate) struct Reply(pub(crate) Vec<u8>);

impl ReplySink for Reply {
    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        self.0
            .get_mut(offset..end)
            .ok_or(io::ErrorKind::WriteZero)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn fill_from_file(&mut self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<usize> {
        let space = self
            .0
            .get_mut(offset..offset + len)
            .ok_or(io::ErrorKind::WriteZero)?;
        Ok(pread(file, space, at)?)
    }
}

/// A guest's kernel.
pub(crate) struct Client<'a> {
    pub(crate) server: &'a Server,
    /// Space it gives for replies, in bytes.
    pub(crate) capacity: usize,
}

impl<'a> Client<'a> {
    /// A client that has not yet sent FUSE_INIT.
    pub(crate) fn new(server: &'a Server) -> Self {
        Self {
            server,
            capacity: (1 << 20) + 4096,
        }
    }

    /// A client after FUSE_INIT with all features.
    pub(crate) fn connected(server: &'a Server) -> Self {
        let client = Self::new(server);
        client.init(7, 41).expect("INIT");
        client
    }

    pub(crate) fn init(&self, major: u32, minor: u32) -> Result<InitOut, Errno> {
        let flags = InitIn {
            major,
            minor,
            max_readahead: 1 << 17,
            flags: !0,
            flags2: !0,
            unused: [0; 11],
        };
        self.call(opcode::INIT, 0, &[flags.as_bytes()])
            .map(|bytes| take(&bytes))
    }

    /// Sends raw bytes and returns the raw reply, as long as the server says it is.
    pub(crate) fn raw(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut reply = Reply(vec![0xaa; self.capacity]);
        let len = self.server.handle(&Request(bytes), &mut reply);
        reply.0.truncate(len);
        reply.0
    }

    /// Sends a request and returns what follows the reply's header.
    pub(crate) fn call(&self, opcode: u32, nodeid: u64, arguments: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        let reply = self.raw(message(opcode, nodeid, arguments));
        let (header, payload) = OutHeader::read_from_prefix(&reply).expect("a whole header");
        assert_eq!(
            header.len as usize,
            reply.len(),
            "the length is that of the reply"
        );
        assert_eq!(header.unique, 77);
        match header.error {
            0 => Ok(payload.to_vec()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    pub(crate) fn lookup(&self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let found: EntryOut = self
            .call(opcode::LOOKUP, parent, &[&text(name)])
            .map(|bytes| take(&bytes))?;
        if found.nodeid == 0 {
            Err(Errno::NOENT)
        } else {
            Ok(found)
        }
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let mkdir = MkdirIn {
            mode: 0o755,
            umask: 0,
        };
        self.call(opcode::MKDIR, parent, &[mkdir.as_bytes(), &text(name)])
            .map(|bytes| take(&bytes))
    }

    pub(crate) fn mknod(&self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let mknod = MknodIn {
            mode: 0o100644,
            ..MknodIn::default()
        };
        self.call(opcode::MKNOD, parent, &[mknod.as_bytes(), &text(name)])
            .map(|bytes| take(&bytes))
    }

    pub(crate) fn unlink(&self, parent: u64, name: &str) -> Result<(), Errno> {
        self.call(opcode::UNLINK, parent, &[&text(name)]).map(drop)
    }

    pub(crate) fn write(&self, nodeid: u64, fh: u64, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let write = WriteIn {
            fh,
            offset,
            size: bytes.len() as u32,
            ..WriteIn::default()
        };
        let reply = self.call(opcode::WRITE, nodeid, &[write.as_bytes(), bytes])?;
        Ok(take::<WriteOut>(&reply).size)
    }

    pub(crate) fn read(&self, nodeid: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let read = ReadIn {
            fh,
            offset,
            size,
            ..ReadIn::default()
        };
        self.call(opcode::READ, nodeid, &[read.as_bytes()])
    }

    pub(crate) fn getattr(&self, nodeid: u64) -> Result<AttrOut, Errno> {
        self.call(opcode::GETATTR, nodeid, &[GetattrIn::default().as_bytes()])
            .map(|bytes| take(&bytes))
    }

    pub(crate) fn statfs(&self) -> StatfsOut {
        take(&self.call(opcode::STATFS, ROOT_ID, &[]).expect("STATFS"))
    }

    pub(crate) fn forget(&self, nodeid: u64, nlookup: u64) {
        let reply = self.raw(message(
            opcode::FORGET,
            nodeid,
            &[ForgetIn { nlookup }.as_bytes()],
        ));
        assert!(reply.is_empty(), "FORGET has no reply");
    }

    /// Names and offsets of one READDIR.
    pub(crate) fn readdir(&self, nodeid: u64, offset: u64, size: u32) -> Vec<(String, u64)> {
        self.readdir_open(nodeid, 0, offset, size).expect("READDIR")
    }

    /// The same by a handle.
    pub(crate) fn readdir_open(
        &self,
        nodeid: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<(String, u64)>, Errno> {
        let read = ReadIn {
            fh,
            offset,
            size,
            ..ReadIn::default()
        };
        let reply = self.call(opcode::READDIR, nodeid, &[read.as_bytes()])?;
        let mut names = Vec::new();
        let mut rest = reply.as_slice();
        while let Ok((entry, tail)) = Dirent::read_from_prefix(rest) {
            let len = entry.namelen as usize;
            names.push((String::from_utf8_lossy(&tail[..len]).into_owned(), entry.off));
            rest = &tail[len.next_multiple_of(RECORD_ALIGNMENT)..];
        }
        Ok(names)
    }
}

/// A request with its header.
pub(crate) fn message(opcode: u32, nodeid: u64, arguments: &[&[u8]]) -> Vec<u8> {
    let payload = arguments.concat();
    let header = InHeader {
        len: (size_of::<InHeader>() + payload.len()) as u32,
        opcode,
        unique: 77,
        nodeid,
        ..InHeader::default()
    };
    [header.as_bytes(), &payload].concat()
}

/// A string with its NUL.
pub(crate) fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// A structure at the start of a reply.
pub(crate) fn take<T: FromBytes + Immutable>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes).expect("a whole structure").0
}
