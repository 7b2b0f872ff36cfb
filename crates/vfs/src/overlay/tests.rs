//! What the host puts into an overlay and reads from it.

use std::sync::Arc;

use rustix::io::Errno;

use super::{Overlay, OverlayOptions, Scratch};
use crate::error::Error;
use crate::protocol::{ROOT_ID, opcode};
use crate::server::Server;
use crate::testing::{Client, take, text};
use crate::{FileKind, MemoryTree, MemoryTreeBuilder};

/// `/etc/passwd`, `/etc/resolv.conf -> ../run/resolv.conf`, `/abs -> /etc`, `/loop -> loop`, `/up -> ../../etc`.
fn image() -> MemoryTree {
    let mut tree = MemoryTreeBuilder::new().expect("a memfd");
    let etc = tree.add(1, b"etc", FileKind::Directory, 0o755);
    tree.add_file(etc, b"passwd", 0o644, b"root:x:0:0")
        .expect("stored");
    tree.add_symlink(etc, b"resolv.conf", b"../run/resolv.conf");
    tree.add_symlink(1, b"abs", b"/etc");
    tree.add_symlink(1, b"loop", b"loop");
    tree.add_symlink(1, b"up", b"../../etc");
    let run = tree.add(1, b"run", FileKind::Directory, 0o755);
    tree.add_file(run, b"resolv.conf", 0o644, b"of the image")
        .expect("stored");
    tree.build()
}

fn overlay() -> Overlay {
    Overlay::new(Arc::new(image()), &OverlayOptions::default()).expect("an overlay")
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::GuestPath { source, .. }) => source,
        other => panic!("expected an error of a path, got {other:?}"),
    }
}

#[test]
fn read_file_follows_links_inside_the_tree() {
    let overlay = overlay();

    for path in [
        "/etc/passwd",
        "etc//./passwd",
        "/abs/passwd",
        "/up/passwd",
        "/etc/../../etc/passwd",
    ] {
        assert_eq!(overlay.read_file(path, 100).expect(path), b"root:x:0:0");
    }
    assert_eq!(
        overlay.read_file("/etc/resolv.conf", 100).expect("read"),
        b"of the image"
    );
}

#[test]
fn read_file_that_cannot_be_read_names_the_reason() {
    let overlay = overlay();

    assert_eq!(errno(overlay.read_file("/etc/none", 100)), Errno::NOENT);
    assert_eq!(errno(overlay.read_file("/etc", 100)), Errno::ISDIR);
    assert_eq!(errno(overlay.read_file("/loop", 100)), Errno::LOOP);
    assert_eq!(errno(overlay.read_file("/etc/passwd/x", 100)), Errno::NOTDIR);
    assert!(matches!(
        overlay.read_file("/etc/passwd", 9),
        Err(Error::TooLong { limit: 9, .. })
    ));
    assert!(overlay.exists("/abs/passwd"));
    assert!(!overlay.exists("/loop"));
}

#[test]
fn insert_file_replaces_a_link_and_makes_directories() {
    let overlay = overlay();

    overlay
        .insert_file("/etc/resolv.conf", 0o644, 0, 0, b"nameserver 10.0.2.3\n")
        .expect("inserted");
    overlay
        .insert_file("/abs/new/dir/file", 0o600, 5, 6, b"x")
        .expect("inserted");
    overlay
        .insert_file("/etc/passwd", 0o640, 0, 0, b"")
        .expect("inserted");

    assert_eq!(
        overlay.read_file("/etc/resolv.conf", 100).expect("read"),
        b"nameserver 10.0.2.3\n"
    );
    assert_eq!(
        overlay.read_file("/run/resolv.conf", 100).expect("read"),
        b"of the image"
    );
    assert_eq!(overlay.read_file("/etc/new/dir/file", 100).expect("read"), b"x");
    assert_eq!(overlay.read_file("/etc/passwd", 100).expect("read"), b"");
    assert_eq!(errno(overlay.insert_file("/etc", 0o644, 0, 0, b"")), Errno::ISDIR);
    assert_eq!(
        errno(overlay.insert_file("/etc/..", 0o644, 0, 0, b"")),
        Errno::INVAL
    );
    assert_eq!(
        errno(overlay.insert_file("/etc/passwd/x", 0o644, 0, 0, b"")),
        Errno::NOTDIR
    );
}

#[test]
fn inserted_file_is_the_guests_to_change_and_remove() {
    let overlay = Arc::new(overlay());
    overlay
        .insert_file("/etc/hostname", 0o644, 7, 8, b"box\n")
        .expect("inserted");
    let server = Server::new(overlay.clone());
    let client = Client::connected(&server);
    let etc = client.lookup(ROOT_ID, "etc").expect("found").nodeid;

    let file = client.lookup(etc, "hostname").expect("found");
    assert_eq!(
        (file.attr.mode, file.attr.uid, file.attr.gid, file.attr.nlink),
        (0o100644, 7, 8, 1)
    );
    assert_eq!(client.write(file.nodeid, 0, 0, b"fox"), Ok(3));
    assert_eq!(overlay.read_file("/etc/hostname", 10).expect("read"), b"fox\n");
    assert_eq!(client.unlink(etc, "hostname"), Ok(()));
    assert!(!overlay.exists("/etc/hostname"));
}

#[test]
fn insert_file_into_a_full_overlay_leaves_nothing() {
    let options = OverlayOptions {
        max_bytes: 1 << 16,
        ..OverlayOptions::default()
    };
    let overlay = Overlay::new(Arc::new(image()), &options).expect("an overlay");

    assert_eq!(
        errno(overlay.insert_file("/etc/big", 0o644, 0, 0, &[1; 1 << 17])),
        Errno::NOSPC
    );

    assert!(!overlay.exists("/etc/big"));
    assert!(overlay.insert_file("/etc/small", 0o644, 0, 0, &[1; 100]).is_ok());
}

#[test]
fn scratch_in_a_directory_has_no_name_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let scratch = Scratch::Directory(directory.path().to_owned());
    let options = OverlayOptions {
        scratch,
        ..OverlayOptions::default()
    };
    let overlay = Overlay::new(Arc::new(image()), &options).expect("an overlay");

    overlay
        .insert_file("/big", 0o644, 0, 0, &[3; 100_000])
        .expect("inserted");

    assert_eq!(overlay.read_file("/big", 100_000).expect("read"), [3; 100_000]);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a listing").count(), 0);
}

#[test]
fn scratch_directory_that_does_not_exist_is_named() {
    let scratch = Scratch::Directory("/nowhere".into());
    let options = OverlayOptions {
        scratch,
        ..OverlayOptions::default()
    };

    let error = Overlay::new(Arc::new(image()), &options).err().expect("an error");

    assert_eq!(
        error.to_string(),
        "cannot create the scratch file for changed files in /nowhere"
    );
}

#[test]
fn inode_number_of_an_image_file_survives_every_change() {
    let server = Server::new(Arc::new(overlay()));
    let client = Client::connected(&server);
    let etc = client.lookup(ROOT_ID, "etc").expect("found").nodeid;
    let before = client.lookup(etc, "passwd").expect("found").nodeid;

    assert_eq!(client.write(before, 0, 4, b"y"), Ok(1));
    let renamed = client.call(
        opcode::RENAME,
        etc,
        &[&etc.to_le_bytes(), &text("passwd"), &text("p")],
    );

    assert_eq!(renamed, Ok(vec![]));
    let after = client.lookup(etc, "p").expect("found");
    assert_eq!((after.nodeid, after.attr.ino), (before, before));
    let linked = client.call(opcode::LINK, etc, &[&before.to_le_bytes(), &text("again")]);
    let linked: crate::protocol::EntryOut = take(&linked.expect("linked"));
    assert_eq!((linked.nodeid, linked.attr.nlink), (before, 2));
}

#[test]
fn parallel_readers_and_writers_see_whole_blocks_and_one_namespace() {
    let server = Server::new(Arc::new(overlay()));
    let file = Client::connected(&server)
        .mknod(ROOT_ID, "shared")
        .expect("made")
        .nodeid;

    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let server = &server;
            scope.spawn(move || {
                let client = Client {
                    capacity: 1 << 16,
                    ..Client::new(server)
                };
                for round in 0..200 {
                    assert_eq!(client.write(file, 0, 0, &[thread; 8192]), Ok(8192));
                    let seen = client.read(file, 0, 0, 8192).expect("read");
                    assert!(
                        seen.iter().all(|byte| *byte == seen[0]),
                        "a torn write in round {round}"
                    );
                    let name = format!("{thread}-{round}");
                    let made = client.mknod(ROOT_ID, &name).expect("made").nodeid;
                    assert_eq!(client.lookup(ROOT_ID, &name).expect("found").nodeid, made);
                    client.unlink(ROOT_ID, &name).expect("removed");
                    client.forget(made, 2);
                }
            });
        }
    });

    let client = Client::new(&server);
    // `.`, `..`, what the image has, and the file.
    assert_eq!(client.readdir(ROOT_ID, 0, 1 << 16).len(), 2 + 5 + 1);
    assert_eq!(client.statfs().files - client.statfs().ffree, 2);
}
