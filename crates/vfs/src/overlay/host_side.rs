//! What the host itself reads from the tree and puts into it.

use std::sync::Arc;

use rustix::io::Errno;

use super::Overlay;

use super::slices::{SliceSink, SliceSource};
use crate::attr::FileKind;
use crate::error::Error;
use crate::protocol::{NAME_MAX, PERMISSION_BITS, ROOT_ID};
use crate::sync::read;
use crate::transfer::{ReadBuffer, WriteSource};
use crate::tree::{Caller, NewFile, Tree, WriteKind};

/// Most symbolic links followed for one path, as Linux has it.
const SYMLINKS_MAX: usize = 40;
const ROOT_CALLER: Caller = Caller { uid: 0, gid: 0 };

impl Overlay {
    /// Puts a regular file into the tree, as a file of the guest's that the guest may then change.
    ///
    /// `path` is taken from the root. Directories that are missing are made, of mode 0755 and owned by root;
    /// symbolic links on the way to the last name are followed inside the tree. What has the last name
    /// already is replaced, a symbolic link too, so that its target stays as it is. To be called before the
    /// guest has seen the tree: it would not ask again about names it knows.
    ///
    /// # Errors
    /// [`Error::GuestPath`] with EISDIR when a directory has the name, ENOTDIR when a file is in the way,
    /// EINVAL when the path has no last name, ENOSPC when the overlay is full.
    pub fn insert_file(&self, path: &str, mode: u32, uid: u32, gid: u32, bytes: &[u8]) -> Result<(), Error> {
        let wrap = |source| Error::GuestPath {
            path: path.to_owned(),
            source,
        };
        self.insert(path.as_bytes(), mode, Caller { uid, gid }, bytes)
            .map_err(wrap)
    }

    fn insert(&self, path: &[u8], mode: u32, caller: Caller, bytes: &[u8]) -> Result<(), Errno> {
        let (directory, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() || name == b"." || name == b".." || name.contains(&0) {
            return Err(Errno::INVAL);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let parent = self.walk(directory, true)?;
        match self.remove_name(parent, name, false) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let new = NewFile {
            kind: FileKind::Regular,
            mode: mode & PERMISSION_BITS,
            rdev: 0,
            caller,
        };
        let entry = self.create_name(parent, name, new, &[])?;
        let source = SliceSource(bytes);
        let mut data = WriteSource::new(&source, 0, bytes.len());
        let written = self.write_contents(entry.node, 0, &mut data, WriteKind::default());
        self.forget(entry.node, 1);
        match written {
            Ok(written) if written == bytes.len() => Ok(()),
            outcome => {
                // A file that is cut short would be worse than none.
                self.remove_name(parent, name, false)?;
                Err(outcome.err().unwrap_or(Errno::NOSPC))
            }
        }
    }

    /// Reads a regular file of at most `max_len` bytes, as root of the guest would: symbolic links are
    /// followed, and none leads out of the tree.
    ///
    /// # Errors
    /// [`Error::TooLong`] when the file is longer; [`Error::GuestPath`] with ENOENT, ENOTDIR, EISDIR, ELOOP,
    /// EINVAL (no regular file) or the error of reading.
    pub fn read_file(&self, path: &str, max_len: u64) -> Result<Vec<u8>, Error> {
        let wrap = |source| Error::GuestPath {
            path: path.to_owned(),
            source,
        };
        let ino = self.walk(path.as_bytes(), false).map_err(wrap)?;
        let attr = self.inodes.find(ino).map_err(wrap)?.attr();
        if attr.kind != FileKind::Regular {
            return Err(wrap(super::inode::no_contents(attr.kind)));
        }
        if attr.size > max_len {
            return Err(Error::TooLong {
                path: path.to_owned(),
                limit: max_len,
            });
        }
        let len = usize::try_from(attr.size).map_err(|_| wrap(Errno::FBIG))?;
        let mut bytes = vec![0; len];
        let mut sink = SliceSink(&mut bytes);
        let mut out = ReadBuffer::new(&mut sink, 0, len);
        self.read_contents(ino, 0, &mut out).map_err(wrap)?;
        let filled = out.filled();
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Whether `path`, symbolic links followed inside the tree, leads to a file of any type.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.walk(path.as_bytes(), false).is_ok()
    }

    /// Follows `path` from the root; `make` makes directories that are missing.
    fn walk(&self, path: &[u8], make: bool) -> Result<u64, Errno> {
        let mut at = ROOT_ID;
        // Names still to follow, the next one last.
        let mut rest: Vec<Arc<[u8]>> = Vec::new();
        push_names(&mut rest, path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let found = self.inodes.find(at)?;
            if found.kind() != FileKind::Directory {
                return Err(Errno::NOTDIR);
            }
            if &*name == b".." {
                at = read(&self.names).parent(at).unwrap_or(ROOT_ID);
                continue;
            }
            let target = read(&self.names).find(at, &name);
            at = match target {
                None if make => self.make_directory(at, &name)?,
                None => return Err(Errno::NOENT),
                Some(target) if target.kind == FileKind::Symlink => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let path = self.readlink(target.ino)?;
                    push_names(&mut rest, &path);
                    if path.first() == Some(&b'/') { ROOT_ID } else { at }
                }
                Some(target) => target.ino,
            };
        }
        Ok(at)
    }

    fn make_directory(&self, parent: u64, name: &[u8]) -> Result<u64, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let new = NewFile {
            kind: FileKind::Directory,
            mode: 0o755,
            rdev: 0,
            caller: ROOT_CALLER,
        };
        let entry = self.create_name(parent, name, new, &[])?;
        self.forget(entry.node, 1);
        Ok(entry.node)
    }
}

/// Puts the names of `path` on the stack, the first one on top.
fn push_names(stack: &mut Vec<Arc<[u8]>>, path: &[u8]) {
    let names = path.split(|&byte| byte == b'/').rev();
    stack.extend(
        names
            .filter(|name| !name.is_empty() && *name != b".")
            .map(Arc::from),
    );
}
