//! What a program was, and what came of it in the first tier.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::part::{Plan, word};
use super::place::{RECORD_LEN, RECORDS};
use super::world::Outcome;

/// Where a record of the 64-bit handler has what is told, in words: CR2, vector, error code, RIP.
const LONG: ([usize; 4], usize) = ([0, 17, 18, 19], 8);
/// The same of the 32-bit handler's, in its words.
const NARROW: ([usize; 4], usize) = ([0, 12, 13, 14], 4);

pub(super) fn describe(parts: &[(Plan, Vec<u8>)], outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let records = outcome.ram[0][RECORDS as usize..].chunks_exact(RECORD_LEN as usize);
    for ((plan, code), record) in parts.iter().zip(records) {
        let setting = &plan.setting;
        let words = &plan.words;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\n{:?} at {:#x}, cs {:#x} flags {:#x} rsp {:#x} ss {:#x} ds {:#x} es {:#x}, cr0 {:#x} cr4 {:#x} efer {:#x}",
            setting.kind,
            plan.at,
            words[word::CS],
            words[word::FLAGS],
            words[word::RSP],
            words[word::SS],
            words[word::DS],
            words[word::ES],
            setting.cr0,
            setting.cr4,
            setting.efer
        );
        if plan.bits != 64 {
            let [code, data] = plan.descriptors;
            let _ = writeln!(text, "  code {code:#018x} data {data:#018x}");
        }
        let decoder = Decoder::with_ip(plan.bits, code, plan.ip, DecoderOptions::AMD);
        for instruction in decoder {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let _ = writeln!(text, "  {:#x} {line}", instruction.ip());
        }
        // A program that changed its mode may have been written down by the other handler.
        let (places, size) = if setting.kind.is_long_mode() { LONG } else { NARROW };
        let [cr2, vector, error, rip] = places.map(|index| {
            let bytes = record[index * size..][..size].iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        });
        let _ = write!(
            text,
            "  vector {vector} error {error:#x} cr2 {cr2:#x} rip {rip:#x}"
        );
    }
    text.push('\n');
    text
}
