//! The codec against every message there is, and against bytes that are none.

mod common;

use common::{decode_all, raw_frame, to_guest, to_host};
use guest_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Encodes all, feeds the bytes in pieces of `piece`, and takes everything out again.
fn through_the_channel<M: Message + Clone>(messages: &[(u32, M)], piece: usize) -> Vec<Frame<M>> {
    let mut bytes = Vec::new();
    for (id, message) in messages {
        Frame {
            id: *id,
            message: message.clone(),
        }
        .encode(&mut bytes)
        .unwrap();
    }
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.push(part);
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    assert!(decoder.is_empty());
    frames
}

proptest! {
    #[test]
    fn host_messages_cut_anywhere_arrive_unchanged(
        messages in vec((1u32.., to_guest()), 1..5), piece in 1usize..300,
    ) {
        let expected: Vec<_> =
            messages.iter().map(|(id, message)| Frame { id: *id, message: message.clone() }).collect();
        prop_assert_eq!(through_the_channel(&messages, piece), expected);
    }

    #[test]
    fn guest_messages_cut_anywhere_arrive_unchanged(
        messages in vec((any::<u32>(), to_host()), 1..5), piece in 1usize..300,
    ) {
        let expected: Vec<_> =
            messages.iter().map(|(id, message)| Frame { id: *id, message: message.clone() }).collect();
        prop_assert_eq!(through_the_channel(&messages, piece), expected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode_all::<ToHost>(&bytes);
    }

    #[test]
    fn random_payloads_of_known_kinds_never_panic(
        kind in prop_oneof![
            1u16..0x0a, 0x20u16..0x22, 0x0101u16..0x0105, 0x0201u16..0x0209, 0x0220u16..0x0223,
        ],
        stream in 0u8..4,
        payload in vec(any::<u8>(), 0..160),
    ) {
        let bytes = raw_frame(kind, stream, &payload);
        decode_all::<ToHost>(&bytes);
        decode_all::<ToGuest>(&bytes);
    }

    #[test]
    fn corrupted_frames_never_panic(message in to_host(), at in 0usize..400, value in any::<u8>()) {
        let mut bytes = Frame { id: 1, message }.to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        decode_all::<ToHost>(&bytes);
    }
}

#[test]
fn announced_length_beyond_maximum_fails_before_it_is_buffered() {
    let mut decoder = Decoder::<ToHost>::new();
    decoder.push(&[0xff, 0xff, 0xff, 0xff, 0x01, 0x01, 1, 0, 1, 0, 0, 0]);

    let error = decoder.next_frame().unwrap_err();

    assert_eq!(
        error,
        Error::PayloadTooLong {
            kind: wire::KIND_DATA,
            len: u32::MAX as usize,
            max: wire::MAX_DATA
        }
    );
    assert_eq!(
        decoder.next_frame().unwrap_err(),
        error,
        "a broken stream stays broken"
    );
}

#[test]
fn exec_with_nul_in_argument_is_refused_and_leaves_buffer() {
    let exec = Exec {
        argv: vec![b"echo".to_vec(), b"a\0b".to_vec()],
        ..Exec::default()
    };
    let mut out = b"before".to_vec();

    let result = Frame {
        id: 1,
        message: ToGuest::Exec(exec),
    }
    .encode(&mut out);

    assert_eq!(result, Err(Error::NulInString("argument")));
    assert_eq!(out, b"before");
}

#[test]
fn exec_larger_than_a_frame_is_refused() {
    let exec = Exec {
        argv: vec![vec![b'x'; wire::MAX_PAYLOAD]],
        ..Exec::default()
    };

    let result = Frame {
        id: 1,
        message: ToGuest::Exec(exec),
    }
    .to_bytes();

    assert!(matches!(
        result,
        Err(Error::PayloadTooLong {
            kind: wire::KIND_EXEC,
            ..
        })
    ));
}

#[test]
fn exec_without_program_is_refused() {
    let result = Frame {
        id: 1,
        message: ToGuest::Exec(Exec::default()),
    }
    .to_bytes();

    assert_eq!(
        result,
        Err(Error::BadValue {
            kind: wire::KIND_EXEC,
            field: "number of arguments"
        })
    );
}

#[test]
fn request_with_id_zero_is_refused() {
    let result = Frame {
        id: 0,
        message: ToGuest::Ping,
    }
    .to_bytes();

    assert_eq!(
        result,
        Err(Error::BadValue {
            kind: wire::KIND_PING,
            field: "id"
        })
    );
}

#[test]
fn negotiate_guest_newer_than_host_names_both_ranges() {
    let hello = Hello {
        version_min: 7,
        version_max: 9,
        arch: Arch::Amd64,
        hosted: false,
        slots: 64,
        boot_id: [0; 16],
        start_ns: 0,
        now_ns: 0,
        release: String::new(),
    };

    let error = hello.negotiate().unwrap_err();

    assert_eq!(
        error.to_string(),
        "guest program speaks control protocol 7 to 9, this program 1 to 1"
    );
}

#[test]
fn shell_codes_of_failures_and_signals_are_those_of_a_shell() {
    assert_eq!(
        ExecFailure {
            errno: 2,
            stage: Stage::Exec
        }
        .shell_code(),
        127
    );
    assert_eq!(
        ExecFailure {
            errno: 13,
            stage: Stage::Exec
        }
        .shell_code(),
        126
    );
    assert_eq!(
        ExecFailure {
            errno: 11,
            stage: Stage::Fork
        }
        .shell_code(),
        125
    );
    assert_eq!(
        ExitStatus::Signal {
            signal: 9,
            core_dumped: false
        }
        .shell_code(),
        137
    );
}
