//! The guest program against a host that does not keep to the protocol.

mod common;

use std::io::Write;

use common::{Guest, command};
use guest_protocol::{Configure, Stage, Stdio, Stream, ToGuest, wire};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn frame(kind: u16, stream: u8, id: u32, announced: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(announced).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[stream, 0]);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn unknown_kind_is_answered_and_skipped() {
    let mut guest = Guest::start();

    guest
        .socket
        .write_all(&frame(0x7777, 0, 99, 5, b"hello"))
        .unwrap();

    let failure = guest.wait_failed(99);
    assert_eq!((failure.errno, failure.stage), (38, Stage::Request));
    guest.ping();
}

#[test]
fn frame_too_long_is_answered_and_skipped() {
    let len = wire::MAX_PAYLOAD + 1_000_000;
    let mut guest = Guest::start();

    guest
        .socket
        .write_all(&frame(wire::KIND_EXEC, 0, 99, len, &vec![0; len]))
        .unwrap();

    let failure = guest.wait_failed(99);
    assert_eq!((failure.errno, failure.stage), (7, Stage::Request));
    guest.ping();
}

#[test]
fn exec_whose_counts_lie_is_refused() {
    let exec = command(&["true"]);
    let good = guest_protocol::Frame {
        id: 1,
        message: ToGuest::Exec(exec),
    }
    .to_bytes()
    .unwrap();
    let good = &good[wire::HEADER_LEN..];
    let mut guest = Guest::start();

    for offset in [wire::EXEC_GROUP_COUNT, wire::EXEC_ARG_COUNT, wire::EXEC_ENV_COUNT] {
        for lie in [2u32, 200, 9000, u32::MAX] {
            let mut payload = good.to_vec();
            payload[offset..offset + 4].copy_from_slice(&lie.to_le_bytes());
            // Known to the harness, which collects the refusal.
            let id = guest.exec(silent("true"), b"");
            guest.wait_over(id);
            guest
                .socket
                .write_all(&frame(wire::KIND_EXEC, 0, id, payload.len(), &payload))
                .unwrap();
            guest.wait(|guest| guest.processes[&id].failed.is_some());
            assert_eq!(
                guest.processes[&id].failed.unwrap().stage,
                Stage::Request,
                "{offset} {lie}"
            );
        }
    }
}

fn silent(program: &str) -> guest_protocol::Exec {
    let mut exec = command(&[program]);
    exec.stdio = Stdio::Pipes {
        stdin: false,
        stdout: false,
        stderr: false,
    };
    exec
}

#[test]
fn exec_under_an_id_in_use_is_refused_and_harms_nothing() {
    let mut guest = Guest::start();
    let id = guest.sh("read line; sleep 0.2; echo mine");

    guest.send(id, ToGuest::Exec(command(&["true"])));

    guest.wait(|guest| guest.processes[&id].failed.is_some());
    assert_eq!(guest.processes[&id].failed.unwrap().stage, Stage::Slot);
    guest.wait_output(id, "mine");
}

#[test]
fn stdin_past_its_credit_is_refused_and_dropped() {
    let mut guest = Guest::start();
    let id = guest.exec(silent_reader(), b"");
    let chunk = vec![b'x'; wire::MAX_DATA];
    // The pipe takes 64 KiB of it and returns the credit; twice the window and the pipe is past everything.
    for _ in 0..8 {
        guest.send(id, ToGuest::Data(Stream::Stdin, chunk.clone()));
    }

    let failure = guest.wait_failed(id);

    assert_eq!((failure.errno, failure.stage), (71, Stage::Request));
    guest.ping();
}

/// Has a stdin, which it never reads, and no end.
fn silent_reader() -> guest_protocol::Exec {
    let mut exec = command(&["sleep", "1000"]);
    exec.stdio = Stdio::Pipes {
        stdin: true,
        stdout: true,
        stderr: true,
    };
    exec
}

#[test]
fn credit_past_the_maximum_is_refused() {
    let mut guest = Guest::start();
    let id = guest.exec(silent_reader(), b"");

    guest.send(id, ToGuest::Credit(Stream::Stdout, wire::MAX_CREDIT));

    assert_eq!(guest.wait_failed(id).errno, 71);
}

#[test]
fn version_not_spoken_is_refused_with_its_stage() {
    let mut guest = Guest::start();

    let id = guest.request(ToGuest::Configure(Configure {
        version: 9,
        ..Configure::default()
    }));

    assert_eq!(guest.wait_failed(id).stage, Stage::Version);
}

#[test]
fn hosted_program_refuses_to_mount() {
    let mut guest = Guest::start();

    let id = guest.request(ToGuest::MountRoot(guest_protocol::MountRoot {
        tag: b"root".to_vec(),
        read_only: false,
    }));

    assert_eq!(
        (guest.wait_failed(id).errno, guest.done.contains(&id)),
        (1, false)
    );
}

#[test]
fn random_frames_never_end_the_program() {
    let kinds = prop_oneof![1u16..8, Just(9u16), 0x0101u16..0x0105, any::<u16>()];
    let frames = proptest::collection::vec(
        (
            kinds,
            0u8..4,
            0u32..4,
            proptest::collection::vec(any::<u8>(), 0..80),
        ),
        1..40,
    );
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&frames, |frames| {
            let mut guest = Guest::start();
            for id in 0..4 {
                guest.adopt(id);
            }
            for (kind, stream, id, payload) in frames {
                let kind = if kind == wire::KIND_SHUTDOWN {
                    wire::KIND_PING
                } else {
                    kind
                };
                guest
                    .socket
                    .write_all(&frame(kind, stream, id, payload.len(), &payload))
                    .unwrap();
            }
            guest.ping();
            Ok(())
        })
        .unwrap();
}
