//! A difference, told.

use std::fmt::Write;

use iced_x86::{Formatter, IntelFormatter};

use crate::block::{NO_EXCEPTION, WINDOWS, index, xsave};
use crate::case::Case;
use crate::compare::hexadecimal;

/// Instructions, inputs, and what differs.
pub(crate) fn describe(case: &Case, differences: &[String]) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let mut at = case.address();
    for (number, item) in case.items.iter().enumerate() {
        for instruction in crate::case::decode(item, at) {
            let from = (instruction.ip() - at) as usize;
            let bytes: String = item[from..from + instruction.len()]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            if !case.is_dropped(number) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {:#x} {bytes:<24} {line}", instruction.ip());
            }
        }
        at += item.len() as u64;
    }
    inputs(&mut text, case);
    let _ = writeln!(
        text,
        "  differences (native, soft; exception {NO_EXCEPTION:#x} is none):"
    );
    for difference in differences {
        let _ = writeln!(text, "    {difference}");
    }
    text
}

fn inputs(text: &mut String, case: &Case) {
    let input = &case.input;
    for number in 0..16 {
        let end = if number % 4 == 3 { "\n" } else { "" };
        let _ = write!(text, "  r{number:<2} {:016x}{end}", input.gpr(number));
    }
    let (control, status, tags) = (input.u16(xsave::FCW), input.u16(xsave::FSW), input.0[xsave::FTW]);
    let (flags, mxcsr) = (input.register(index::FLAGS), input.u32(xsave::MXCSR));
    let _ = writeln!(
        text,
        "  flags {flags:#x} mxcsr {mxcsr:#x} fcw {control:#x} fsw {status:#x} ftw {tags:#x}"
    );
    for number in 0..8 {
        let _ = writeln!(
            text,
            "  st{number} {}",
            hexadecimal(input.bytes(xsave::ST + number * 16, 10))
        );
    }
    for number in 0..16 {
        let [high, low] =
            [xsave::YMM_HIGH, xsave::XMM].map(|at| hexadecimal(input.bytes(at + number * 16, 16)));
        let _ = writeln!(text, "  ymm{number:<2} {high} {low}");
    }
    let _ = writeln!(text, "  windows {}", hexadecimal(&input.0[WINDOWS..]));
}
