//! What a snapshot says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The format this version writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// The most bytes of a manifest.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
/// The most bytes of all units together.
pub(crate) const MAX_UNITS_LEN: u64 = 256 << 20;
const MAX_UNITS: usize = 4096;
const MAX_FILES: usize = 64;
const MAX_NAME: usize = 128;

/// What must be the same on the machine that restores: by name, such as `cpu` or `machine`, a value that a person can
/// read.
pub type Identity = BTreeMap<String, String>;

/// The header of a snapshot, readable without anything else of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// What must agree.
    pub identity: Identity,
    /// The snapshot that has some files in common with this one: the digest of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The units, in the order in which they lie in the file.
    pub units: Vec<UnitEntry>,
    /// Files beside manifest and units: guest RAM.
    pub files: Vec<FileEntry>,
}

/// Where one unit lies in the file `units`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitEntry {
    /// Such as `vcpu0` or `uart0`.
    pub name: String,
    /// The layout of its record.
    pub schema: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// SHA-256 of the record, in hexadecimal digits.
    pub sha256: String,
}

/// A file of the snapshot's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// SHA-256 of all of them, holes being zeroes, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Parses and checks: what it says is possible, if not true.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        /// A later format may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(Error::Manifest)?;
        if version.format != FORMAT {
            return Err(Error::Format {
                found: version.format,
                known: FORMAT,
            });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(Error::Manifest)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), Error> {
        let impossible = |what: &str| Err(Error::Impossible(what.to_owned()));
        if self.units.len() > MAX_UNITS || self.files.len() > MAX_FILES {
            return impossible("it has too many parts");
        }
        let mut end = 0;
        for unit in &self.units {
            if unit.name.len() > MAX_NAME
                || self.units.iter().filter(|other| other.name == unit.name).count() > 1
            {
                return impossible("a unit's name is too long or there twice");
            }
            if unit.offset != end || unit.len > MAX_UNITS_LEN - end {
                return impossible("its units do not follow each other, or are too large");
            }
            end += unit.len;
        }
        if !self.files.iter().all(|file| is_plain_name(&file.name)) {
            return impossible("a file lies outside of it");
        }
        Ok(())
    }

    /// Bytes of all units together.
    pub(crate) fn units_len(&self) -> u64 {
        self.units.iter().map(|unit| unit.len).sum()
    }
}

/// Whether a file of this name can only be one in the snapshot's own folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            identity: Identity::from([("cpu".to_owned(), "x86-64-v2".to_owned())]),
            parent: None,
            units: vec![UnitEntry {
                name: "uart0".to_owned(),
                schema: 1,
                offset: 0,
                len: 5,
                sha256: "00".to_owned(),
            }],
            files: vec![FileEntry {
                name: "memory".to_owned(),
                len: 4096,
                sha256: "00".to_owned(),
            }],
        }
    }

    fn parse(manifest: &Manifest) -> Result<Manifest, Error> {
        Manifest::parse(&serde_json::to_vec(manifest).unwrap())
    }

    #[test]
    fn parse_of_what_was_written_is_equal() {
        assert_eq!(parse(&manifest()).unwrap(), manifest());
    }

    #[test]
    fn parse_another_format_is_told_as_such() {
        let later = br#"{"format":2,"something":"else"}"#;
        assert!(matches!(
            Manifest::parse(later),
            Err(Error::Format { found: 2, .. })
        ));
    }

    #[test]
    fn parse_lies_are_refused() {
        let lies: [fn(&mut Manifest); 4] = [
            |m| m.units[0].offset = 1,
            |m| m.units[0].len = u64::MAX,
            |m| m.units.push(m.units[0].clone()),
            |m| m.files[0].name = "../memory".to_owned(),
        ];
        for lie in lies {
            let mut manifest = manifest();
            lie(&mut manifest);
            assert!(
                matches!(parse(&manifest), Err(Error::Impossible(_))),
                "{manifest:?}"
            );
        }
    }
}
