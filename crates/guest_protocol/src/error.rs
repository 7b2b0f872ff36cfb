//! What can be wrong with a frame.

use core::fmt;

/// Why bytes are not a frame, or a message cannot become one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A header announces a payload longer than its kind may have.
    PayloadTooLong {
        /// The kind in the header, or of the message to encode.
        kind: u16,
        /// The announced or needed length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// A payload is shorter or longer than its kind's layout.
    WrongLength {
        /// The kind in the header.
        kind: u16,
        /// The length it has, in bytes.
        len: usize,
    },
    /// A frame of a kind that this direction does not have.
    UnknownKind(u16),
    /// A field holds a value that has no meaning.
    BadValue {
        /// The kind in the header, or of the message to encode.
        kind: u16,
        /// Which field.
        field: &'static str,
    },
    /// A string to encode contains a NUL byte, which ends strings on this channel.
    NulInString(&'static str),
    /// The two sides have no protocol version in common.
    NoCommonVersion {
        /// Oldest and newest version of the guest.
        guest: (u16, u16),
        /// Oldest and newest version of the host.
        host: (u16, u16),
    },
    /// More bytes came, or more credit, than the stream's window allows.
    CreditExceeded,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::PayloadTooLong { kind, len, max } => {
                write!(
                    f,
                    "frame of kind {kind:#06x} would carry {len} bytes; at most {max} are allowed"
                )
            }
            Error::WrongLength { kind, len } => {
                write!(
                    f,
                    "frame of kind {kind:#06x} has a payload of {len} bytes, which its layout has not"
                )
            }
            Error::UnknownKind(kind) => write!(f, "frame of unknown kind {kind:#06x}"),
            Error::BadValue { kind, field } => {
                write!(f, "frame of kind {kind:#06x} has a meaningless {field}")
            }
            Error::NulInString(field) => write!(f, "{field} contains a NUL byte"),
            Error::NoCommonVersion { guest, host } => write!(
                f,
                "guest program speaks control protocol {} to {}, this program {} to {}",
                guest.0, guest.1, host.0, host.1
            ),
            Error::CreditExceeded => f.write_str("stream went past its credit"),
        }
    }
}

impl core::error::Error for Error {}
