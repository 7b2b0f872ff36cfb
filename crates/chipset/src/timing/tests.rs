use std::sync::Mutex;

use super::*;

#[derive(Default)]
struct Noted(Mutex<Vec<String>>);

impl Marks for Noted {
    fn mark(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }
}

fn lines(written: &[u8]) -> Vec<String> {
    let noted = Arc::new(Noted::default());
    let mut timing = Timing::new(0x6c0, noted.clone());
    for letter in written {
        timing.port_write(0x6c0, &[*letter]);
    }
    drop(timing);
    Arc::into_inner(noted).unwrap().0.into_inner().unwrap()
}

#[test]
fn each_line_is_a_mark() {
    assert_eq!(lines(b"one two\nthree\nrest"), ["one two", "three"]);
}

#[test]
fn empty_lines_are_none_and_what_cannot_be_printed_is_left_out() {
    assert_eq!(lines(b"\n\na\x1b[\xff\0b\n"), ["a[b"]);
}

#[test]
fn long_line_is_cut() {
    let line = [vec![b'x'; 1000], vec![b'\n']].concat();
    assert_eq!(lines(&line), ["x".repeat(64)]);
}

#[test]
fn wide_stores_are_none_and_it_reads_as_nothing() {
    let noted = Arc::new(Noted::default());
    let mut timing = Timing::new(0x6c0, noted.clone());
    let mut data = [0; 4];

    timing.port_write(0x6c0, b"ab");
    timing.port_write(0x6c0, b"\n");
    timing.port_read(0x6c0, &mut data);

    assert!(noted.0.lock().unwrap().is_empty());
    assert_eq!(data, [0xff; 4]);
}
