//! File requests and replies against bytes that are none, and values that cannot be carried.

mod common;

use common::{decode_all, raw_frame};
use guest_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn file_requests_with_random_fields_never_panic(
        operation in 0u32..18, fields in vec(any::<u8>(), 28), rest in vec(0u8..3, 0..40),
    ) {
        let payload = [operation.to_le_bytes().to_vec(), fields, rest].concat();
        decode_all::<ToGuest>(&raw_frame(wire::KIND_FILE, 0, &payload));
    }

    #[test]
    fn directory_entries_of_random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        // What is taken as entries are names a directory can hold.
        for entry in directory_entries(&bytes).unwrap_or_default() {
            prop_assert!(!entry.name.is_empty() && !entry.name.contains(&b'/') && !entry.name.contains(&0));
        }
    }

    #[test]
    fn directory_entries_with_random_lengths_never_panic(lens in vec(0u16..64, 1..8)) {
        let mut bytes = Vec::new();
        for len in lens {
            let mut entry = [b'n'; 63];
            entry[wire::ENTRY_LEN..wire::ENTRY_LEN + 2].copy_from_slice(&len.to_le_bytes());
            let end = usize::from(len).min(entry.len());
            entry[end.saturating_sub(1)] = 0;
            bytes.extend_from_slice(&entry[..end]);
        }
        let _ = directory_entries(&bytes);
    }
}

fn refusal(request: FileRequest) -> Error {
    let message = ToGuest::File(request);
    Frame { id: 1, message }.to_bytes().unwrap_err()
}

fn bad(field: &'static str) -> Error {
    Error::BadValue {
        kind: wire::KIND_FILE,
        field,
    }
}

#[test]
fn file_path_too_long_or_with_nul_is_refused() {
    let remove = |path: Vec<u8>| FileRequest::Remove {
        at: FilePath { directory: 0, path },
        directory: false,
    };

    assert_eq!(refusal(remove(vec![b'x'; wire::MAX_PATH + 1])), bad("path"));
    assert_eq!(refusal(remove(b"a\0b".to_vec())), Error::NulInString("path"));
}

#[test]
fn file_read_longer_than_a_frame_is_refused() {
    let read = FileRequest::Read {
        file: 1,
        offset: 0,
        len: wire::MAX_DATA as u32 + 1,
    };

    assert_eq!(refusal(read), bad("length"));
}

#[test]
fn file_write_longer_than_a_frame_is_refused() {
    let write = FileRequest::Write {
        file: 1,
        offset: 0,
        data: vec![0; wire::MAX_DATA + 1],
    };

    assert!(matches!(refusal(write), Error::PayloadTooLong { .. }));
}

#[test]
fn file_owner_and_time_that_mean_none_are_refused() {
    let owner = FileRequest::SetOwner {
        at: FilePath::default(),
        uid: Some(u32::MAX),
        gid: None,
        follow: true,
    };
    let times = FileRequest::SetTimes {
        at: FilePath::default(),
        accessed_ns: None,
        modified_ns: Some(i64::MIN),
        follow: true,
    };

    assert_eq!(refusal(owner), bad("owner"));
    assert_eq!(refusal(times), bad("time"));
}

#[test]
fn file_metadata_with_a_second_of_too_many_nanoseconds_is_refused() {
    let mut payload = [0; wire::METADATA_LEN];
    payload[wire::METADATA_CHANGED + 8..wire::METADATA_CHANGED + 12]
        .copy_from_slice(&1_000_000_000u32.to_le_bytes());
    let mut decoder = Decoder::<ToHost>::new();
    decoder.push(&raw_frame(wire::KIND_FILE_METADATA, 0, &payload));

    assert_eq!(
        decoder.next_frame().unwrap_err(),
        Error::BadValue {
            kind: wire::KIND_FILE_METADATA,
            field: "time"
        }
    );
}

#[test]
fn file_metadata_lies_where_the_kernel_puts_it() {
    let time = |seconds| FileTime { seconds, ns: 5 };
    let metadata = FileMetadata {
        mode: 0o100_644,
        links: 2,
        uid: 3,
        gid: 4,
        inode: 6,
        size: 7,
        blocks: 8,
        block_size: 9,
        device: (10, 11),
        device_file: (12, 13),
        accessed: time(14),
        modified: time(15),
        changed: time(16),
        created: Some(time(-17)),
    };

    let frame = Frame {
        id: 1,
        message: ToHost::FileMetadata(metadata),
    }
    .to_bytes()
    .unwrap();

    let payload = &frame[wire::HEADER_LEN..];
    let u32_at = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    let u32s = [
        (wire::METADATA_BLOCK_SIZE, 9),
        (wire::METADATA_LINKS, 2),
        (wire::METADATA_UID, 3),
        (wire::METADATA_GID, 4),
        (wire::METADATA_MODE, 0o100_644),
        (wire::METADATA_DEVICE, 10),
        (wire::METADATA_DEVICE + 4, 11),
        (wire::METADATA_DEVICE_FILE, 12),
        (wire::METADATA_DEVICE_FILE + 4, 13),
        (wire::METADATA_ACCESSED + 8, 5),
    ];
    let u64s = [
        (wire::METADATA_INODE, 6),
        (wire::METADATA_SIZE, 7),
        (wire::METADATA_BLOCKS, 8),
        (wire::METADATA_ACCESSED, 14),
        (wire::METADATA_MODIFIED, 15),
        (wire::METADATA_CHANGED, 16),
        (wire::METADATA_CREATED, (-17i64).cast_unsigned()),
    ];
    assert_eq!(payload.len(), wire::METADATA_LEN);
    assert_eq!(u32s.map(|(at, _)| u32_at(at)), u32s.map(|(_, value)| value));
    assert_eq!(u64s.map(|(at, _)| u64_at(at)), u64s.map(|(_, value)| value));
    assert_ne!(u32_at(wire::METADATA_MASK) & wire::METADATA_HAS_CREATED, 0);
}
