//! Values as bytes: fixed-width little-endian numbers, counted sequences.

use std::collections::BTreeMap;

use crate::Error;

/// The most elements of one sequence. Nothing a machine saves comes near it.
const MAX_COUNT: usize = 1 << 24;

/// What can be written to a record and read back.
pub trait Saved: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a value.
    ///
    /// # Errors
    /// Bytes that are no such value.
    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error>;

    /// The value alone.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// The value, and nothing behind it.
    ///
    /// # Errors
    /// As [`Saved::decode`], and [`Error::Trailing`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Decoder::new(bytes);
        let value = Self::decode(&mut input)?;
        input.end()?;
        Ok(value)
    }
}

/// Bytes that are being read.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes, which are part of `what`.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A count of elements of which each takes at least one byte: never more than there are bytes, so that whoever
    /// allocates by it allocates no more than was read.
    fn count(&mut self) -> Result<usize, Error> {
        let count = u32::decode(self)? as usize;
        if count > MAX_COUNT || count > self.rest.len() {
            return Err(Error::Truncated("a sequence"));
        }
        Ok(count)
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// [`Error::Trailing`].
    pub fn end(&self) -> Result<(), Error> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Error::Trailing(more)),
        }
    }
}

macro_rules! numbers {
    ($($ty:ident),*) => {$(
        impl Saved for $ty {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
                let mut bytes = [0; size_of::<$ty>()];
                bytes.copy_from_slice(input.take(size_of::<$ty>(), stringify!($ty))?);
                Ok($ty::from_le_bytes(bytes))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i64);

impl Saved for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        match u8::decode(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Value("a flag")),
        }
    }
}

impl<T: Saved> Saved for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        bool::decode(input)?.then(|| T::decode(input)).transpose()
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.len(), out);
        for element in self {
            element.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let count = input.count()?;
        (0..count).map(|_| T::decode(input)).collect()
    }
}

impl<T: Saved, const N: usize> Saved for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        for element in self {
            element.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let elements = (0..N).map(|_| T::decode(input)).collect::<Result<Vec<_>, _>>()?;
        // As many as were asked for.
        Self::try_from(elements).map_err(|_| Error::Value("an array"))
    }
}

impl Saved for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let bytes = Vec::<u8>::decode(input)?;
        Self::from_utf8(bytes).map_err(|_| Error::Value("a text"))
    }
}

impl<K: Saved + Ord, V: Saved> Saved for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.len(), out);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, Error> {
        let mut map = Self::new();
        for _ in 0..input.count()? {
            let (key, value) = (K::decode(input)?, V::decode(input)?);
            // What is written ascends, so one state has one encoding.
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(Error::Value("the order of a map"));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

/// Sequences longer than [`MAX_COUNT`] cannot be read back; nothing that is saved is.
fn encode_count(count: usize, out: &mut Vec<u8>) {
    debug_assert!(count <= MAX_COUNT);
    (count as u32).encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_beyond_the_bytes_allocate_nothing() {
        assert!(matches!(
            Vec::<u8>::from_bytes(&[0xff; 4]),
            Err(Error::Truncated(_))
        ));
        assert!(Vec::<u64>::from_bytes(&[4, 0, 0, 0, 1, 2, 3, 4]).is_err());
    }

    #[test]
    fn flags_maps_and_texts_have_one_encoding() {
        assert!(bool::from_bytes(&[2]).is_err());
        assert!(String::from_bytes(&[1, 0, 0, 0, 0xff]).is_err());
        let twice = [2, 0, 0, 0, 7, 1, 7, 1];
        assert!(BTreeMap::<u8, u8>::from_bytes(&twice).is_err());
        assert!(matches!(u8::from_bytes(&[1, 2]), Err(Error::Trailing(1))));
    }

    proptest! {
        #[test]
        fn values_come_back(
            numbers: (u8, u16, u32, u64),
            list: Vec<Option<u32>>,
            map: BTreeMap<u16, Vec<u8>>,
            text: String,
            array: [u64; 3],
        ) {
            prop_assert_eq!(u64::from_bytes(&numbers.3.to_bytes()).unwrap(), numbers.3);
            prop_assert_eq!(Vec::<Option<u32>>::from_bytes(&list.to_bytes()).unwrap(), list);
            prop_assert_eq!(BTreeMap::<u16, Vec<u8>>::from_bytes(&map.to_bytes()).unwrap(), map);
            prop_assert_eq!(String::from_bytes(&text.to_bytes()).unwrap(), text);
            prop_assert_eq!(<[u64; 3]>::from_bytes(&array.to_bytes()).unwrap(), array);
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = Vec::<Option<String>>::from_bytes(&bytes);
            let _ = BTreeMap::<u32, Vec<u64>>::from_bytes(&bytes);
        }
    }
}
