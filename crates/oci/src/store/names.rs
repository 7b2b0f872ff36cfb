//! Name records: which image a name means for a platform.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// One name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NameRecord {
    pub(super) name: String,
    /// The platform that was asked for.
    pub(super) platform: Platform,
    /// Digest of the image's configuration.
    pub(super) image: Digest,
    /// Digest of the manifest the registry or archive had.
    pub(super) manifest: Option<Digest>,
    /// Seconds since 1970.
    pub(super) stored_at: u64,
}

impl NameRecord {
    /// Reads a record; one that is not there or damaged is `None`.
    pub(super) fn read(path: &Path) -> Result<Option<NameRecord>> {
        match std::fs::read(path) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and plain structures always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
