//! Random sequences of file operations on a mounted tree and on a tmpfs of this machine: every result, every
//! errno and the trees at the end must be the same (see `support` for what mounting needs).

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, XattrFlags, chmodat, fallocate,
    getxattr, linkat, mkdir, open, renameat_with, rmdir, seek, setxattr, symlink, unlink,
};
use rustix::io::Errno;
use support::Mounted;
use vfs::{FileKind, HostShare, HostShareOptions, MemoryTreeBuilder, Overlay, OverlayOptions};

/// Length of the image's larger file: two blocks and a part.
const BIG: usize = 10_000;

#[derive(Clone, Debug)]
enum Operation {
    Create(usize, bool),
    Mkdir(usize),
    Rmdir(usize),
    Unlink(usize),
    Rename(usize, usize, u32),
    Link(usize, usize),
    Symlink(usize, usize),
    Write(usize, u16, u16, u8),
    Append(usize, u16, u8),
    Truncate(usize, u16),
    Fallocate(usize, u16, u16, u8),
    Read(usize, u16, u16),
    Data(usize, u16),
    Chmod(usize, u16),
    SetXattr(usize, u8),
    GetXattr(usize),
    Copy(usize, u16, usize, u16, u16),
    List(usize),
    Stat(usize),
}

/// Paths that operations meet on, some of them in the image.
const PATHS: [&str; 16] = [
    "img",
    "img/small",
    "img/hard",
    "img/big",
    "img/sub",
    "img/sub/deep",
    "img/link",
    "img/new",
    "img/sub/new",
    "top",
    "a",
    "a/b",
    "a/c",
    "a/b/d",
    "link",
    "img/sub/deep/x",
];

fn operation() -> impl Strategy<Value = Operation> {
    let path = || 0..PATHS.len();
    let place = || prop_oneof![0_u16..12_000, Just(0), Just(4096), Just(8192), Just(10_000)];
    prop_oneof![
        3 => (path(), any::<bool>()).prop_map(|(a, exclusive)| Operation::Create(a, exclusive)),
        3 => path().prop_map(Operation::Mkdir),
        2 => path().prop_map(Operation::Rmdir),
        3 => path().prop_map(Operation::Unlink),
        5 => (path(), path(), 0_u32..3).prop_map(|(a, b, flags)| Operation::Rename(a, b, flags)),
        3 => (path(), path()).prop_map(|(a, b)| Operation::Link(a, b)),
        1 => (path(), path()).prop_map(|(a, b)| Operation::Symlink(a, b)),
        6 => (path(), place(), 1_u16..9000, any::<u8>()).prop_map(|(a, at, len, b)| Operation::Write(a, at, len, b)),
        2 => (path(), 1_u16..5000, any::<u8>()).prop_map(|(a, len, b)| Operation::Append(a, len, b)),
        4 => (path(), place()).prop_map(|(a, size)| Operation::Truncate(a, size)),
        4 => (path(), place(), 1_u16..9000, 0_u8..5).prop_map(|(a, at, len, m)| Operation::Fallocate(a, at, len, m)),
        4 => (path(), place(), 1_u16..9000).prop_map(|(a, at, len)| Operation::Read(a, at, len)),
        1 => (path(), place()).prop_map(|(a, at)| Operation::Data(a, at)),
        2 => (path(), 0_u16..0o10000).prop_map(|(a, mode)| Operation::Chmod(a, mode)),
        2 => (path(), any::<u8>()).prop_map(|(a, value)| Operation::SetXattr(a, value)),
        1 => path().prop_map(Operation::GetXattr),
        2 => (path(), place(), path(), place(), 1_u16..9000)
            .prop_map(|(a, from, b, to, len)| Operation::Copy(a, from, b, to, len)),
        1 => path().prop_map(Operation::List),
        2 => path().prop_map(Operation::Stat),
    ]
}

fn fill(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

/// What an operation showed: the bytes it returned, or its errno.
type Outcome = Result<Vec<u8>, Errno>;

fn apply(root: &Path, operation: &Operation) -> Outcome {
    let path = |index: usize| root.join(PATHS[index]);
    let file = |index: usize, flags: OFlags| -> Result<OwnedFd, Errno> {
        open(
            path(index),
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let done = |()| Vec::new();
    match *operation {
        Operation::Create(a, exclusive) => {
            let exclusive = if exclusive { OFlags::EXCL } else { OFlags::TRUNC };
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | exclusive;
            open(path(a), flags, Mode::from_raw_mode(0o640)).map(|_| Vec::new())
        }
        Operation::Mkdir(a) => mkdir(path(a), Mode::from_raw_mode(0o755)).map(done),
        Operation::Rmdir(a) => rmdir(path(a)).map(done),
        Operation::Unlink(a) => unlink(path(a)).map(done),
        Operation::Rename(a, b, flags) => {
            renameat_with(CWD, path(a), CWD, path(b), RenameFlags::from_bits_retain(flags)).map(done)
        }
        Operation::Link(a, b) => linkat(CWD, path(a), CWD, path(b), AtFlags::empty()).map(done),
        Operation::Symlink(a, b) => symlink(PATHS[a], path(b)).map(done),
        Operation::Write(a, at, len, seed) => {
            let file = File::from(file(a, OFlags::WRONLY)?);
            outcome(file.write_all_at(&fill(len.into(), seed), at.into()).map(done))
        }
        Operation::Append(a, len, seed) => {
            let file = File::from(file(a, OFlags::WRONLY | OFlags::APPEND)?);
            outcome(std::io::Write::write_all(&mut &file, &fill(len.into(), seed)).map(done))
        }
        Operation::Truncate(a, size) => {
            rustix::fs::ftruncate(file(a, OFlags::WRONLY)?, size.into()).map(done)
        }
        Operation::Fallocate(a, at, len, mode) => {
            // tmpfs has no FALLOC_FL_ZERO_RANGE: there the same bytes are written instead.
            let fd = file(a, OFlags::RDWR)?;
            let (at, len) = (u64::from(at), u64::from(len));
            let keep = FallocateFlags::KEEP_SIZE;
            match mode {
                0 => fallocate(fd, FallocateFlags::empty(), at, len).map(done),
                1 => fallocate(fd, keep, at, len).map(done),
                2 | 3 => fallocate(fd, keep | FallocateFlags::PUNCH_HOLE, at, len).map(done),
                _ => match fallocate(&fd, FallocateFlags::ZERO_RANGE, at, len) {
                    Err(Errno::OPNOTSUPP) => {
                        outcome(File::from(fd).write_all_at(&vec![0; len as usize], at).map(done))
                    }
                    result => result.map(done),
                },
            }
        }
        Operation::Read(a, at, len) => {
            let file = File::from(file(a, OFlags::RDONLY)?);
            let mut bytes = vec![0; len.into()];
            let read = outcome(file.read_at(&mut bytes, at.into()))?;
            bytes.truncate(read);
            Ok(bytes)
        }
        // Where holes lie differs between file systems, but not whether there is a file and an offset in it.
        Operation::Data(a, at) => {
            let fd = file(a, OFlags::RDWR)?;
            seek(&fd, SeekFrom::Hole(at.into())).map(|_| Vec::new())
        }
        Operation::Chmod(a, mode) => {
            chmodat(CWD, path(a), Mode::from_raw_mode(mode.into()), AtFlags::empty()).map(done)
        }
        Operation::SetXattr(a, value) => setxattr(
            path(a),
            "user.test",
            &fill(value.into(), value),
            XattrFlags::empty(),
        )
        .map(done),
        Operation::GetXattr(a) => {
            let mut value = Vec::with_capacity(512);
            getxattr(path(a), "user.test", rustix::buffer::spare_capacity(&mut value))?;
            Ok(value)
        }
        Operation::Copy(a, from, b, to, len) => {
            let (source, target) = (file(a, OFlags::RDONLY)?, file(b, OFlags::WRONLY)?);
            let (mut from, mut to) = (from.into(), to.into());
            let copied =
                rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), len.into())?;
            Ok(copied.to_le_bytes().to_vec())
        }
        Operation::List(a) => {
            let mut names = Vec::new();
            for entry in outcome(std::fs::read_dir(path(a)))? {
                names.push(outcome(entry)?.file_name().as_bytes().to_vec());
            }
            names.sort();
            Ok(names.join(&b'/'))
        }
        Operation::Stat(a) => {
            let status = outcome(std::fs::symlink_metadata(path(a)))?;
            let size = if status.is_dir() { 0 } else { status.len() };
            Ok(format!("{:o} {} {size}", status.mode(), status.nlink()).into_bytes())
        }
    }
}

fn outcome<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error).expect("an error of the system"))
}

/// Everything that can be seen of a tree: path to a description of the file.
fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open_directories = vec![root.to_owned()];
    while let Some(directory) = open_directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a listing") {
            let path = entry.expect("an entry").path();
            let status = std::fs::symlink_metadata(&path).expect("attributes");
            let what = if status.is_dir() {
                open_directories.push(path.clone());
                String::new()
            } else if status.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).expect("a target"))
            } else {
                format!(
                    "{} {:?}",
                    status.len(),
                    digest(&std::fs::read(&path).expect("contents"))
                )
            };
            let attributes = format!(
                "{:o} {} {} {}",
                status.mode(),
                status.nlink(),
                status.uid(),
                status.gid()
            );
            let path = path.strip_prefix(root).expect("below the root").to_owned();
            seen.insert(path, format!("{attributes} {what}"));
        }
    }
    seen
}

/// Tells contents apart, and where they begin to differ.
fn digest(bytes: &[u8]) -> Vec<u64> {
    let block = |part: &[u8]| {
        part.iter()
            .fold(7_u64, |sum, &byte| sum.wrapping_mul(1_000_003) + u64::from(byte))
    };
    bytes.chunks(1024).map(block).collect()
}

/// The image that the overlay stands on.
fn image() -> Overlay {
    let mut tree = MemoryTreeBuilder::new().expect("a memfd");
    let img = tree.add(1, b"img", FileKind::Directory, 0o755);
    let small = tree
        .add_file(img, b"small", 0o644, &fill(100, 1))
        .expect("stored");
    tree.link(img, b"hard", small);
    tree.add_file(img, b"big", 0o600, &fill(BIG, 2)).expect("stored");
    let sub = tree.add(img, b"sub", FileKind::Directory, 0o700);
    tree.add(sub, b"deep", FileKind::Directory, 0o755);
    tree.add_symlink(img, b"link", b"small");
    tree.add_file(1, b"top", 0o666, &fill(5000, 3)).expect("stored");
    Overlay::new(Arc::new(tree.build()), &OverlayOptions::default()).expect("an overlay")
}

/// The same tree in a directory.
fn populate(root: &Path) {
    let file = |name: &str, mode: u32, bytes: &[u8]| {
        std::fs::write(root.join(name), bytes).expect("written");
        std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).expect("mode set");
    };
    let directory = |name: &str, mode: u32| {
        std::fs::create_dir(root.join(name)).expect("made");
        std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).expect("mode set");
    };
    directory("img", 0o755);
    file("img/small", 0o644, &fill(100, 1));
    std::fs::hard_link(root.join("img/small"), root.join("img/hard")).expect("linked");
    file("img/big", 0o600, &fill(BIG, 2));
    directory("img/sub", 0o700);
    directory("img/sub/deep", 0o755);
    std::os::unix::fs::symlink("small", root.join("img/link")).expect("linked");
    file("top", 0o666, &fill(5000, 3));
}

/// A directory on a tmpfs.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a tmpfs on /dev/shm")
}

fn compare(operations: &[Operation], tested: &Path, expected: &Path) -> Result<(), TestCaseError> {
    for (number, operation) in operations.iter().enumerate() {
        let (found, wanted) = (apply(tested, operation), apply(expected, operation));
        prop_assert_eq!(found, wanted, "operation {} of {:?}", number, operation);
    }
    prop_assert_eq!(picture(tested), picture(expected));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overlay_under_random_operations_behaves_as_tmpfs(
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let overlay = Arc::new(image());
        let reference = in_memory();
        populate(reference.path());
        let mounted = Mounted::new(overlay.clone());

        compare(&operations, mounted.path(), reference.path())?;

        // Once more by a kernel that has nothing cached.
        drop(mounted);
        let mounted = Mounted::new(overlay);
        prop_assert_eq!(picture(mounted.path()), picture(reference.path()));
    }

    #[test]
    fn share_under_random_operations_behaves_as_tmpfs(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let (host, reference) = (in_memory(), in_memory());
        populate(host.path());
        populate(reference.path());
        let share = HostShare::new(host.path(), HostShareOptions::default()).expect("a share");
        let mounted = Mounted::new(Arc::new(share));

        compare(&operations, mounted.path(), reference.path())?;
        prop_assert_eq!(picture(host.path()), picture(reference.path()));
    }
}
