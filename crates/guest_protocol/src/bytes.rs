//! Writing and reading of a payload's fields; nothing here can run past an end.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Error, wire};

/// Appends one frame to a buffer, or leaves the buffer as it was.
pub(crate) struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    kind: u16,
    error: Option<Error>,
}

impl<'a> FrameWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, kind: u16, stream: u8, id: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&[stream, 0]);
        out.extend_from_slice(&id.to_le_bytes());
        Self {
            out,
            start,
            kind,
            error: None,
        }
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    /// A string of at most `max` bytes and its NUL.
    pub(crate) fn string(&mut self, field: &'static str, value: &[u8], max: usize) {
        self.require(field, value.len() <= max);
        if value.contains(&0) {
            self.error.get_or_insert(Error::NulInString(field));
        }
        self.bytes(value);
        self.out.push(0);
    }

    /// Notes a wrong `field` unless `good`.
    pub(crate) fn require(&mut self, field: &'static str, good: bool) {
        if !good {
            self.error.get_or_insert(Error::BadValue {
                kind: self.kind,
                field,
            });
        }
    }

    /// Writes the payload's length, or takes everything back.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let len = self.out.len() - self.start - wire::HEADER_LEN;
        let max = max_payload(self.kind);
        let error = self.error.or((len > max).then_some(Error::PayloadTooLong {
            kind: self.kind,
            len,
            max,
        }));
        if let Some(error) = error {
            self.out.truncate(self.start);
            return Err(error);
        }
        // `max` is far below u32::MAX.
        self.out[self.start..self.start + 4].copy_from_slice(&(len as u32).to_le_bytes());
        Ok(())
    }
}

/// The longest payload a kind may have.
pub(crate) const fn max_payload(kind: u16) -> usize {
    match kind {
        wire::KIND_DATA => wire::MAX_DATA,
        wire::KIND_HELLO => wire::HELLO_FIXED + wire::MAX_RELEASE,
        wire::KIND_FAILED => wire::FAILED_FIXED + wire::MAX_TEXT,
        wire::KIND_MARK => wire::MARK_FIXED + wire::MAX_TEXT,
        wire::KIND_EXEC => wire::MAX_PAYLOAD,
        wire::KIND_MOUNT => wire::MOUNT_FIXED + wire::MAX_TAG + 2 * wire::MAX_PATH + 3,
        wire::KIND_MOUNT_ROOT => wire::MOUNT_FIXED + wire::MAX_TAG + 1,
        wire::KIND_FILE => wire::FILE_FIXED + wire::MAX_DATA,
        wire::KIND_FILE_DATA => wire::MAX_DATA,
        wire::KIND_FILE_METADATA => wire::METADATA_LEN,
        wire::KIND_CONFIGURE => wire::CONFIGURE_FIXED + wire::MAX_HOSTNAME + 1 + wire::MAX_ENTROPY,
        _ => wire::EXITED_LEN,
    }
}

/// Reads a payload from its start.
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
    kind: u16,
    len: usize,
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(kind: u16, payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            kind,
            len: payload.len(),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn id_bytes(&mut self) -> Result<[u8; 16], Error> {
        self.array()
    }

    /// A NUL-terminated string of at most `max` bytes.
    pub(crate) fn string(&mut self, field: &'static str, max: usize) -> Result<Vec<u8>, Error> {
        let len = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| self.wrong_length())?;
        if len > max {
            return Err(self.bad(field));
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = &rest[1..];
        Ok(head.to_vec())
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Everything that is left, as text for people.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.rest()).into_owned()
    }

    /// Takes `n` bytes that the specification sets to zero, whatever they are.
    pub(crate) fn skip(&mut self, n: usize) -> Result<(), Error> {
        self.rest = self.rest.get(n..).ok_or_else(|| self.wrong_length())?;
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.wrong_length())
        }
    }

    pub(crate) fn wrong_length(&self) -> Error {
        Error::WrongLength {
            kind: self.kind,
            len: self.len,
        }
    }

    pub(crate) fn bad(&self, field: &'static str) -> Error {
        Error::BadValue {
            kind: self.kind,
            field,
        }
    }
}
