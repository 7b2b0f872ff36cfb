//! The exception handlers: they write down what happened, and go on with the next part.
//!
//! One is 64-bit code and always on the same stack. The other is 32-bit code: its stack is the interrupted code's where
//! that is ring 0. What takes a program from one mode to another is 32-bit code without paging, so that it does not
//! matter what the mode was.

mod long;
mod narrow;

use iced_x86::IcedError;

use super::place::HANDLER;

/// The code of handlers and where it begins for each vector.
pub(super) struct Handlers {
    pub(super) long: (Vec<u8>, Vec<u64>),
    /// The 32-bit one's; empty where programs know but one mode. At its beginning programs change their mode.
    pub(super) narrow: (Vec<u8>, Vec<u64>),
}

impl Handlers {
    pub(super) fn assemble(mixed: bool) -> Result<Self, IcedError> {
        let long = long::assemble(mixed)?;
        // Where its pages are in physical memory.
        let arrival = long.arrival & 0xfff | HANDLER;
        let narrow = if mixed {
            narrow::assemble(arrival)?
        } else {
            Default::default()
        };
        Ok(Self {
            long: (long.code, long.entries),
            narrow,
        })
    }
}
