//! The parts of a program: what kind each is, where its code lies, and what it starts with.

use anyhow::{Context, Result};

use super::kernel::{self, PartStart};
use super::paging::Paging;
use super::place::{
    KERNEL_CS, KERNEL_SS, MOST_PARTS, PAGE, PART_STACK_TOP, USER_CS, USER_CS_16, USER_CS_32, USER_SS,
};
use super::program32::Kind;
use super::ram::Ram;
use super::tables::Tables;
use super::{program, program32};
use crate::random::Random;

/// One part.
pub(super) struct Part {
    pub(super) start: PartStart,
    pub(super) code: Vec<u8>,
    /// Of the code it begins with.
    pub(super) bits: u32,
}

/// So many parts may begin in a segment of 64 KiB.
const PARTS_OF_16_BITS: usize = 5;

/// What code a part consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of the widest that the mode has.
    User,
    Kernel,
    Code32,
    Code16,
    /// 32-bit code that goes on as 64-bit code.
    Mixed,
}

impl Form {
    fn pick(paging: Paging, number: usize, random: &mut Random) -> Self {
        let form = match paging {
            Paging::FourLevel => random.pick(&[
                Self::User,
                Self::User,
                Self::Kernel,
                Self::Kernel,
                Self::Code32,
                Self::Code16,
                Self::Mixed,
            ]),
            _ => random.pick(&[Self::User, Self::User, Self::Kernel, Self::Code16]),
        };
        if form == Self::Code16 && number >= PARTS_OF_16_BITS {
            return Self::User;
        }
        form
    }

    fn bits(self, paging: Paging) -> u32 {
        match (self, paging.is_long()) {
            (Self::User | Self::Kernel, true) => 64,
            (Self::Code16, _) => 16,
            _ => 32,
        }
    }

    fn selectors(self) -> (u16, u16) {
        match self {
            Self::User => (USER_CS, USER_SS),
            Self::Kernel => (KERNEL_CS, KERNEL_SS),
            Self::Code32 | Self::Mixed => (USER_CS_32, USER_SS),
            Self::Code16 => (USER_CS_16, USER_SS),
        }
    }
}

/// Writes the code of all parts to where its pages are, if they are.
pub(super) fn write(ram: &mut Ram, tables: &Tables, random: &mut Random, wild: bool) -> Result<Vec<Part>> {
    let paging = tables.paging;
    let mut parts = Vec::new();
    for number in 0..MOST_PARTS {
        let form = Form::pick(paging, number, random);
        // Near the end of its page, so that instructions lie over it.
        let offset = match random.below(3) {
            0 => 0x400 + random.below(0x800) as u64,
            _ => PAGE - 1 - random.below(100) as u64,
        };
        let linear = paging.code(number) + offset;
        let base = match form {
            Form::Code16 => kernel::base_of_16(paging),
            _ => 0,
        };
        let kind = Kind {
            paging,
            bits: form.bits(paging),
            base,
            supervisor: form == Form::Kernel,
            wild,
        };
        let code = code(form, &kind, random, linear - base).context("a part cannot be assembled")?;
        for (address, byte) in (linear..).zip(code.iter().copied()) {
            if let Some(page) = tables.pages.get(&(address & !(PAGE - 1))) {
                ram.write(page | address & (PAGE - 1), &[byte]);
            }
        }
        let (cs, ss) = form.selectors();
        let flags = flags(random);
        let stack = match form {
            Form::Kernel if !paging.is_long() => paging.kernel() + PART_STACK_TOP,
            _ => program::address(paging, random),
        };
        parts.push(Part {
            start: [linear - base, cs.into(), flags, stack, ss.into()],
            code,
            bits: kind.bits,
        });
    }
    Ok(parts)
}

fn code(form: Form, kind: &Kind, random: &mut Random, at: u64) -> Result<Vec<u8>, iced_x86::IcedError> {
    match form {
        _ if kind.bits == 64 => program::part(random, at, kind.supervisor),
        Form::Mixed => program32::mixed_part(kind, random, at),
        _ => program32::part(kind, random, at),
    }
}

/// Now and then with single steps, alignment checks, or strings downwards.
fn flags(random: &mut Random) -> u64 {
    let rare = |random: &mut Random, bit: u64, times: usize| u64::from(random.once_in(times)) << bit;
    2 | rare(random, 8, 32) | rare(random, 9, 2) | rare(random, 10, 6) | rare(random, 18, 16)
}
