//! The guest program as init of a container: a file server that stands still, is killed, or is asked nonsense.

mod common;

use std::fs;
use std::io::Write;

use common::Guest;
use common::files::{READ, at, in_directory};
use guest_protocol::{FileRequest, Stage, ToGuest, ToHost, wire};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const EIO: u32 = 5;
const EBADF: u32 = 9;
const EAGAIN: u32 = 11;
const EPROTO: u32 = 71;

fn read_null(file: u32) -> FileRequest {
    FileRequest::Read {
        file,
        offset: 0,
        len: 10,
    }
}

/// Opens `/dev/null` and returns its number, and the process id of the file server in the container.
fn with_server(guest: &mut Guest) -> (u32, u32) {
    let file = guest.open(in_directory(0, "/dev/null"), READ).unwrap();
    let script = "for p in /proc/[0-9]*; do \
                  test \"$(readlink $p/exe)\" = \"$(readlink /proc/1/exe)\" && echo ${p#/proc/}; done";
    let pids = guest.run_sh(script);
    let server = pids.lines().find(|pid| *pid != "1").expect("a file server");
    (file, server.parse().unwrap())
}

#[test]
fn file_server_is_there_only_when_it_was_asked() {
    let mut guest = Guest::start();

    let count =
        |guest: &mut Guest| guest.run_sh("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c ' -> .*/guest\\b'");

    assert_eq!(count(&mut guest), "1\n");
    guest.open(in_directory(0, "/dev/null"), READ).unwrap();
    assert_eq!(count(&mut guest), "2\n");
}

#[test]
fn file_server_that_stands_still_holds_up_no_command_and_no_request() {
    let mut guest = Guest::start();
    let (file, server) = with_server(&mut guest);
    guest.run_sh(&format!("kill -STOP {server}"));

    let waiting: Vec<u32> = (0..wire::MAX_FILE_REQUESTS)
        .map(|_| guest.request(ToGuest::File(read_null(file))))
        .collect();
    let bytes = vec![b'x'; 3_000_000];
    let output = guest.run(common::command(&["cat"]), &bytes).output[0].len();
    guest.ping();

    assert_eq!(output, bytes.len());
    assert!(waiting.iter().all(|id| !guest.file_replies.contains_key(id)));
    guest.run_sh(&format!("kill -CONT {server}"));
    for id in waiting {
        assert_eq!(guest.wait_file(id), Ok(ToHost::FileData(Vec::new())));
    }
}

#[test]
fn requests_past_the_most_are_refused_and_the_others_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::start();
    let (_, server) = with_server(&mut guest);
    let path = folder.path().join("a");
    let file = guest.open(at(&path), common::files::WRITE_NEW).unwrap();
    guest.run_sh(&format!("kill -STOP {server}"));

    // Far more than a pipe holds.
    let piece = |n: u64| FileRequest::Write {
        file,
        offset: n * wire::MAX_DATA as u64,
        data: vec![n as u8; wire::MAX_DATA],
    };
    let waiting: Vec<u32> = (0..u64::from(wire::MAX_FILE_REQUESTS))
        .map(|n| guest.request(ToGuest::File(piece(n))))
        .collect();
    let refused = guest.request(ToGuest::File(piece(99)));
    let failure = guest.wait_failed(refused);

    assert_eq!((failure.errno, failure.stage), (EAGAIN, Stage::Slot));
    guest.run_sh(&format!("kill -CONT {server}"));
    for id in waiting {
        assert_eq!(
            guest.wait_file(id),
            Ok(ToHost::FileWritten(wire::MAX_DATA as u32))
        );
    }
    let expected: Vec<u8> = (0..wire::MAX_FILE_REQUESTS as u8)
        .flat_map(|n| vec![n; wire::MAX_DATA])
        .collect();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn file_server_killed_fails_what_it_owed_and_the_next_request_finds_another() {
    let mut guest = Guest::start();
    let (file, server) = with_server(&mut guest);
    guest.run_sh(&format!("kill -STOP {server}"));
    let owed = guest.request(ToGuest::File(read_null(file)));

    guest.run_sh(&format!("kill -KILL {server}"));

    assert_eq!(guest.wait_file(owed), Err(EIO));
    assert_eq!(guest.file(read_null(file)), Err(EBADF));
    let (again, other) = with_server(&mut guest);
    assert_eq!(guest.file(read_null(again)), Ok(ToHost::FileData(Vec::new())));
    assert_ne!(other, server);
}

fn file_frame(id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(&wire::KIND_FILE.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn payload(operation: u32, number: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; wire::FILE_FIXED];
    bytes[wire::FILE_OPERATION..wire::FILE_OPERATION + 4].copy_from_slice(&operation.to_le_bytes());
    bytes[wire::FILE_NUMBER..wire::FILE_NUMBER + 4].copy_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// What a malformed request is answered.
fn refusal(guest: &mut Guest, payload: &[u8]) -> (u32, Stage) {
    let id = guest.new_id();
    guest.socket.write_all(&file_frame(id, payload)).unwrap();
    let failure = guest.wait_failed(id);
    (failure.errno, failure.stage)
}

#[test]
fn malformed_requests_are_refused_one_by_one() {
    let mut guest = Guest::start();
    let malformed = (EPROTO, Stage::Request);
    let too_long = [vec![b'x'; wire::MAX_PATH + 1], vec![0]].concat();
    let cases = [
        payload(wire::FILE_METADATA, 0, b"no end"),
        payload(wire::FILE_METADATA, 0, b""),
        payload(wire::FILE_METADATA, 0, b"one\0two\0"),
        payload(wire::FILE_METADATA, 0, &too_long),
        payload(wire::FILE_RENAME, 0, b"one\0"),
        payload(wire::FILE_RENAME, 0, b"one\0two"),
        payload(wire::FILE_RENAME, 0, &[b"one\0", too_long.as_slice()].concat()),
        payload(wire::FILE_READ, wire::MAX_DATA as u32 + 1, b""),
        payload(wire::FILE_READ, 1, b"rest"),
        payload(wire::FILE_SET_LEN, 0, b"x\0"),
        vec![0; wire::FILE_FIXED - 1],
        payload(wire::FILE_WRITE, 0, &vec![0; wire::MAX_DATA + 1]),
    ];

    for case in cases {
        assert_eq!(refusal(&mut guest, &case), malformed, "{:?}", &case[..8]);
    }

    assert_eq!(refusal(&mut guest, &payload(0, 0, b"")), (38, Stage::Request));
    assert_eq!(refusal(&mut guest, &payload(99, 0, b"")), (38, Stage::Request));
    guest
        .socket
        .write_all(&file_frame(0, &payload(5, 0, b"/\0")))
        .unwrap();
    assert_eq!(guest.wait_failed(0).errno, EPROTO);
    guest.ping();
}

#[test]
fn open_under_a_number_in_use_is_refused_and_harms_nothing() {
    let mut guest = Guest::start();
    let file = guest.open(in_directory(0, "/dev/zero"), READ).unwrap();

    guest.send(
        file,
        ToGuest::File(FileRequest::Open {
            at: in_directory(0, "/dev/null"),
            flags: READ,
            mode: 0,
        }),
    );

    assert_eq!(guest.wait_failed(file).errno, 16);
    assert_eq!(guest.read_at(file, 0, 2), Ok(vec![0, 0]));
}

#[test]
fn random_file_requests_never_end_either_program() {
    let fields = proptest::collection::vec(prop_oneof![Just(0u8), 1u8..5, any::<u8>()], 28);
    // Names of two letters, so that they meet.
    let rest = proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'/'), Just(b'.'), Just(0u8)], 0..8);
    let requests = proptest::collection::vec((1u32..18, fields, rest, any::<bool>()), 1..40);
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&requests, |requests| {
            let root = tempfile::tempdir().unwrap();
            let mut guest = Guest::start_in(root.path());
            let mut sent = Vec::new();
            for (operation, fields, rest, close) in requests {
                let id = guest.new_id();
                let payload = [operation.to_le_bytes().to_vec(), fields, rest].concat();
                guest.socket.write_all(&file_frame(id, &payload)).unwrap();
                if close {
                    guest.send(id / 2, ToGuest::CloseFile);
                }
                sent.push(id);
            }
            for id in sent {
                // Whatever it is: it comes.
                let _ = guest.wait_file(id);
            }
            let alive = guest.metadata(in_directory(0, "/"), true);
            prop_assert!(alive.is_ok());
            prop_assert!(guest.failures.iter().all(|(_, failure)| failure.errno != EIO));
            Ok(())
        })
        .unwrap();
}
