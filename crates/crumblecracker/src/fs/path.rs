//! Paths of the guest, which are bytes whatever the host is.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What names a file in the guest: text, bytes, or a path of the host's `std`.
///
/// A path that does not start with `/` starts at the root all the same. The separator is `/`, also on hosts
/// whose own is another: there [`Path::join`] makes paths that no guest understands, and text is the better
/// choice.
pub trait GuestPath {
    /// The path's bytes, without a NUL behind them.
    fn guest_path(&self) -> &[u8];
}

impl<T: GuestPath + ?Sized> GuestPath for &T {
    fn guest_path(&self) -> &[u8] {
        (**self).guest_path()
    }
}

impl GuestPath for [u8] {
    fn guest_path(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> GuestPath for [u8; N] {
    fn guest_path(&self) -> &[u8] {
        self
    }
}

impl GuestPath for Vec<u8> {
    fn guest_path(&self) -> &[u8] {
        self
    }
}

impl GuestPath for str {
    fn guest_path(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl GuestPath for String {
    fn guest_path(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl GuestPath for OsStr {
    fn guest_path(&self) -> &[u8] {
        self.as_encoded_bytes()
    }
}

impl GuestPath for OsString {
    fn guest_path(&self) -> &[u8] {
        self.as_encoded_bytes()
    }
}

impl GuestPath for Path {
    fn guest_path(&self) -> &[u8] {
        self.as_os_str().as_encoded_bytes()
    }
}

impl GuestPath for PathBuf {
    fn guest_path(&self) -> &[u8] {
        self.as_os_str().as_encoded_bytes()
    }
}

/// The directory a path's last name is in; `None` for the root, and for a name alone.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    let path = without_trailing_slashes(path);
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let parent = without_trailing_slashes(&path[..slash]);
    match (parent, path) {
        ([], []) => None,
        ([], _) => Some(b"/"),
        (parent, _) => Some(parent),
    }
}

fn without_trailing_slashes(path: &[u8]) -> &[u8] {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    &path[..end]
}

/// `name` in `directory`.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if directory.is_empty() || directory.ends_with(b"/") {
        b""
    } else {
        b"/"
    };
    [directory, separator, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_of_paths_is_the_directory_of_their_last_name() {
        assert_eq!(parent(b"/a/b"), Some(b"/a".as_slice()));
        assert_eq!(parent(b"/a//b//"), Some(b"/a".as_slice()));
        assert_eq!(parent(b"a/b"), Some(b"a".as_slice()));
        assert_eq!(parent(b"/a"), Some(b"/".as_slice()));
    }

    #[test]
    fn parent_of_the_root_and_of_a_name_is_none() {
        assert_eq!(parent(b"/"), None);
        assert_eq!(parent(b"//"), None);
        assert_eq!(parent(b"a"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn join_puts_one_slash_between() {
        assert_eq!(join(b"/a", b"b"), b"/a/b");
        assert_eq!(join(b"/", b"b"), b"/b");
        assert_eq!(join(b"", b"b"), b"b");
    }

    #[test]
    fn guest_path_of_text_bytes_and_paths_is_the_same() {
        let paths: [&dyn GuestPath; 5] = [
            &"/a/b",
            &String::from("/a/b"),
            b"/a/b",
            &Path::new("/a/b"),
            &PathBuf::from("/a/b"),
        ];

        assert!(paths.iter().all(|path| path.guest_path() == b"/a/b"));
    }
}
