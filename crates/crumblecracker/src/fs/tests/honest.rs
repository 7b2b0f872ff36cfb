//! What a guest that keeps to the protocol gives.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::guests::Container;
use crate::fs::{GuestError, OpenOptions, Permissions};

/// A folder the container sees under the same name.
fn start() -> (tempfile::TempDir, Container) {
    (tempfile::tempdir().unwrap(), Container::start())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn files_of_any_length_are_written_and_read_back() {
    let (folder, guest) = start();
    let path = folder.path().join("a");
    for len in [0, 1, 32_767, 32_768, 32_769, 65_536, 1_000_000] {
        let bytes = noise(len);

        guest.fs.write(&path, &bytes).unwrap();

        assert!(fs::read(&path).unwrap() == bytes, "{len}");
        assert!(guest.fs.read(&path).unwrap() == bytes, "{len}");
    }
}

#[test]
fn file_shorter_than_it_was_keeps_nothing_of_before() {
    let (folder, guest) = start();
    let path = folder.path().join("a");

    guest.fs.write(&path, "long contents").unwrap();
    guest.fs.write(&path, "short").unwrap();

    assert_eq!(guest.fs.read_to_string(&path).unwrap(), "short");
}

#[test]
fn file_of_the_kernel_without_a_length_is_read_whole() {
    let guest = Container::start();

    let status = guest.fs.read_to_string("/proc/self/status").unwrap();
    let symbols = guest.fs.read("/proc/kallsyms").unwrap();

    assert!(status.contains("\nPid:\t"), "{status}");
    assert_eq!(symbols.last(), Some(&b'\n'));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines(&symbols), lines(&fs::read("/proc/kallsyms").unwrap()));
}

#[test]
fn text_that_is_none_is_an_error_of_its_kind() {
    let (folder, guest) = start();
    let path = folder.path().join("a");
    fs::write(&path, [b'a', 0xff]).unwrap();

    let whole = guest.fs.read_to_string(&path).unwrap_err();
    let mut text = "before".to_owned();
    let open = guest
        .fs
        .open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap_err();

    assert_eq!(
        (whole.kind(), open.kind()),
        (ErrorKind::InvalidData, ErrorKind::InvalidData)
    );
    assert_eq!(text, "before");
}

#[test]
fn open_file_is_read_written_and_sought_as_in_std() {
    let (folder, guest) = start();
    let path = folder.path().join("a");
    let mut options = OpenOptions::new();
    let mut file = guest
        .fs
        .open_with(&path, options.read(true).write(true).create_new(true).mode(0o600))
        .unwrap();

    file.write_all(b"0123456789").unwrap();
    assert_eq!(file.stream_position().unwrap(), 10);
    assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 7);
    file.write_all(b"x").unwrap();
    file.seek(SeekFrom::Start(2)).unwrap();
    file.seek(SeekFrom::Current(1)).unwrap();
    let mut some = [0; 4];
    file.read_exact(&mut some).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();

    assert_eq!((&some, rest.as_str()), (b"3456", "x89"));
    assert_eq!(file.read(&mut some).unwrap(), 0);
    assert_eq!(
        file.seek(SeekFrom::Current(-11)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(file.read_at(&mut some, 8).unwrap(), 2);
    assert_eq!(file.write_at(b"y", 0).unwrap(), 1);
    file.set_len(3).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "y12");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(file.metadata().unwrap().len(), 3);
}

#[test]
fn file_opened_to_append_is_at_its_end_after_a_write() {
    let (folder, guest) = start();
    let path = folder.path().join("log");
    fs::write(&path, "one ").unwrap();
    let mut options = OpenOptions::new();
    let mut log = guest
        .fs
        .open_with(&path, options.append(true).read(true))
        .unwrap();

    let mut first = [0; 1];
    log.read_exact(&mut first).unwrap();
    log.write_all(b"two").unwrap();

    assert_eq!(&first, b"o");
    assert_eq!(log.stream_position().unwrap(), 7);
    assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
}

#[test]
fn ways_to_open_that_do_not_go_together_are_refused() {
    let (folder, guest) = start();
    let path = folder.path().join("a");
    let kind = |options: &OpenOptions| guest.fs.open_with(&path, options).unwrap_err().kind();

    assert_eq!(kind(&OpenOptions::new()), ErrorKind::InvalidInput);
    assert_eq!(
        kind(OpenOptions::new().read(true).create(true)),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        kind(OpenOptions::new().read(true).truncate(true)),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        kind(OpenOptions::new().append(true).truncate(true)),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(OpenOptions::new().write(true)), ErrorKind::NotFound);
}

#[test]
fn errors_have_the_kind_of_std_and_the_guests_number() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "").unwrap();
    fs::create_dir_all(path("full/x")).unwrap();
    let missing = guest.fs.read(path("missing")).unwrap_err();
    let number = missing
        .get_ref()
        .unwrap()
        .downcast_ref::<GuestError>()
        .unwrap()
        .errno;

    assert_eq!((missing.kind(), number), (ErrorKind::NotFound, 2));
    let expected = format!(
        "cannot open {} in the guest: entity not found (error 2)",
        path("missing").display()
    );
    assert_eq!(missing.to_string(), expected);
    let kinds = [
        guest.fs.read(path("file/x")).unwrap_err().kind(),
        guest.fs.read(path("full")).unwrap_err().kind(),
        guest.fs.write(path("full"), "").unwrap_err().kind(),
        guest.fs.create_dir(path("full")).unwrap_err().kind(),
        guest.fs.remove_dir(path("full")).unwrap_err().kind(),
        guest.fs.remove_file(path("full")).unwrap_err().kind(),
        guest.fs.read_dir(path("file")).unwrap_err().kind(),
        guest.fs.read(path(&"x".repeat(300))).unwrap_err().kind(),
        guest
            .fs
            .write("/sys/kernel/uevent_seqnum", "x")
            .unwrap_err()
            .kind(),
    ];
    assert_eq!(
        kinds,
        [
            ErrorKind::NotADirectory,
            ErrorKind::IsADirectory,
            ErrorKind::IsADirectory,
            ErrorKind::AlreadyExists,
            ErrorKind::DirectoryNotEmpty,
            ErrorKind::IsADirectory,
            ErrorKind::NotADirectory,
            ErrorKind::InvalidFilename,
            ErrorKind::PermissionDenied,
        ]
    );
}

#[test]
fn paths_that_cannot_be_carried_are_refused_as_std_does() {
    let guest = Container::start();
    let long = "x/".repeat(2048);

    assert_eq!(
        guest.fs.read("/a\0b").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        guest.fs.rename("/a", "b\0").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        guest.fs.symlink(&long, "/a").unwrap_err().kind(),
        ErrorKind::InvalidFilename
    );
    assert_eq!(
        guest.fs.create_dir_all(&long).unwrap_err().kind(),
        ErrorKind::InvalidFilename
    );
    assert_eq!(guest.fs.metadata("").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn links_names_owners_and_times_are_as_asked() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);
    let then = UNIX_EPOCH + Duration::from_millis(1_234_567);
    guest.fs.write(path("a"), "abc").unwrap();

    guest.fs.hard_link(path("a"), path("b")).unwrap();
    guest.fs.rename(path("b"), path("c")).unwrap();
    guest.fs.symlink("c", path("s")).unwrap();
    guest
        .fs
        .set_permissions(path("s"), Permissions::from_mode(0o4711))
        .unwrap();
    guest.fs.chown(path("s"), Some(12), None).unwrap();
    guest.fs.lchown(path("s"), None, Some(34)).unwrap();
    guest.fs.set_times(path("s"), None, Some(then)).unwrap();

    let (file, link) = (
        guest.fs.metadata(path("s")).unwrap(),
        guest.fs.symlink_metadata(path("s")).unwrap(),
    );
    assert_eq!((file.is_file(), file.len(), file.nlink()), (true, 3, 2));
    assert_eq!((file.uid(), file.gid(), link.uid(), link.gid()), (12, 0, 0, 34));
    assert_eq!(file.modified().unwrap(), then);
    assert!(file.accessed().unwrap() > then && file.changed().unwrap() > then);
    assert_eq!(file.ino(), path("a").metadata().unwrap().ino());
    assert_eq!(guest.fs.read_link(path("s")).unwrap(), b"c");
    assert!(link.is_symlink() && !file.permissions().readonly());
    assert!(guest.fs.exists(path("s")).unwrap());
    guest.fs.remove_file(path("a")).unwrap();
    assert!(!guest.fs.exists(path("a")).unwrap());
}

#[test]
fn directories_are_made_with_all_above_them() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);

    guest.fs.create_dir_all(path("a/b/c//d/")).unwrap();
    guest.fs.create_dir_all(path("a/b")).unwrap();
    guest.fs.create_dir_all("/").unwrap();

    assert!(path("a/b/c/d").is_dir());
    guest.fs.write(path("a/file"), "").unwrap();
    assert_eq!(
        guest.fs.create_dir_all(path("a/file")).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        guest.fs.create_dir_all(path("a/file/x")).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
}

#[test]
fn directory_lists_names_that_are_no_text_and_tells_what_they_are() {
    let (folder, guest) = start();
    fs::create_dir(folder.path().join("d")).unwrap();
    let odd = [folder.path().as_os_str().as_encoded_bytes(), b"/\xff\xfe"].concat();
    guest.fs.write(&odd, "odd").unwrap();

    let entries: Vec<_> = guest
        .fs
        .read_dir(folder.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();

    let names: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(names, BTreeSet::from([b"d".as_slice(), b"\xff\xfe"]));
    let is_dir = |entry: &crate::fs::DirEntry| entry.file_type().unwrap().is_dir();
    assert_eq!(entries.iter().filter(|entry| is_dir(entry)).count(), 1);
    let found = entries.iter().find(|entry| !is_dir(entry)).unwrap();
    assert_eq!(found.metadata().unwrap().len(), 3);
    assert_eq!(guest.fs.read(found.path()).unwrap(), b"odd");
}

#[test]
fn tree_is_removed_without_following_links_out_of_it() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("tree/a/b/c")).unwrap();
    fs::create_dir(path("outside")).unwrap();
    fs::write(path("outside/kept"), "").unwrap();
    symlink("../../outside", path("tree/a/link")).unwrap();
    for n in 0..300 {
        fs::write(path(&format!("tree/a/b/{n}")), "").unwrap();
    }

    guest.fs.remove_dir_all(path("tree")).unwrap();

    assert!(!path("tree").exists());
    assert!(path("outside/kept").exists());
}

#[test]
fn tree_named_by_a_link_or_a_file_is_not_removed() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("tree/x")).unwrap();
    fs::write(path("file"), "").unwrap();
    symlink("tree", path("link")).unwrap();

    guest.fs.remove_dir_all(path("link")).unwrap();

    assert!(path("tree/x").is_dir() && path("link").symlink_metadata().is_err());
    assert_eq!(
        guest.fs.remove_dir_all(path("file")).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        guest.fs.remove_dir_all(path("none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn tree_deeper_than_files_can_be_open_is_refused_and_nothing_breaks() {
    const OTHER: Option<u32> = Some(24);
    let (folder, guest) = start();
    let deep: PathBuf = std::iter::once("tree")
        .chain(std::iter::repeat_n("d", 600))
        .collect();
    fs::create_dir_all(folder.path().join(deep)).unwrap();

    let error = guest.fs.remove_dir_all(folder.path().join("tree")).unwrap_err();

    assert_eq!(crate::fs::error::errno_of(&error), OTHER);
    assert!(guest.fs.exists(folder.path().join("tree")).unwrap());
}

#[test]
fn copies_carry_contents_and_permissions() {
    let (folder, guest) = start();
    let path = |name: &str| folder.path().join(name);
    let bytes = noise(300_000);
    fs::write(path("host"), &bytes).unwrap();
    fs::set_permissions(path("host"), fs::Permissions::from_mode(0o4751)).unwrap();
    let mode = |name: &str| path(name).metadata().unwrap().mode() & 0o7777;

    assert_eq!(guest.fs.copy_in(path("host"), path("in")).unwrap(), 300_000);
    assert_eq!(guest.fs.copy_out(path("in"), path("out")).unwrap(), 300_000);
    assert_eq!(guest.fs.copy(path("host"), path("within")).unwrap(), 300_000);
    guest.fs.copy_out(path("within"), path("out again")).unwrap();

    for name in ["in", "out", "within", "out again"] {
        assert!(fs::read(path(name)).unwrap() == bytes, "{name}");
    }
    let modes = ["in", "out", "within", "out again"].map(mode);
    assert_eq!(modes, [0o751, 0o751, 0o4751, 0o751]);
    assert_eq!(
        guest.fs.copy(folder.path(), path("x")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        guest.fs.copy_in(folder.path(), path("x")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn many_callers_at_once_all_get_their_own() {
    let (folder, guest) = start();
    std::thread::scope(|scope| {
        for n in 0..40u8 {
            let path = folder.path().join(n.to_string());
            let fs = guest.fs.clone();
            scope.spawn(move || {
                let bytes = vec![n; 200_000];
                fs.write(&path, &bytes).unwrap();
                assert!(fs.read(&path).unwrap() == bytes);
            });
        }
    });
}

#[test]
fn files_dropped_are_closed() {
    let guest = Container::start();
    for _ in 0..2000 {
        guest.fs.open("/dev/null").unwrap();
    }

    let open = guest.fs.read_dir("/proc/self/fd").unwrap().count();

    assert!(open < 20, "{open}");
}

#[test]
fn guest_that_is_gone_ends_every_call() {
    let (folder, mut guest) = start();
    let mut file = guest.fs.create(folder.path().join("a")).unwrap();

    guest.kill();

    assert_eq!(file.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(
        guest.fs.read("/x").unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
}
