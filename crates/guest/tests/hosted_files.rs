//! The guest program as init of a container: its work on files.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::Guest;
use common::files::{NOTHING, READ, WRITE_NEW, at, in_directory};
use guest_protocol::{FilePath, FileRequest, FileTime, OpenFlags, ToGuest, ToHost, wire};

const ENOENT: u32 = 2;
const EBADF: u32 = 9;
const EACCES: u32 = 13;
const EEXIST: u32 = 17;
const ENOTDIR: u32 = 20;
const EISDIR: u32 = 21;
const EINVAL: u32 = 22;
const EMFILE: u32 = 24;
const ESPIPE: u32 = 29;
const ENAMETOOLONG: u32 = 36;
const ENOTEMPTY: u32 = 39;
const ELOOP: u32 = 40;

/// A folder to work in, and a program that sees it under the same name.
fn start() -> (tempfile::TempDir, Guest) {
    (tempfile::tempdir().unwrap(), Guest::start())
}

fn remove(path: &Path, directory: bool) -> FileRequest {
    FileRequest::Remove {
        at: at(path),
        directory,
    }
}

fn path_bytes(path: &Path) -> Vec<u8> {
    path.to_str().unwrap().into()
}

#[test]
fn file_written_in_pieces_is_read_by_everybody() {
    let (folder, mut guest) = start();
    let path = folder.path().join("a");
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();

    let file = guest.open(at(&path), WRITE_NEW).unwrap();
    for (n, piece) in bytes.chunks(wire::MAX_DATA).enumerate() {
        let offset = (n * wire::MAX_DATA) as u64;
        assert_eq!(guest.write_at(file, offset, piece), Ok(piece.len() as u32));
    }

    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
    let file = guest.open(at(&path), READ).unwrap();
    assert!(guest.read_all(file) == bytes);
    assert_eq!(guest.read_at(file, 99_999, 100), Ok(vec![bytes[99_999]]));
    assert_eq!(guest.read_at(file, 1 << 40, 100), Ok(vec![]));
}

#[test]
fn file_opened_to_append_grows_whatever_the_offset() {
    let (folder, mut guest) = start();
    let path = folder.path().join("log");
    fs::write(&path, "one ").unwrap();
    let append = OpenFlags {
        append: true,
        ..NOTHING
    };

    let file = guest.open(at(&path), append).unwrap();
    guest.write_at(file, 0, b"two").unwrap();

    assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
}

#[test]
fn open_fails_as_the_system_call_does() {
    let (folder, mut guest) = start();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "").unwrap();
    symlink("file", path("link")).unwrap();
    let write = OpenFlags {
        write: true,
        ..NOTHING
    };
    let new = OpenFlags {
        create_new: true,
        ..write
    };
    let directory = OpenFlags {
        directory: true,
        ..READ
    };
    let no_follow = OpenFlags {
        no_follow: true,
        ..READ
    };

    let mut open = |name: &str, flags| guest.open(at(&path(name)), flags).unwrap_err();

    assert_eq!(open("missing", READ), ENOENT);
    assert_eq!(open("file/x", READ), ENOTDIR);
    assert_eq!(open("", write), EISDIR);
    assert_eq!(open("file", new), EEXIST);
    assert_eq!(open("file", directory), ENOTDIR);
    assert_eq!(open("link", no_follow), ELOOP);
    assert_eq!(open("file", NOTHING), EINVAL);
    assert_eq!(open(&"x".repeat(256), READ), ENAMETOOLONG);
}

#[test]
fn write_to_a_file_opened_to_read_fails_and_reading_a_directory_does() {
    let (folder, mut guest) = start();
    fs::write(folder.path().join("a"), "abc").unwrap();

    let file = guest.open(at(&folder.path().join("a")), READ).unwrap();
    let directory = guest.open(at(folder.path()), READ).unwrap();

    assert_eq!(guest.write_at(file, 0, b"x"), Err(EBADF));
    assert_eq!(guest.entries(file), Err(ENOTDIR));
    assert_eq!(guest.read_at(directory, 0, 10), Err(EISDIR));
}

#[test]
fn file_the_kernel_forbids_even_to_root_is_told_as_such() {
    let mut guest = Guest::start();
    let write = OpenFlags {
        write: true,
        ..NOTHING
    };

    let error = guest.open(in_directory(0, "/sys/kernel/uevent_seqnum"), write);

    assert_eq!(error, Err(EACCES));
}

#[test]
fn closed_files_and_numbers_that_never_were_are_not_open() {
    let (folder, mut guest) = start();
    let path = folder.path().join("a");
    let file = guest.open(at(&path), WRITE_NEW).unwrap();

    guest.send(file, ToGuest::CloseFile);
    guest.send(4242, ToGuest::CloseFile);

    assert_eq!(guest.write_at(file, 0, b"x"), Err(EBADF));
    assert_eq!(guest.read_at(4242, 0, 1), Err(EBADF));
    assert_eq!(guest.read_at(0, 0, 1), Err(EBADF));
    assert_eq!(guest.metadata(in_directory(file, "x"), true), Err(EBADF));
}

#[test]
fn metadata_is_what_the_kernel_tells() {
    let (folder, mut guest) = start();
    let path = folder.path().join("a");
    fs::write(&path, "abc").unwrap();
    let link = folder.path().join("l");
    symlink("a", &link).unwrap();

    let found = guest.metadata(at(&link), true).unwrap();
    let of_link = guest.metadata(at(&link), false).unwrap();
    let device = guest.metadata(in_directory(0, "/dev/null"), true).unwrap();

    let expected = path.metadata().unwrap();
    assert_eq!(u32::from(found.mode), expected.mode());
    assert_eq!(
        (found.size, found.inode, u64::from(found.links)),
        (3, expected.ino(), 1)
    );
    assert_eq!((found.uid, found.gid), (expected.uid(), expected.gid()));
    assert_eq!(found.blocks, expected.blocks());
    assert_eq!(
        found.modified,
        FileTime {
            seconds: expected.mtime(),
            ns: expected.mtime_nsec() as u32
        }
    );
    assert_eq!(of_link.mode & 0o170_000, 0o120_000);
    assert_eq!(device.device_file, (1, 3));
}

#[test]
fn directory_of_five_thousand_entries_is_listed_whole() {
    let (folder, mut guest) = start();
    let expected: BTreeSet<String> = (0..5000).map(|n| format!("file number {n}")).collect();
    for name in &expected {
        fs::write(folder.path().join(name), "").unwrap();
    }

    let directory = guest.open(at(folder.path()), READ).unwrap();
    let entries = guest.entries(directory).unwrap();

    assert_eq!(entries.len(), 5000);
    let names: BTreeSet<String> = entries
        .iter()
        .map(|entry| String::from_utf8(entry.name.clone()).unwrap())
        .collect();
    assert_eq!(names, expected);
    assert!(entries.iter().all(|entry| entry.kind == 8));
}

#[test]
fn names_are_made_moved_and_removed() {
    let (folder, mut guest) = start();
    let path = |name: &str| folder.path().join(name);
    let mut do_it = |request| guest.file(request).map(|reply| assert_eq!(reply, ToHost::Done));

    let create = |name: &str| FileRequest::CreateDirectory {
        at: at(&path(name)),
        mode: 0o777,
    };
    assert_eq!(do_it(create("d")), Ok(()));
    assert_eq!(do_it(create("d")), Err(EEXIST));
    assert_eq!(path("d").metadata().unwrap().mode() & 0o7777, 0o755);

    fs::write(path("d/a"), "abc").unwrap();
    let rename = FileRequest::Rename {
        from: at(&path("d/a")),
        to: path_bytes(&path("b")),
    };
    assert_eq!(do_it(rename), Ok(()));
    let hard_link = FileRequest::HardLink {
        from: at(&path("b")),
        to: path_bytes(&path("c")),
    };
    assert_eq!(do_it(hard_link), Ok(()));
    let soft_link = FileRequest::Symlink {
        target: b"../anything at all".to_vec(),
        at: at(&path("s")),
    };
    assert_eq!(do_it(soft_link), Ok(()));
    assert_eq!(path("c").metadata().unwrap().nlink(), 2);
    assert_eq!(fs::read_link(path("s")).unwrap(), Path::new("../anything at all"));

    fs::write(path("d/x"), "").unwrap();
    assert_eq!(do_it(remove(&path("d"), false)), Err(EISDIR));
    assert_eq!(do_it(remove(&path("d"), true)), Err(ENOTEMPTY));
    assert_eq!(do_it(remove(&path("d/x"), true)), Err(ENOTDIR));
    assert_eq!(do_it(remove(&path("d/x"), false)), Ok(()));
    assert_eq!(do_it(remove(&path("d"), true)), Ok(()));
    assert_eq!(do_it(remove(&path("d"), true)), Err(ENOENT));
}

#[test]
fn symbolic_link_is_read_and_anything_else_is_not() {
    let (folder, mut guest) = start();
    symlink("to/here", folder.path().join("s")).unwrap();

    let mut read = |path: &Path| guest.file(FileRequest::ReadLink { at: at(path) });

    assert_eq!(
        read(&folder.path().join("s")),
        Ok(ToHost::FileData(b"to/here".to_vec()))
    );
    assert_eq!(read(folder.path()), Err(EINVAL));
}

#[test]
fn attributes_are_set_by_path_and_of_an_open_file() {
    let (folder, mut guest) = start();
    let path = folder.path().join("a");
    fs::write(&path, "abcdef").unwrap();
    let link = folder.path().join("l");
    symlink("a", &link).unwrap();
    let file = guest.open(at(&path), WRITE_NEW).unwrap();
    let whole = |at: FilePath, follow| {
        [
            FileRequest::SetOwner {
                at: at.clone(),
                uid: Some(1234),
                gid: None,
                follow,
            },
            FileRequest::SetTimes {
                at,
                accessed_ns: None,
                modified_ns: Some(-1_500_000_000),
                follow,
            },
        ]
    };
    let mut all: Vec<FileRequest> = whole(at(&link), false).into();
    all.extend(whole(in_directory(file, ""), true));
    all.push(FileRequest::SetMode {
        at: in_directory(file, ""),
        mode: 0o4751,
    });
    all.push(FileRequest::SetLen { file, len: 70_000 });
    all.push(FileRequest::Sync {
        file,
        data_only: false,
    });
    all.push(FileRequest::Sync {
        file,
        data_only: true,
    });
    // Changing the length changed the time.
    all.extend(whole(at(&path), true));

    for request in all {
        assert_eq!(guest.file(request.clone()), Ok(ToHost::Done), "{request:?}");
    }

    for found in [path.symlink_metadata().unwrap(), link.symlink_metadata().unwrap()] {
        assert_eq!((found.uid(), found.gid()), (1234, 0));
        assert_eq!((found.mtime(), found.mtime_nsec()), (-2, 500_000_000));
        assert!(found.atime() > 1_000_000_000);
    }
    // A new owner takes the set-user-id bit away.
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o751);
    assert_eq!(path.metadata().unwrap().len(), 70_000);
    let by_path = FileRequest::SetMode {
        at: at(&link),
        mode: 0o600,
    };
    assert_eq!(guest.file(by_path), Ok(ToHost::Done));
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn paths_from_an_open_directory_stay_in_it_when_its_name_is_another_s() {
    let (folder, mut guest) = start();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/a"), "inside").unwrap();
    let directory = guest.open(at(&path("d")), READ).unwrap();

    fs::rename(path("d"), path("moved")).unwrap();
    symlink("/etc", path("d")).unwrap();

    let file = guest.open(in_directory(directory, "a"), READ).unwrap();
    assert_eq!(guest.read_all(file), b"inside");
    let remove = FileRequest::Remove {
        at: in_directory(directory, "a"),
        directory: false,
    };
    assert_eq!(guest.file(remove), Ok(ToHost::Done));
    assert!(!path("moved/a").exists());
}

#[test]
fn relative_paths_start_at_the_root() {
    let mut guest = Guest::start();

    let relative = guest.metadata(in_directory(0, "dev/null"), true).unwrap();

    assert_eq!(relative.device_file, (1, 3));
    assert_eq!(guest.metadata(in_directory(0, ""), true), Err(ENOENT));
}

#[test]
fn pipe_nobody_writes_is_opened_without_waiting_and_has_no_offsets() {
    let (folder, mut guest) = start();
    let path = folder.path().join("pipe");
    guest.run_sh(&format!("mkfifo {}", path.display()));

    let file = guest.open(at(&path), READ).unwrap();

    assert_eq!(guest.read_at(file, 0, 10), Err(ESPIPE));
}

#[test]
fn files_past_the_most_open_ones_are_refused_until_one_is_closed() {
    let mut guest = Guest::start();
    let null = || in_directory(0, "/dev/null");
    let files: Vec<u32> = (0..wire::MAX_OPEN_FILES)
        .map(|_| guest.open(null(), READ).unwrap())
        .collect();

    assert_eq!(guest.open(null(), READ), Err(EMFILE));

    guest.send(files[7], ToGuest::CloseFile);
    assert!(guest.open(null(), READ).is_ok());
    for file in files {
        guest.send(file, ToGuest::CloseFile);
    }
    assert_eq!(guest.run_sh("echo alive"), "alive\n");
}

#[test]
fn commands_started_after_the_file_server_end_when_their_input_does() {
    let (folder, mut guest) = start();
    let before = guest.exec(common::command(&["cat"]), b"before");
    guest.open(at(folder.path()), READ).unwrap();
    let after = guest.run(common::command(&["cat"]), b"after").stdout();

    assert_eq!(after, "after");
    assert_eq!(guest.wait_over(before).stdout(), "before");
}

#[test]
fn host_that_hangs_up_ends_the_file_server_too() {
    let (folder, mut guest) = start();
    guest.open(at(folder.path()), READ).unwrap();

    assert_eq!(guest.hang_up(), Some(0));
}

#[test]
fn shutdown_does_not_wait_for_an_idle_file_server() {
    let (folder, mut guest) = start();
    guest.open(at(folder.path()), READ).unwrap();

    // A grace as long as the patience of these tests.
    assert_eq!(guest.shut_down(wire::MAX_GRACE_MS), Some(0));
}
