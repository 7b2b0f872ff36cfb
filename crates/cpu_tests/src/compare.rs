//! Finds where two worlds disagree about what a case left.

use std::fmt::Arguments;

use crate::block::{Block, NO_EXCEPTION, WINDOWS, index, xsave};
use crate::case::Case;
use crate::layout::{LAST_WINDOW, LAST_WINDOW_LEN, WINDOW, WINDOW_LEN};
use crate::undefined;

const PAGE_FAULT: u64 = 14;
/// Of a page fault's error code; Linux says "present" of whatever is not the program's half.
const PRESENT: u64 = 1;
/// Status flags, TF, DF, NT, AC, ID: all that a program can change.
const FLAGS: u64 = 0x24_4dd5;

/// A bit of MXCSR that AMD's processors have, and guests are not shown (AMD APM vol. 1, 4.2.2): there it is reserved.
const MISALIGNED_MASK: u32 = 1 << 17;

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What differs, one register or piece of memory a line: `name native soft`.
pub(crate) fn differences(case: &Case, native: &Block, soft: &Block) -> Vec<String> {
    let mut found = Found::default();
    if native.u32(xsave::MXCSR) & MISALIGNED_MASK != 0 {
        return Vec::new();
    }
    let vector = native.vector();
    found.word("exception", vector, soft.vector());
    let stopped_at = (vector != NO_EXCEPTION).then(|| native.register(index::RIP));
    if stopped_at.is_some() && vector == soft.vector() {
        found.word("rip", native.register(index::RIP), soft.register(index::RIP));
        let error =
            |block: &Block| block.register(index::ERROR) & !if vector == PAGE_FAULT { PRESENT } else { 0 };
        found.word("error", error(native), error(soft));
        if vector == PAGE_FAULT && !stores_in_parts(case, stopped_at) {
            found.word("cr2", native.register(index::CR2), soft.register(index::CR2));
        }
    }
    for (number, name) in NAMES.iter().enumerate() {
        found.word(name, native.gpr(number), soft.gpr(number));
    }
    let flags = FLAGS & !undefined::at_end(&case.instructions(), stopped_at);
    found.word(
        "rflags",
        native.register(index::FLAGS) & flags,
        soft.register(index::FLAGS) & flags,
    );
    extended(&mut found, native, soft);
    for (base, at, len) in [
        (WINDOW, WINDOWS, WINDOW_LEN),
        (LAST_WINDOW, WINDOWS + WINDOW_LEN, LAST_WINDOW_LEN),
    ] {
        for offset in (0..len).step_by(8) {
            let name = format_args!("[{:#x}]", base + offset as u64);
            found.bytes(name, native.bytes(at + offset, 8), soft.bytes(at + offset, 8));
        }
    }
    found.0
}

/// x87 environments are moved in parts whose order is the processor's own: any of them may be the first to fault.
fn stores_in_parts(case: &Case, stopped_at: Option<u64>) -> bool {
    use iced_x86::Mnemonic as M;
    let instructions = case.instructions();
    let there = instructions.iter().find(|one| Some(one.ip()) == stopped_at);
    there.is_some_and(|one| matches!(one.mnemonic(), M::Fnsave | M::Fnstenv | M::Fldenv | M::Frstor))
}

fn extended(found: &mut Found, native: &Block, soft: &Block) {
    for (name, at) in [("fcw", xsave::FCW), ("fsw", xsave::FSW)] {
        found.word(name, native.u16(at).into(), soft.u16(at).into());
    }
    found.word("ftw", native.0[xsave::FTW].into(), soft.0[xsave::FTW].into());
    found.word(
        "mxcsr",
        native.u32(xsave::MXCSR).into(),
        soft.u32(xsave::MXCSR).into(),
    );
    for number in 0..8 {
        let at = xsave::ST + number * 16;
        found.bytes(
            format_args!("st{number}"),
            native.bytes(at, 10),
            soft.bytes(at, 10),
        );
    }
    for number in 0..16 {
        for (name, base) in [("xmm", xsave::XMM), ("ymm_high", xsave::YMM_HIGH)] {
            let at = base + number * 16;
            found.bytes(
                format_args!("{name}{number}"),
                native.bytes(at, 16),
                soft.bytes(at, 16),
            );
        }
    }
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn word(&mut self, name: &str, native: u64, soft: u64) {
        if native != soft {
            self.0.push(format!("{name} {native:#x} {soft:#x}"));
        }
    }

    fn bytes(&mut self, name: Arguments<'_>, native: &[u8], soft: &[u8]) {
        if native != soft {
            self.0
                .push(format!("{name} {} {}", hexadecimal(native), hexadecimal(soft)));
        }
    }
}

/// Of a little-endian number.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
