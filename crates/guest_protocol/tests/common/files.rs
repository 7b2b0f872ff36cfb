//! Every file request and reply, as strategies.

use guest_protocol::*;
use proptest::collection::vec;
use proptest::prelude::*;

use super::string;

fn file_path() -> impl Strategy<Value = FilePath> {
    (any::<u32>(), string(50)).prop_map(|(directory, path)| FilePath { directory, path })
}

fn open() -> impl Strategy<Value = FileRequest> {
    (file_path(), any::<[bool; 8]>(), any::<u32>()).prop_map(|(at, bits, mode)| {
        let [
            read,
            write,
            append,
            truncate,
            create,
            create_new,
            directory,
            no_follow,
        ] = bits;
        let flags = OpenFlags {
            read,
            write,
            append,
            truncate,
            create,
            create_new,
            directory,
            no_follow,
        };
        FileRequest::Open { at, flags, mode }
    })
}

fn file_owner() -> impl Strategy<Value = FileRequest> {
    let id = || proptest::option::of(0..u32::MAX);
    (file_path(), id(), id(), any::<bool>()).prop_map(|(at, uid, gid, follow)| FileRequest::SetOwner {
        at,
        uid,
        gid,
        follow,
    })
}

fn file_times() -> impl Strategy<Value = FileRequest> {
    let ns = || proptest::option::of(i64::MIN + 1..=i64::MAX);
    (file_path(), ns(), ns(), any::<bool>()).prop_map(|(at, accessed_ns, modified_ns, follow)| {
        FileRequest::SetTimes {
            at,
            accessed_ns,
            modified_ns,
            follow,
        }
    })
}

pub fn file_request() -> impl Strategy<Value = FileRequest> {
    let file = any::<u32>;
    let len = || 0..=wire::MAX_DATA as u32;
    let paths = || (file_path(), string(50));
    prop_oneof![
        open(),
        (file(), any::<u64>(), len()).prop_map(|(file, offset, len)| FileRequest::Read { file, offset, len }),
        (file(), any::<u64>(), vec(any::<u8>(), 0..200))
            .prop_map(|(file, offset, data)| FileRequest::Write { file, offset, data }),
        (file(), len()).prop_map(|(file, len)| FileRequest::ReadDirectory { file, len }),
        (file_path(), any::<bool>()).prop_map(|(at, follow)| FileRequest::Metadata { at, follow }),
        (file(), any::<u64>()).prop_map(|(file, len)| FileRequest::SetLen { file, len }),
        (file(), any::<bool>()).prop_map(|(file, data_only)| FileRequest::Sync { file, data_only }),
        (file_path(), any::<u32>()).prop_map(|(at, mode)| FileRequest::CreateDirectory { at, mode }),
        (file_path(), any::<bool>()).prop_map(|(at, directory)| FileRequest::Remove { at, directory }),
        paths().prop_map(|(from, to)| FileRequest::Rename { from, to }),
        paths().prop_map(|(at, target)| FileRequest::Symlink { target, at }),
        paths().prop_map(|(from, to)| FileRequest::HardLink { from, to }),
        file_path().prop_map(|at| FileRequest::ReadLink { at }),
        (file_path(), any::<u32>()).prop_map(|(at, mode)| FileRequest::SetMode { at, mode }),
        file_owner(),
        file_times(),
    ]
}

fn file_time() -> impl Strategy<Value = FileTime> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(seconds, ns)| FileTime { seconds, ns })
}

pub fn file_metadata() -> impl Strategy<Value = FileMetadata> {
    let device = any::<(u32, u32)>;
    let times = (
        file_time(),
        file_time(),
        file_time(),
        proptest::option::of(file_time()),
    );
    (
        any::<(u16, u32, u32, u32, u64, u64, u64, u32)>(),
        device(),
        device(),
        times,
    )
        .prop_map(
            |(
                (mode, links, uid, gid, inode, size, blocks, block_size),
                device,
                device_file,
                (accessed, modified, changed, created),
            )| FileMetadata {
                mode,
                links,
                uid,
                gid,
                inode,
                size,
                blocks,
                block_size,
                device,
                device_file,
                accessed,
                modified,
                changed,
                created,
            },
        )
}
