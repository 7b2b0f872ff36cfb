use std::io;
use std::path::PathBuf;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value ends before all of it was there.
    #[error("a record ends in the middle of {0}")]
    Truncated(&'static str),
    /// A value is followed by bytes that belong to nothing.
    #[error("{0} bytes follow the end of a record")]
    Trailing(usize),
    /// A field that this version does not know.
    #[error("{record} has field {number}, which this version does not know")]
    UnknownField {
        /// The record.
        record: &'static str,
        /// The field's number.
        number: u16,
    },
    /// A field that must be there.
    #[error("{record} lacks field {field}")]
    MissingField {
        /// The record.
        record: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field twice, or fields out of order.
    #[error("{record} has its fields out of order")]
    Order {
        /// The record.
        record: &'static str,
    },
    /// A value that its type or its owner does not have.
    #[error("{0} has an impossible value")]
    Value(&'static str),
    /// A unit's layout is newer than this version.
    #[error("its layout is number {found}; this version knows up to {newest}")]
    Schema {
        /// What was found.
        found: u16,
        /// The newest that is known.
        newest: u16,
    },
    /// A unit that must be there.
    #[error("the snapshot has no unit {0}")]
    MissingUnit(String),
    /// A unit nobody wants.
    #[error("the snapshot has a unit {0}, which this machine does not")]
    UnknownUnit(String),
    /// What is wrong with one unit.
    #[error("unit {unit} of the snapshot")]
    Unit {
        /// Its name.
        unit: String,
        /// The trouble.
        source: Box<Error>,
    },
    /// A file of the snapshot is not what the manifest says.
    #[error("{what} of the snapshot is damaged: {why}")]
    Damaged {
        /// Which file or unit.
        what: String,
        /// What differs.
        why: String,
    },
    /// The manifest cannot be understood.
    #[error("the snapshot's manifest cannot be read")]
    Manifest(#[source] serde_json::Error),
    /// The manifest says what cannot be.
    #[error("the snapshot's manifest is impossible: {0}")]
    Impossible(String),
    /// Made by another version of the format.
    #[error("the snapshot has format {found}; this version reads format {known}")]
    Format {
        /// What was found.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// The host's file system refuses.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// Says in which unit it was.
    #[must_use]
    pub fn in_unit(self, unit: &str) -> Self {
        match self {
            missing @ Self::MissingUnit(_) => missing,
            other => Self::Unit {
                unit: unit.to_owned(),
                source: Box::new(other),
            },
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// That a value which comes from a file is one its owner can have, `what` naming it.
///
/// # Errors
/// [`Error::Value`] where it is not.
pub fn require(possible: bool, what: &'static str) -> Result<(), Error> {
    possible.then_some(()).ok_or(Error::Value(what))
}
