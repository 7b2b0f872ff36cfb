use super::{bench, register};
use crate::cpu::{Cpu, flags};

/// Sixteen bytes that begin with `text`.
fn padded(text: &[u8]) -> [u64; 4] {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text);
    let all = u128::from_le_bytes(bytes);
    [all as u64, (all >> 64) as u64, 7, 7]
}

/// What `PCMPISTRI xmm1, xmm2, control` gives: ECX and flags.
fn index_of(a: &[u8], b: &[u8], control: u8) -> (u64, u64) {
    let mut bench = bench(&[[0; 4], padded(a), padded(b)]);
    bench.run(&[0x66, 0x0f, 0x3a, 0x63, 0xca, control]).unwrap();
    (bench.cpu.gpr[Cpu::RCX], bench.cpu.rflags & flags::STATUS)
}

#[test]
fn equal_any_finds_the_first_of_a_set() {
    let (index, status) = index_of(b"xyz", b"abcyd", 0);
    assert_eq!((index, status), (3, flags::CF | flags::ZF | flags::SF));
}

#[test]
fn ranges_find_the_last_inside() {
    let (index, _) = index_of(b"azAZ", b"1b2C3", 0x44);
    assert_eq!(index, 3);
}

#[test]
fn equal_ordered_finds_a_string_that_begins_at_the_end() {
    let (index, status) = index_of(b"needle", b"a haystack, need", 0x0c);
    assert_eq!((index, status), (12, flags::CF | flags::SF));
}

#[test]
fn equal_each_negated_finds_the_first_difference() {
    let (index, status) = index_of(b"same", b"sane", 0x18);
    assert_eq!((index, status), (2, flags::CF | flags::ZF | flags::SF));
}

#[test]
fn equal_each_masked_negated_of_equal_strings_finds_where_both_end() {
    let (index, status) = index_of(b"same", b"same", 0x38);
    assert_eq!((index, status), (4, flags::CF | flags::ZF | flags::SF));
}

#[test]
fn explicit_lengths_ignore_zeros_and_signs() {
    // pcmpestri xmm1, xmm2, 8: equal each, beyond zeros.
    let mut bench = bench(&[[0; 4], padded(b"a\0b"), padded(b"a\0b")]);
    (bench.cpu.gpr[Cpu::RAX], bench.cpu.gpr[Cpu::RDX]) = (0xffff_fffd, 100);
    bench.run(&[0x66, 0x0f, 0x3a, 0x61, 0xca, 0x08]).unwrap();
    assert_eq!(bench.cpu.gpr[Cpu::RCX], 0);
    let expected = flags::CF | flags::SF | flags::OF;
    assert_eq!(bench.cpu.rflags & flags::STATUS, expected);
}

#[test]
fn mask_of_words_is_as_wide_as_they_are() {
    // pcmpistrm xmm1, xmm2, 0x41
    let mut bench = bench(&[[5; 4], padded(b"b\0"), padded(b"a\0b\0c\0")]);
    bench.run(&[0x66, 0x0f, 0x3a, 0x62, 0xca, 0x41]).unwrap();
    assert_eq!(register(&bench, 0), [0xffff_0000, 0, 5, 5]);
}

#[test]
fn equal_each_negated_of_full_equal_strings_finds_none() {
    let text = b"sixteen letters!";
    assert_eq!(index_of(text, text, 0x18), (16, 0));
}
