//! Frames to bytes and back.

use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::bytes::{FieldReader, max_payload};
use crate::message::Frame;
use crate::{Error, ToGuest, ToHost, wire};

/// A direction of the channel: [`ToGuest`] or [`ToHost`].
pub trait Message: Sized + sealed::Sealed {
    /// Appends the whole frame; on an error `out` is as before.
    #[doc(hidden)]
    fn encode_frame(&self, id: u32, out: &mut Vec<u8>) -> Result<(), Error>;
    /// Reads a payload of the given kind and stream.
    #[doc(hidden)]
    fn decode_payload(kind: u16, stream: u8, payload: &[u8]) -> Result<Self, Error>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::ToGuest {}
    impl Sealed for crate::ToHost {}
}

impl<M: Message> Frame<M> {
    /// Appends the frame's bytes to `out`.
    ///
    /// # Errors
    /// A payload too long for its kind, a NUL in a string, a value out of range; `out` is as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.message.encode_frame(self.id, out)
    }

    /// The frame's bytes alone; errors as [`Frame::encode`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.encode(&mut out)?;
        Ok(out)
    }
}

/// Cuts a byte stream of one direction into frames.
///
/// Bytes are pushed as they arrive, in pieces of any size; frames are taken until there is no whole one left.
/// Between the two it holds at most one incomplete frame ([`wire::MAX_PAYLOAD`] and its header) and what was
/// pushed since. After an error the stream has no next frame: its peer does not speak this protocol, and the
/// channel should be given up.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    taken: usize,
    failed: Option<Error>,
    direction: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            failed: None,
            direction: PhantomData,
        }
    }
}

impl<M: Message> Decoder<M> {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream stands between two frames.
    pub fn is_empty(&self) -> bool {
        self.taken == self.buffer.len()
    }

    /// What was pushed and is no whole frame yet, if all whole ones were taken.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// Bytes that are no frame of this direction; the same error again from then on.
    pub fn next_frame(&mut self) -> Result<Option<Frame<M>>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.cut();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.taken = 0;
        }
        result
    }

    fn cut(&mut self) -> Result<Option<Frame<M>>, Error> {
        let unread = &self.buffer[self.taken..];
        let Some(header) = unread.first_chunk::<{ wire::HEADER_LEN }>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, k0, k1, stream, _, i0, i1, i2, i3] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let kind = u16::from_le_bytes([k0, k1]);
        let max = max_payload(kind);
        if len > max {
            return Err(Error::PayloadTooLong { kind, len, max });
        }
        let Some(payload) = unread.get(wire::HEADER_LEN..wire::HEADER_LEN + len) else {
            return Ok(None);
        };
        let message = M::decode_payload(kind, stream, payload)?;
        self.taken += wire::HEADER_LEN + len;
        Ok(Some(Frame {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            message,
        }))
    }
}

impl Message for ToGuest {
    fn encode_frame(&self, id: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        crate::to_guest::encode(self, id, out)
    }

    fn decode_payload(kind: u16, stream: u8, payload: &[u8]) -> Result<Self, Error> {
        crate::to_guest::decode(kind, stream, FieldReader::new(kind, payload))
    }
}

impl Message for ToHost {
    fn encode_frame(&self, id: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        crate::to_host::encode(self, id, out)
    }

    fn decode_payload(kind: u16, stream: u8, payload: &[u8]) -> Result<Self, Error> {
        crate::to_host::decode(kind, stream, FieldReader::new(kind, payload))
    }
}
