//! Entries of a directory, as the kernel's getdents64(2) lays them out.

use alloc::vec::Vec;

use crate::{Error, wire};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Inode number.
    pub inode: u64,
    /// Type as `d_type` has it (`st_mode >> 12`), 0 where the file system does not say.
    pub kind: u8,
    /// Its name: not empty, no slash and no NUL in it. `.` and `..` are among them.
    pub name: Vec<u8>,
}

/// The entries in a FileData that answered [`crate::FileRequest::ReadDirectory`].
///
/// # Errors
/// [`Error::BadValue`] for bytes that are no entries, or names no directory can hold.
pub fn directory_entries(mut bytes: &[u8]) -> Result<Vec<DirectoryEntry>, Error> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = split_entry(bytes).ok_or(Error::BadValue {
            kind: wire::KIND_FILE_DATA,
            field: "directory entry",
        })?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}

fn split_entry(bytes: &[u8]) -> Option<(DirectoryEntry, &[u8])> {
    let inode = u64::from_le_bytes(*bytes.get(wire::ENTRY_INODE..)?.first_chunk()?);
    let len = u16::from_le_bytes(*bytes.get(wire::ENTRY_LEN..)?.first_chunk()?);
    let (entry, rest) = bytes.split_at_checked(len.into())?;
    let kind = *entry.get(wire::ENTRY_TYPE)?;
    let name = entry.get(wire::ENTRY_NAME..)?.split(|byte| *byte == 0).next()?;
    // The rest of a name without its NUL would run into the next entry.
    let ends = wire::ENTRY_NAME + name.len() < entry.len();
    if !ends || name.is_empty() || name.contains(&b'/') {
        return None;
    }
    let entry = DirectoryEntry {
        inode,
        kind,
        name: name.to_vec(),
    };
    Some((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], len: u16) -> Vec<u8> {
        let mut bytes = 7u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(8);
        bytes.extend_from_slice(name);
        bytes.resize(usize::from(len).max(bytes.len()), 0);
        bytes
    }

    #[test]
    fn entries_one_after_the_other_are_all_found() {
        let bytes = [entry(b".", 24), entry(b"name", 32)].concat();

        let found = directory_entries(&bytes).unwrap();

        let names: Vec<_> = found.iter().map(|entry| entry.name.as_slice()).collect();
        assert_eq!(names, [b".".as_slice(), b"name"]);
        assert_eq!((found[1].inode, found[1].kind), (7, 8));
    }

    #[test]
    fn entry_longer_than_the_bytes_is_refused() {
        let mut bytes = entry(b"name", 32);
        bytes.truncate(31);

        assert!(directory_entries(&bytes).is_err());
    }

    #[test]
    fn entry_too_short_for_its_fields_is_refused() {
        for len in [0u16, 1, 18, 19] {
            let mut bytes = entry(b"name", 32);
            bytes[wire::ENTRY_LEN..wire::ENTRY_LEN + 2].copy_from_slice(&len.to_le_bytes());

            assert!(directory_entries(&bytes).is_err(), "{len}");
        }
    }

    #[test]
    fn entry_whose_name_has_no_end_is_refused() {
        assert!(directory_entries(&entry(b"12345", 24)).is_err());
    }

    #[test]
    fn entry_whose_name_is_a_path_or_nothing_is_refused() {
        assert!(directory_entries(&entry(b"../x", 32)).is_err());
        assert!(directory_entries(&entry(b"", 32)).is_err());
    }
}
