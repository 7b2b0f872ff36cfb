//! Every message there is, as strategies; and the way through the channel.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file includes this and uses its part"
)]

pub mod files;

use guest_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

pub fn string(max: usize) -> impl Strategy<Value = Vec<u8>> {
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

pub fn to_guest() -> impl Strategy<Value = ToGuest> {
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
        Just(ToGuest::Freeze),
        Just(ToGuest::Thaw),
        (any::<bool>(), 0u32..60_000)
            .prop_map(|(restart, grace_ms)| ToGuest::Shutdown(Shutdown { restart, grace_ms })),
        data().prop_map(|data| ToGuest::Data(Stream::Stdin, data)),
        files::file_request().prop_map(ToGuest::File),
        Just(ToGuest::CloseFile),
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
        Just(Stage::File),
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

pub fn to_host() -> impl Strategy<Value = ToHost> {
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
        vec(any::<u8>(), 0..200).prop_map(ToHost::FileData),
        files::file_metadata().prop_map(ToHost::FileMetadata),
        any::<u32>().prop_map(ToHost::FileWritten),
        output().prop_map(ToHost::Eof),
        Just(ToHost::Close(Stream::Stdin)),
        any::<u32>().prop_map(|bytes| ToHost::Credit(Stream::Stdin, bytes)),
    ]
}

/// A frame with any payload.
pub fn raw_frame(kind: u16, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[stream, 0, 1, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes out whatever frames the bytes are.
pub fn decode_all<M: Message>(bytes: &[u8]) {
    let mut decoder = Decoder::<M>::new();
    decoder.push(bytes);
    while let Ok(Some(_)) = decoder.next_frame() {}
}
