//! What a guest that lies can do: make a call fail, and nothing else.

use std::io::{ErrorKind, Read, Write};

use guest_protocol::{FileRequest, ToGuest, ToHost, wire};

use super::guests::play;
use crate::fs::Fs;

/// A guest that opens everything, and answers everything else with `answer`.
fn opens_and(answer: impl Fn() -> ToHost + Send + 'static) -> Fs {
    play(move |message| match message {
        ToGuest::File(FileRequest::Open { .. }) => ToHost::Done,
        _ => answer(),
    })
}

#[test]
fn more_bytes_than_were_asked_for_are_refused() {
    let fs = opens_and(|| ToHost::FileData(vec![0; 11]));
    let mut bytes = [0; 10];

    let error = fs.open("/a").unwrap().read(&mut bytes).unwrap_err();

    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn more_bytes_than_were_sent_are_not_written() {
    let fs = opens_and(|| ToHost::FileWritten(4));

    let error = fs.create("/a").unwrap().write(b"abc").unwrap_err();

    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(fs.write("/a", "abc").unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn write_that_never_gets_on_ends() {
    let fs = opens_and(|| ToHost::FileWritten(0));

    assert_eq!(fs.write("/a", "abc").unwrap_err().kind(), ErrorKind::WriteZero);
}

#[test]
fn replies_of_another_kind_are_refused() {
    let fs = opens_and(|| ToHost::Done);

    assert_eq!(fs.read("/a").unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(fs.metadata("/a").unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(fs.write("/a", "x").unwrap_err().kind(), ErrorKind::InvalidData);
    let other = opens_and(|| ToHost::FileWritten(0));
    assert_eq!(other.create_dir("/a").unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn entries_that_are_none_are_refused_and_end_the_list() {
    let mut entry = vec![0; 24];
    entry[wire::ENTRY_LEN] = 24;
    entry[wire::ENTRY_NAME..wire::ENTRY_NAME + 4].copy_from_slice(b"../x");
    let fs = opens_and(move || ToHost::FileData(entry.clone()));

    let mut list = fs.read_dir("/a").unwrap();

    assert_eq!(list.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(list.next().is_none());
    assert_eq!(
        fs.remove_dir_all("/a").unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}

#[test]
fn short_pieces_are_put_together_at_their_places() {
    let fs = play(|message| match message {
        ToGuest::File(FileRequest::Read { offset, .. }) => {
            let rest = &b"0123456789"[offset.min(10) as usize..];
            ToHost::FileData(rest[..rest.len().min(3)].to_vec())
        }
        ToGuest::File(FileRequest::Write { data, .. }) => ToHost::FileWritten(data.len().min(3) as u32),
        _ => ToHost::Done,
    });

    assert_eq!(fs.read("/a").unwrap(), b"0123456789");
    fs.write("/a", "0123456789").unwrap();
}
