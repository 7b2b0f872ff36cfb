//! What a program was, and what came of it in the first tier.

use std::fmt::Write;

use iced_x86::{Formatter, IntelFormatter};

use super::place::{RECORD_LEN, RECORDS};
use super::world::Outcome;
use crate::case::decode;

/// Words of a record.
const CR2: usize = 0;
const VECTOR: usize = 17;
const ERROR: usize = 18;
const RIP: usize = 19;

pub(super) fn describe(parts: &[([u64; 5], Vec<u8>)], outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let records = outcome.ram[0][RECORDS as usize..].chunks_exact(RECORD_LEN as usize);
    for (([at, cs, flags, rsp, _], code), record) in parts.iter().zip(records) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\ncs {cs:#x} flags {flags:#x} rsp {rsp:#x}");
        for instruction in decode(code, *at) {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "  {:#x} {line}", instruction.ip());
        }
        let word = |index: usize| {
            let bytes = record[index * 8..][..8].iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let _ = write!(
            text,
            "  vector {} error {:#x} cr2 {:#x} rip {:#x}",
            word(VECTOR),
            word(ERROR),
            word(CR2),
            word(RIP)
        );
    }
    text.push('\n');
    text
}
