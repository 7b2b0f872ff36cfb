//! The codec against every message there is, and against bytes that are none.

use guest_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn string(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..=255, 0..max)
}

fn text() -> impl Strategy<Value = String> {
    vec(proptest::char::range(' ', '~'), 0..60).prop_map(|chars| chars.into_iter().collect())
}

fn output() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)]
}

fn window() -> impl Strategy<Value = WindowSize> {
    any::<(u16, u16)>().prop_map(|(rows, cols)| WindowSize { rows, cols })
}

fn stdio() -> impl Strategy<Value = Stdio> {
    prop_oneof![
        any::<(bool, bool, bool)>().prop_map(|(stdin, stdout, stderr)| Stdio::Pipes {
            stdin,
            stdout,
            stderr
        }),
        window().prop_map(Stdio::Tty),
    ]
}

fn exec() -> impl Strategy<Value = Exec> {
    (
        vec(string(40), 1..8),
        vec(string(40), 0..8),
        string(60),
        any::<(bool, u32, u32)>(),
        vec(any::<u32>(), 0..5),
        stdio(),
    )
        .prop_map(|(argv, env, cwd, (create_cwd, uid, gid), groups, stdio)| Exec {
            argv,
            env,
            cwd,
            create_cwd,
            uid,
            gid,
            groups,
            stdio,
        })
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    let data = || vec(any::<u8>(), 1..200);
    prop_oneof![
        (any::<u16>(), string(64), any::<u64>(), vec(any::<u8>(), 0..513)).prop_map(
            |(version, hostname, wall_clock_ns, entropy)| ToGuest::Configure(Configure {
                version,
                hostname,
                wall_clock_ns,
                entropy
            })
        ),
        (string(36), any::<bool>())
            .prop_map(|(tag, read_only)| ToGuest::MountRoot(MountRoot { tag, read_only })),
        (string(36), string(50), string(50), any::<bool>()).prop_map(|(tag, path, source, read_only)| {
            ToGuest::Mount(Mount {
                tag,
                path: [b"/".to_vec(), path].concat(),
                source,
                read_only,
            })
        }),
        exec().prop_map(ToGuest::Exec),
        (1u32..=64).prop_map(ToGuest::Signal),
        window().prop_map(ToGuest::WindowSize),
        Just(ToGuest::Sync),
        Just(ToGuest::Ping),
        (any::<bool>(), 0u32..60_000)
            .prop_map(|(restart, grace_ms)| ToGuest::Shutdown(Shutdown { restart, grace_ms })),
        data().prop_map(|data| ToGuest::Data(Stream::Stdin, data)),
        Just(ToGuest::Eof(Stream::Stdin)),
        output().prop_map(ToGuest::Close),
        (output(), any::<u32>()).prop_map(|(stream, bytes)| ToGuest::Credit(stream, bytes)),
    ]
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Request),
        Just(Stage::Version),
        Just(Stage::Mount),
        Just(Stage::Configure),
        Just(Stage::Slot),
        Just(Stage::Stdio),
        Just(Stage::Fork),
        Just(Stage::Cwd),
        Just(Stage::Credentials),
        Just(Stage::Exec),
    ]
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        (1u8..=64, any::<bool>())
            .prop_map(|(signal, core_dumped)| ExitStatus::Signal { signal, core_dumped }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let arch = prop_oneof![Just(Arch::Amd64), Just(Arch::Arm64), Just(Arch::Riscv64)];
    (any::<(u16, u16, bool, u32, [u8; 16], u64, u64)>(), arch, text()).prop_map(
        |((version_min, version_max, hosted, slots, boot_id, start_ns, now_ns), arch, release)| Hello {
            version_min,
            version_max,
            arch,
            hosted,
            slots,
            boot_id,
            start_ns,
            now_ns,
            release,
        },
    )
}

fn to_host() -> impl Strategy<Value = ToHost> {
    prop_oneof![
        hello().prop_map(ToHost::Hello),
        Just(ToHost::Done),
        (any::<u32>(), stage(), text()).prop_map(|(errno, stage, text)| ToHost::Failed(Failure {
            errno,
            stage,
            text
        })),
        any::<u32>().prop_map(ToHost::Started),
        (any::<u32>(), stage()).prop_map(|(errno, stage)| ToHost::ExecFailed(ExecFailure { errno, stage })),
        (status(), any::<(bool, bool, u64, u64, u64)>()).prop_map(
            |(status, (stdout_undrained, stderr_undrained, user_us, system_us, max_rss_kib))| {
                ToHost::Exited(Exited {
                    status,
                    stdout_undrained,
                    stderr_undrained,
                    user_us,
                    system_us,
                    max_rss_kib,
                })
            }
        ),
        output().prop_map(ToHost::Drained),
        (any::<u64>(), text()).prop_map(|(ns, name)| ToHost::Mark(Mark { ns, name })),
        (output(), vec(any::<u8>(), 1..200)).prop_map(|(stream, data)| ToHost::Data(stream, data)),
        output().prop_map(ToHost::Eof),
        Just(ToHost::Close(Stream::Stdin)),
        any::<u32>().prop_map(|bytes| ToHost::Credit(Stream::Stdin, bytes)),
    ]
}

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
        let mut decoder = Decoder::<ToHost>::new();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn random_payloads_of_known_kinds_never_panic(
        kind in prop_oneof![1u16..0x0a, 0x0101u16..0x0105, 0x0201u16..0x0209],
        stream in 0u8..4,
        payload in vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&[stream, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&payload);
        let mut to_host = Decoder::<ToHost>::new();
        to_host.push(&bytes);
        while let Ok(Some(_)) = to_host.next_frame() {}
        let mut to_guest = Decoder::<ToGuest>::new();
        to_guest.push(&bytes);
        while let Ok(Some(_)) = to_guest.next_frame() {}
    }

    #[test]
    fn corrupted_frames_never_panic(message in to_host(), at in 0usize..400, value in any::<u8>()) {
        let mut bytes = Frame { id: 1, message }.to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        let mut decoder = Decoder::<ToHost>::new();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
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
