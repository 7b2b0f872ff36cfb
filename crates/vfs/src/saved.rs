//! What the records of all trees are made of.

use saved_state::{Decoder, Error, Saved, require};

use crate::attr::{FileKind, Timestamp};
use crate::protocol::NAME_MAX;

/// Largest state of one tree in bytes, contents of files apart: a field of a record counts its bytes in 32 bits.
const STATE_MAX: u64 = 1 << 30;
/// What an element counts for besides its texts: no less than it takes in a record, and so much that elements
/// worth [`STATE_MAX`] are no more than a sequence of a record can have (2^24).
const ELEMENT: u64 = 64;

/// How much state may still be saved.
pub(crate) struct Room {
    left: u64,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { left: STATE_MAX }
    }

    /// Takes room for an element of up to `elements` times 64 bytes, and `texts` bytes of text.
    pub(crate) fn take(&mut self, elements: u64, texts: usize) -> Result<(), crate::Error> {
        self.left = elements
            .checked_mul(ELEMENT)
            .and_then(|size| size.checked_add(texts as u64))
            .and_then(|size| self.left.checked_sub(size))
            .ok_or(crate::Error::StateTooLarge)?;
        Ok(())
    }
}

/// Bytes, counted in 64 bits and copied at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Saved for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.0.len() as u64).encode(out);
        out.extend_from_slice(&self.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let len = usize::try_from(u64::decode(input)?).map_err(|_| Error::Truncated("bytes"))?;
        Ok(Self(input.take(len, "bytes")?.to_vec()))
    }
}

impl Bytes {
    /// The bytes as the name of a directory entry.
    pub(crate) fn into_name(self) -> Result<Vec<u8>, Error> {
        let name = self.0;
        let possible = !name.is_empty()
            && name.len() <= NAME_MAX
            && name != b"."
            && name != b".."
            && !name.iter().any(|byte| matches!(byte, b'/' | 0));
        require(possible, "the name of a file")?;
        Ok(name)
    }
}

impl Saved for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        self.seconds.encode(out);
        self.nanoseconds.encode(out);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let time = Self {
            seconds: Saved::decode(input)?,
            nanoseconds: u32::decode(input)?,
        };
        require(time.nanoseconds < 1_000_000_000, "the time of a file")?;
        Ok(time)
    }
}

impl Saved for FileKind {
    /// `DT_*`, as in a directory entry.
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.directory_type() as u8);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let number = u32::from(u8::decode(input)?);
        Self::from_mode(number << 12)
            .filter(|kind| kind.directory_type() == number)
            .ok_or(Error::Value("the type of a file"))
    }
}

/// That numbers ascend and none is there twice, so that one state has one record.
pub(crate) fn require_ascending(
    numbers: impl IntoIterator<Item = u64>,
    what: &'static str,
) -> Result<(), Error> {
    let mut last = None;
    for number in numbers {
        require(last.is_none_or(|last| last < number), what)?;
        last = Some(number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_times_and_names_have_one_encoding() {
        for kind in [
            FileKind::Regular,
            FileKind::Directory,
            FileKind::Symlink,
            FileKind::CharDevice,
            FileKind::BlockDevice,
            FileKind::Fifo,
            FileKind::Socket,
        ] {
            assert_eq!(FileKind::from_bytes(&kind.to_bytes()).unwrap(), kind);
        }
        let before = Timestamp {
            seconds: -5,
            nanoseconds: 999_999_999,
        };
        assert_eq!(Timestamp::from_bytes(&before.to_bytes()).unwrap(), before);
        for number in [0, 3, 0x14, 0x18] {
            assert!(FileKind::from_bytes(&[number]).is_err());
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 256]] {
            assert!(Bytes(name.to_vec()).into_name().is_err());
        }
        assert!(Bytes(vec![b'n'; 255]).into_name().is_ok());
    }

    #[test]
    fn bytes_longer_than_what_is_there_allocate_nothing() {
        assert!(Bytes::from_bytes(&[0xff; 8]).is_err());
        assert!(Bytes::from_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 7]).is_err());
    }

    #[test]
    fn room_ends_before_a_record_could_overflow() {
        let mut room = Room::new();
        assert!(room.take(1 << 23, 1 << 28).is_ok());
        assert!(room.take(1 << 22, 0).is_ok());
        assert!(room.take(1, 0).is_err());
        assert!(room.take(u64::MAX, 0).is_err());
    }
}
