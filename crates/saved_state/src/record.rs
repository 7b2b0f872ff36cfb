//! Records: structs whose fields have numbers.
//!
//! A record is the number of its fields, then for each its number, its length and its bytes, in ascending order of
//! number. So a field can be added later, with the value that older records mean, and an unknown one is noticed.

use crate::{Decoder, Error, Saved};

/// Declares a struct that can be saved: `number name: type`, the number being the field's identity for ever. A field
/// that came later than its record says what records without it mean: `5 level: u8 = 0`.
///
/// ```
/// saved_state::record! {
///     /// A port's registers.
///     #[derive(Clone, Debug, PartialEq)]
///     pub struct Port {
///         /// What divides the clock.
///         1 divisor: u16,
///         2 received: Vec<u8>,
///         3 looped: bool = false,
///     }
/// }
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $number:literal $field:ident : $ty:ty $(= $default:expr)?,)*
        }
    ) => {
        $(#[$meta])*
        $visibility struct $name {
            $($(#[$field_meta])* $visibility $field: $ty,)*
        }

        $crate::saved_fields!($name { $($number $field $(= $default)?,)* });
    };
}

/// Makes a struct that is declared elsewhere a record, as [`record!`](crate::record) does with its own: all its fields
/// must be named.
#[macro_export]
macro_rules! saved_fields {
    ($name:ident { $($number:literal $field:ident $(= $default:expr)?,)* }) => {
        impl $crate::Saved for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                let mut fields = $crate::FieldsWriter::new(out);
                $(fields.field($number, $field);)*
                fields.end();
            }

            fn decode(input: &mut $crate::Decoder<'_>) -> Result<Self, $crate::Error> {
                let mut fields = $crate::FieldsReader::new(stringify!($name), input)?;
                let record = Self {
                    $($field: match fields.field($number)? {
                        Some(value) => value,
                        None => $crate::saved_fields!(@default fields $field $($default)?),
                    },)*
                };
                fields.end()?;
                Ok(record)
            }
        }
    };
    (@default $fields:ident $field:ident) => {
        return Err($fields.missing(stringify!($field)))
    };
    (@default $fields:ident $field:ident $default:expr) => {
        $default
    };
}

/// Writes a record's fields; for [`record!`](crate::record).
pub struct FieldsWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    count: u16,
    last: u16,
}

impl<'a> FieldsWriter<'a> {
    /// Begins a record.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        0_u16.encode(out);
        Self {
            out,
            start,
            count: 0,
            last: 0,
        }
    }

    /// Appends a field; numbers ascend from 1.
    pub fn field(&mut self, number: u16, value: &impl Saved) {
        debug_assert!(number > self.last, "numbers ascend");
        number.encode(self.out);
        let place = self.out.len();
        0_u32.encode(self.out);
        value.encode(self.out);
        let len = (self.out.len() - place - 4) as u32;
        self.out[place..place + 4].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
        self.last = number;
    }

    /// Ends the record.
    pub fn end(self) {
        self.out[self.start..self.start + 2].copy_from_slice(&self.count.to_le_bytes());
    }
}

/// Reads a record's fields; for [`record!`](crate::record).
pub struct FieldsReader<'a, 'b> {
    record: &'static str,
    input: &'b mut Decoder<'a>,
    left: u16,
    last: u16,
    /// Number and bytes of the field that was read ahead.
    next: Option<(u16, &'a [u8])>,
}

impl<'a, 'b> FieldsReader<'a, 'b> {
    /// Begins with `record`.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn new(record: &'static str, input: &'b mut Decoder<'a>) -> Result<Self, Error> {
        let mut reader = Self {
            record,
            left: u16::decode(input)?,
            input,
            last: 0,
            next: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.next = None;
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let number = u16::decode(self.input)?;
        if number <= self.last {
            return Err(Error::Order { record: self.record });
        }
        self.last = number;
        let len = u32::decode(self.input)? as usize;
        self.next = Some((number, self.input.take(len, self.record)?));
        Ok(())
    }

    /// The field of that number, if the record has it.
    ///
    /// # Errors
    /// What is wrong with it, or a field before it that nobody asked for.
    pub fn field<T: Saved>(&mut self, number: u16) -> Result<Option<T>, Error> {
        match self.next {
            Some((found, bytes)) if found == number => {
                let value = T::from_bytes(bytes)?;
                self.advance()?;
                Ok(Some(value))
            }
            Some((found, _)) if found < number => Err(self.unknown(found)),
            _ => Ok(None),
        }
    }

    /// That a field must be there.
    pub fn missing(&self, field: &'static str) -> Error {
        Error::MissingField {
            record: self.record,
            field,
        }
    }

    fn unknown(&self, number: u16) -> Error {
        Error::UnknownField {
            record: self.record,
            number,
        }
    }

    /// Ends the record.
    ///
    /// # Errors
    /// [`Error::UnknownField`].
    pub fn end(self) -> Result<(), Error> {
        match self.next {
            None => Ok(()),
            Some((number, _)) => Err(self.unknown(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    record! {
        /// Before.
        #[derive(Clone, Debug, PartialEq)]
        struct Old {
            1 divisor: u16,
            2 received: Vec<u8>,
        }
    }

    record! {
        /// After.
        #[derive(Clone, Debug, PartialEq)]
        struct New {
            1 divisor: u16,
            2 received: Vec<u8>,
            3 looped: bool = true,
        }
    }

    fn old() -> Old {
        Old {
            divisor: 1,
            received: vec![7, 8],
        }
    }

    #[test]
    fn record_has_the_documented_bytes() {
        let wanted = [
            2, 0, // two fields
            1, 0, 2, 0, 0, 0, 1, 0, // the first
            2, 0, 6, 0, 0, 0, 2, 0, 0, 0, 7, 8, // the second
        ];
        assert_eq!(old().to_bytes(), wanted);
    }

    #[test]
    fn older_record_means_its_default_and_a_newer_one_is_refused() {
        let new = New::from_bytes(&old().to_bytes()).unwrap();
        assert!(new.looped);
        assert!(matches!(
            Old::from_bytes(&new.to_bytes()),
            Err(Error::UnknownField { number: 3, .. })
        ));
    }

    #[test]
    fn missing_repeated_and_trailing_fields_are_refused() {
        let missing = [1, 0, 1, 0, 2, 0, 0, 0, 1, 0];
        assert!(matches!(
            Old::from_bytes(&missing),
            Err(Error::MissingField {
                field: "received",
                ..
            })
        ));
        let repeated = [2, 0, 1, 0, 2, 0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 0];
        assert!(matches!(Old::from_bytes(&repeated), Err(Error::Order { .. })));
        let mut trailing = old().to_bytes();
        trailing.push(0);
        assert!(matches!(Old::from_bytes(&trailing), Err(Error::Trailing(1))));
    }

    proptest! {
        #[test]
        fn foreign_records_are_refused_or_read(bytes: Vec<u8>) {
            let _ = New::from_bytes(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(at in 0_usize..22, value: u8) {
            let mut bytes = old().to_bytes();
            bytes[at] = value;
            let _ = Old::from_bytes(&bytes);
        }
    }
}
