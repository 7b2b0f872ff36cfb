//! What a program was, and what came of it in the first tier.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::paging::Paging;
use super::parts::Part;
use super::place::{RECORD_WORDS, RECORD_WORDS_32, RECORDS};
use super::world::Outcome;

/// Words of a record of long mode, and of protected mode: CR2, vector, error code, RIP.
const WORDS: [usize; 4] = [0, 17, 18, 19];
const WORDS_32: [usize; 4] = [0, 9, 10, 11];

pub(super) fn describe(paging: Paging, parts: &[Part], outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let (word_len, words, count) = match paging.is_long() {
        true => (8, WORDS, RECORD_WORDS),
        false => (4, WORDS_32, RECORD_WORDS_32),
    };
    let records = outcome.ram[0][RECORDS as usize..].chunks_exact(word_len * count as usize);
    for (part, record) in parts.iter().zip(records) {
        let [at, cs, flags, rsp, _] = part.start;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\ncs {cs:#x} flags {flags:#x} rsp {rsp:#x}, {} bits",
            part.bits
        );
        for instruction in &mut Decoder::with_ip(part.bits, &part.code, at, DecoderOptions::AMD) {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "  {:#x} {line}", instruction.ip());
        }
        let [cr2, vector, error, rip] = words.map(|index| {
            let bytes = record[index * word_len..][..word_len].iter().rev();
            bytes.fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        });
        let _ = write!(
            text,
            "  vector {vector} error {error:#x} cr2 {cr2:#x} rip {rip:#x}"
        );
    }
    text.push('\n');
    text
}
