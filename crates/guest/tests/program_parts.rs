//! The parts of the guest program that call no kernel, compiled for the host from the very same files.
#![allow(
    unsafe_code,
    unreachable_pub,
    dead_code,
    missing_docs,
    clippy::manual_range_contains
)]
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks
)]
// The program is made of raw pointers (its main.rs says why); nothing of it gets into a host binary but here.

#[path = "../program/ring.rs"]
mod ring;
#[path = "../program/text.rs"]
mod text;

use std::ffi::{CStr, CString};

use proptest::prelude::*;

/// Everything a search for `name` through `path` tries.
fn candidates(path: &str, name: &str, capacity: usize) -> Vec<String> {
    let path = CString::new(path).unwrap();
    let name = CString::new(name).unwrap();
    let mut buffer = vec![0xffu8; capacity + 1];
    let mut found = Vec::new();
    let mut offset = 0;
    while offset >= 0 {
        unsafe {
            offset = text::path_candidate(
                path.as_ptr().cast(),
                offset as usize,
                name.as_ptr().cast(),
                buffer.as_mut_ptr(),
                capacity,
            );
        }
        found.push(
            CStr::from_bytes_until_nul(&buffer)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        );
        assert_eq!(buffer[capacity], 0xff, "written past the capacity");
    }
    found
}

#[test]
fn path_candidate_of_ordinary_path_tries_each_directory_in_order() {
    assert_eq!(candidates("/bin:/usr/bin", "ls", 64), ["/bin/ls", "/usr/bin/ls"]);
}

#[test]
fn path_candidate_of_empty_directory_is_the_working_directory() {
    assert_eq!(candidates(":/bin:", "ls", 64), ["ls", "/bin/ls", "ls"]);
    assert_eq!(candidates("", "ls", 64), ["ls"]);
}

#[test]
fn path_candidate_without_room_is_empty_and_the_search_goes_on() {
    assert_eq!(candidates("/a/very/long/directory:/b", "ls", 8), ["", "/b/ls"]);
}

#[test]
fn variable_is_found_by_its_whole_name() {
    let strings: Vec<CString> = ["PATHS=no", "PAT=no", "PATH", "PATH=yes", "PATH=later"]
        .map(|s| CString::new(s).unwrap())
        .into();
    let pointers: Vec<*const u8> = strings.iter().map(|s| s.as_ptr().cast()).collect();

    let value = unsafe { text::variable(pointers.as_ptr(), pointers.len(), c"PATH".as_ptr().cast()) };
    let missing = unsafe { text::variable(pointers.as_ptr(), pointers.len(), c"HOME".as_ptr().cast()) };

    assert_eq!(unsafe { CStr::from_ptr(value.cast()) }, c"yes");
    assert!(missing.is_null());
}

#[test]
fn parse_decimal_accepts_numbers_only() {
    let parse = |s: &CStr| unsafe { text::parse_decimal(s.as_ptr().cast()) };

    assert_eq!([c"0", c"42", c"999999999"].map(parse), [0, 42, 999_999_999]);
    assert_eq!([c"", c"-1", c"4x", c"1000000000"].map(parse), [-1; 4]);
}

#[test]
fn parse_uuid_that_ends_early_is_filled_with_zeros() {
    let mut bytes = [0xffu8; 16];

    unsafe { text::parse_uuid(c"0a1b-2c".as_ptr().cast(), bytes.as_mut_ptr()) };

    assert_eq!(bytes, [0x0a, 0x1b, 0x2c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

proptest! {
    #[test]
    fn format_decimal_writes_what_std_writes(value in any::<u64>()) {
        let mut buffer = [0xffu8; 21];
        let len = unsafe { text::format_decimal(buffer.as_mut_ptr(), value) };
        prop_assert_eq!(CStr::from_bytes_until_nul(&buffer).unwrap().to_str().unwrap(), value.to_string());
        prop_assert_eq!(len, value.to_string().len());
    }

    #[test]
    fn numbers_put_are_little_endian_and_read_back(value in any::<u64>()) {
        let mut bytes = [0u8; 8];
        unsafe { text::put_u64(bytes.as_mut_ptr(), value) };
        prop_assert_eq!(bytes, value.to_le_bytes());
        prop_assert_eq!(unsafe { text::get_u64(bytes.as_ptr()) }, value);
    }

    #[test]
    fn string_end_never_reads_past_the_payload(
        payload in proptest::collection::vec(0u8..3, 0..40), at in 0usize..50,
    ) {
        let expected =
            payload.iter().skip(at).position(|byte| *byte == 0).map_or(0, |found| at + found + 1);
        prop_assert_eq!(unsafe { text::string_end(payload.as_ptr(), at, payload.len()) }, expected);
    }

    #[test]
    fn ring_gives_back_what_was_pushed_in_order(
        steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..20), 0usize..20), 1..60),
    ) {
        const CAPACITY: usize = 37;
        let mut storage = [0u8; CAPACITY];
        let mut queue = ring::Ring { start: 0, len: 0 };
        let mut model = std::collections::VecDeque::new();
        for (data, take) in steps {
            let fits = model.len() + data.len() <= CAPACITY;
            let pushed = unsafe {
                ring::push(&raw mut queue, storage.as_mut_ptr(), CAPACITY, data.as_ptr(), data.len())
            };
            prop_assert_eq!(pushed, fits);
            if fits {
                model.extend(data);
            }
            let readable = unsafe { ring::readable(&raw const queue, CAPACITY) };
            prop_assert_eq!(readable == 0, model.is_empty());
            let take = take.min(readable);
            let got = &storage[queue.start..queue.start + take];
            prop_assert!(got.iter().copied().eq(model.drain(..take)));
            unsafe { ring::consume(&raw mut queue, CAPACITY, take) };
            prop_assert_eq!(queue.len, model.len());
        }
    }
}
