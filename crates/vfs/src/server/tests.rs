//! The server as a client on the wire sees it, well-behaved or not.

use std::fs::File;
use std::sync::Arc;

use device_backends::FileService;
use proptest::prelude::*;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::Server;
use crate::protocol::*;
use crate::testing::{Client, message, take, text};
use crate::{FileKind, HostShare, HostShareOptions, MemoryTreeBuilder, Overlay, OverlayOptions};

fn overlay_server() -> Server {
    let mut tree = MemoryTreeBuilder::new().expect("a memfd");
    let dir = tree.add(1, b"dir", FileKind::Directory, 0o755);
    tree.add_file(dir, b"file", 0o644, b"contents").expect("stored");
    tree.add_file(1, b"program", 0o4755, b"set-id").expect("stored");
    let options = OverlayOptions {
        max_bytes: 4 << 20,
        max_inodes: 100,
        ..OverlayOptions::default()
    };
    Server::new(Arc::new(
        Overlay::new(Arc::new(tree.build()), &options).expect("an overlay"),
    ))
}

fn share_server() -> (tempfile::TempDir, Server) {
    let host = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(host.path().join("shared")).expect("made");
    std::fs::write(host.path().join("shared/file"), "contents").expect("written");
    std::fs::write(host.path().join("secret"), "secret").expect("written");
    let share = HostShare::new(&host.path().join("shared"), HostShareOptions::default()).expect("a share");
    (host, Server::new(Arc::new(share)))
}

#[test]
fn init_negotiates_the_smaller_minor_version_and_wanted_flags_only() {
    let server = overlay_server();

    let out = Client::new(&server).init(7, 33).expect("INIT");

    assert_eq!(
        (out.major, out.minor, out.max_write, out.max_pages),
        (7, 33, 1 << 20, 256)
    );
    assert_ne!(u64::from(out.flags) & init_flag::WRITEBACK_CACHE, 0);
    assert_ne!(u64::from(out.flags) & init_flag::NO_OPEN_SUPPORT, 0);
    assert_eq!(u64::from(out.flags) & init_flag::ATOMIC_O_TRUNC, 0);
    assert_eq!(
        (out.flags & (1 << 20), out.flags2),
        (0, 0),
        "no POSIX ACLs, nothing of the extended flags"
    );
}

#[test]
fn init_of_newer_major_version_is_answered_with_ours_and_leaves_no_connection() {
    let server = overlay_server();
    let client = Client::new(&server);

    let out = client.init(8, 0).expect("INIT");

    assert_eq!((out.major, out.minor), (KERNEL_VERSION, KERNEL_MINOR_VERSION));
    assert_eq!(client.getattr(ROOT_ID), Err(Errno::IO));
    assert!(client.init(7, 38).is_ok());
}

#[test]
fn init_too_old_or_twice_is_refused() {
    let server = overlay_server();
    let client = Client::new(&server);

    assert_eq!(client.init(7, 30), Err(Errno::PROTO));
    assert_eq!(client.init(6, 99), Err(Errno::PROTO));
    assert!(client.init(7, 31).is_ok());
    assert_eq!(client.init(7, 31), Err(Errno::IO));
    assert_eq!(client.call(opcode::DESTROY, 0, &[]), Ok(vec![]));
    assert!(client.init(7, 31).is_ok());
}

#[test]
fn request_before_init_is_refused() {
    let server = overlay_server();

    assert_eq!(Client::new(&server).lookup(ROOT_ID, "dir"), Err(Errno::IO));
}

#[test]
fn bad_names_are_refused() {
    let server = overlay_server();
    let client = Client::connected(&server);

    assert_eq!(client.mkdir(ROOT_ID, "a/b"), Err(Errno::INVAL));
    assert_eq!(client.mkdir(ROOT_ID, ""), Err(Errno::INVAL));
    assert_eq!(client.mkdir(ROOT_ID, "."), Err(Errno::INVAL));
    assert_eq!(client.lookup(ROOT_ID, ".."), Err(Errno::INVAL));
    assert_eq!(client.mkdir(ROOT_ID, &"n".repeat(256)), Err(Errno::NAMETOOLONG));
    assert!(client.mkdir(ROOT_ID, &"n".repeat(255)).is_ok());
    assert_eq!(
        client.call(opcode::LOOKUP, ROOT_ID, &[b"no end"]),
        Err(Errno::INVAL)
    );
}

#[test]
fn made_up_node_ids_and_offsets_get_errors() {
    let server = overlay_server();
    let client = Client::connected(&server);
    let file = client
        .lookup(client.lookup(ROOT_ID, "dir").expect("found").nodeid, "file")
        .expect("found")
        .nodeid;

    for node in [0, 99, u64::MAX] {
        assert_eq!(client.getattr(node), Err(Errno::NOENT));
        assert_eq!(client.read(node, 0, 0, 1), Err(Errno::NOENT));
        assert_eq!(client.mkdir(node, "x"), Err(Errno::NOENT));
    }
    assert_eq!(client.mkdir(file, "x"), Err(Errno::NOTDIR));
    assert_eq!(client.read(ROOT_ID, 0, 0, 1), Err(Errno::ISDIR));
    assert_eq!(client.read(file, 0, u64::MAX, 1), Err(Errno::INVAL));
    assert_eq!(client.write(file, 0, i64::MAX as u64, b"x"), Err(Errno::FBIG));
    assert_eq!(client.read(file, 0, 4, u32::MAX), Ok(b"ents".to_vec()));
    assert_eq!(client.read(file, 0, 1 << 40, 10), Ok(vec![]));
}

#[test]
fn absent_names_are_remembered_only_where_nobody_else_makes_them() {
    let overlay = overlay_server();
    let (_host, share) = share_server();

    let absent = Client::connected(&overlay).call(opcode::LOOKUP, ROOT_ID, &[&text("none")]);
    let entry: EntryOut = take(&absent.expect("a negative entry"));
    assert_eq!(entry.nodeid, 0);
    assert!(entry.entry_valid > 3600);
    let unknown = Client::connected(&share).call(opcode::LOOKUP, ROOT_ID, &[&text("none")]);
    assert_eq!(unknown, Err(Errno::NOENT));
}

#[test]
fn attributes_of_set_id_programs_are_not_cached() {
    let server = overlay_server();

    let program = Client::connected(&server)
        .lookup(ROOT_ID, "program")
        .expect("found");

    assert_eq!((program.attr_valid, program.attr_valid_nsec), (0, 0));
}

#[test]
fn unlinked_file_keeps_its_contents_until_forgotten() {
    let server = overlay_server();
    let client = Client::connected(&server);
    let before = client.statfs();
    let file = client.mknod(ROOT_ID, "new").expect("made").nodeid;
    assert_eq!(client.write(file, 0, 0, &[7; 8192]), Ok(8192));

    client.unlink(ROOT_ID, "new").expect("removed");

    assert_eq!(client.read(file, 0, 8000, 1000), Ok(vec![7; 192]));
    assert_eq!(client.getattr(file).map(|out| out.attr.nlink), Ok(0));
    client.forget(file, 1);
    assert_eq!(client.getattr(file), Err(Errno::NOENT));
    let after = client.statfs();
    // What stays is the root directory, changed by having had a new entry.
    assert_eq!(before.ffree - after.ffree, 1);
    assert!(before.bfree - after.bfree <= 1);
}

#[test]
fn forget_of_more_uses_than_there_are_is_harmless() {
    let server = overlay_server();
    let client = Client::connected(&server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;

    client.forget(dir, u64::MAX);
    client.forget(dir, 1);
    client.forget(12345, 1);

    assert!(client.getattr(dir).is_ok());
    let one = ForgetOne {
        nodeid: dir,
        nlookup: 1,
    };
    let lie = BatchForgetIn {
        count: u32::MAX,
        dummy: 0,
    };
    assert!(
        client
            .raw(message(
                opcode::BATCH_FORGET,
                0,
                &[lie.as_bytes(), one.as_bytes()]
            ))
            .is_empty()
    );
}

#[test]
fn full_overlay_refuses_more_and_still_lets_files_be_removed() {
    let server = overlay_server();
    let client = Client::connected(&server);
    let file = client.mknod(ROOT_ID, "big").expect("made").nodeid;

    let mut written = 0;
    let error = loop {
        match client.write(file, 0, written, &[1; 1 << 20]) {
            Ok(more) => written += u64::from(more),
            Err(error) => break error,
        }
    };

    assert_eq!(error, Errno::NOSPC);
    assert!(written > 3 << 20, "{written} bytes of 4 MiB were taken");
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    assert_eq!(client.unlink(dir, "file"), Ok(()));
    assert_eq!(client.unlink(ROOT_ID, "big"), Ok(()));
    client.forget(file, 1);
    assert!(client.statfs().bfree > 1000);
    assert!(client.mknod(ROOT_ID, "again").is_ok());
}

#[test]
fn inodes_beyond_the_limit_are_refused() {
    let server = overlay_server();
    let client = Client::connected(&server);

    let made = (0..200)
        .take_while(|number| client.mknod(ROOT_ID, &format!("f{number}")).is_ok())
        .count();

    assert_eq!(made, 99, "100 inodes, one of them the root's");
    assert_eq!(client.mkdir(ROOT_ID, "d"), Err(Errno::NOSPC));
}

#[test]
fn listing_goes_on_where_it_was_while_entries_come_and_go() {
    let server = overlay_server();
    let client = Client::connected(&server);
    let dir = client.lookup(ROOT_ID, "dir").expect("found").nodeid;
    let first = client.readdir(dir, 0, 64);
    assert_eq!(
        first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        [".", ".."]
    );

    client.mknod(dir, "new").expect("made");
    let next = client.readdir(dir, first[1].1, 4096);
    client.unlink(dir, "file").expect("removed");
    let last = client.readdir(dir, next[0].1, 4096);

    assert_eq!(
        next.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["file", "new"]
    );
    assert_eq!(
        last.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["new"]
    );
    assert!(client.readdir(dir, u64::MAX, u32::MAX).is_empty());
}

#[test]
fn reply_without_space_for_the_answer_changes_nothing() {
    let server = overlay_server();
    let client = Client {
        capacity: 40,
        ..Client::connected(&server)
    };

    assert_eq!(client.mkdir(ROOT_ID, "new"), Err(Errno::INVAL));
    let client = Client {
        capacity: 8,
        ..client
    };
    assert!(
        client
            .raw(message(opcode::UNLINK, ROOT_ID, &[&text("program")]))
            .is_empty()
    );

    let client = Client::new(&server);
    assert_eq!(client.lookup(ROOT_ID, "new"), Err(Errno::NOENT));
    assert!(client.lookup(ROOT_ID, "program").is_ok());
}

#[test]
fn reset_invalidates_handles_and_nodes_of_a_share() {
    let (_host, server) = share_server();
    let client = Client::connected(&server);
    let file = client.lookup(ROOT_ID, "file").expect("found").nodeid;
    let opened: OpenOut = take(
        &client
            .call(opcode::OPEN, file, &[OpenIn::default().as_bytes()])
            .expect("opened"),
    );
    assert_eq!(client.read(file, opened.fh, 0, 100), Ok(b"contents".to_vec()));

    server.reset();

    assert_eq!(client.read(file, opened.fh, 0, 100), Err(Errno::IO));
    let client = Client::connected(&server);
    assert_eq!(client.read(file, opened.fh, 0, 100), Err(Errno::BADF));
    assert_eq!(client.getattr(file), Err(Errno::NOENT));
}

#[test]
fn share_handles_are_capped() {
    let (_host, server) = share_server();
    let client = Client::connected(&server);
    let file = client.lookup(ROOT_ID, "file").expect("found").nodeid;

    let error = (0..1 << 20)
        .find_map(|_| {
            client
                .call(opcode::OPEN, file, &[OpenIn::default().as_bytes()])
                .err()
        })
        .expect("an end of handles");

    assert_eq!(error, Errno::NFILE);
    assert!(
        File::open("/dev/null").is_ok(),
        "the process itself can still open files"
    );
}

#[test]
fn share_does_not_read_through_a_symbolic_link_or_above_itself() {
    let (host, server) = share_server();
    std::os::unix::fs::symlink("../secret", host.path().join("shared/link")).expect("linked");
    let client = Client::connected(&server);
    let link = client.lookup(ROOT_ID, "link").expect("found");

    assert_eq!(link.attr.mode & S_IFMT, FileKind::Symlink.mode_bits());
    assert_eq!(
        client.call(opcode::OPEN, link.nodeid, &[OpenIn::default().as_bytes()]),
        Err(Errno::LOOP)
    );
    assert_eq!(client.lookup(link.nodeid, "x"), Err(Errno::NOTDIR));
    assert_eq!(client.lookup(ROOT_ID, ".."), Err(Errno::INVAL));
    assert_eq!(client.lookup(ROOT_ID, "../secret"), Err(Errno::INVAL));
}

/// A request of some opcode whose payload is noise, with node ids and names that often exist.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let node = prop_oneof![4 => 0_u64..12, 1 => any::<u64>()];
    let opcode = prop_oneof![8 => 1_u32..54, 1 => any::<u32>()];
    let byte = prop_oneof![3 => Just(0_u8), 1 => Just(b'f'), 1 => Just(1), 1 => any::<u8>()];
    let tail = prop_oneof![
        Just(&b"f\0g\0"[..]),
        Just(&b"file\0f\0"[..]),
        Just(&b"dir\0"[..]),
        Just(&b""[..])
    ];
    (
        opcode,
        node,
        prop::collection::vec(byte, 0..120),
        tail,
        prop::option::of(any::<u32>()),
    )
        .prop_map(|(opcode, node, payload, tail, len)| {
            let mut bytes = message(opcode, node, &[&payload, tail]);
            if let Some(len) = len {
                bytes[..4].copy_from_slice(&len.to_le_bytes());
            }
            bytes
        })
}

/// Sends every request; every reply is empty or has a header that is true to it.
fn endure(server: &Server, requests: Vec<Vec<u8>>, capacity: usize) -> Result<(), TestCaseError> {
    let client = Client {
        capacity,
        ..Client::connected(server)
    };
    for request in requests {
        let reply = client.raw(request);
        if !reply.is_empty() {
            let header: OutHeader = take(&reply);
            prop_assert_eq!(header.len as usize, reply.len());
            prop_assert!((-4095..=0).contains(&header.error));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_sent_to_an_overlay_is_answered_truthfully(
        requests in prop::collection::vec(noise(), 1..60),
        capacity in prop_oneof![Just(1_usize << 16), 0_usize..300],
    ) {
        endure(&overlay_server(), requests, capacity)?;
    }

    #[test]
    fn noise_sent_to_a_share_is_answered_truthfully_and_stays_inside(
        requests in prop::collection::vec(noise(), 1..60),
        capacity in prop_oneof![Just(1_usize << 16), 0_usize..300],
    ) {
        let (host, server) = share_server();
        endure(&server, requests, capacity)?;
        prop_assert_eq!(std::fs::read(host.path().join("secret")).ok(), Some(b"secret".to_vec()));
        prop_assert_eq!(std::fs::read_dir(host.path()).map(Iterator::count).ok(), Some(2));
    }

    #[test]
    fn random_bytes_never_get_more_than_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let server = overlay_server();
        let _ = Client::new(&server).raw(bytes);
    }
}
