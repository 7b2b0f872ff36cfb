//! AES and carry-less multiplication.

use iced_x86::{Instruction, Mnemonic as M};

use super::drivers::{handler, lanes1, lanes2};
use super::lanes;
use crate::exec::Handler;

pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Aesenc | M::Vaesenc => handler!(lanes2, |state, key, _| lanes::encrypt(state, key)),
        M::Aesenclast | M::Vaesenclast => handler!(lanes2, |state, key, _| lanes::encrypt_last(state, key)),
        M::Aesdec | M::Vaesdec => handler!(lanes2, |state, key, _| lanes::decrypt(state, key)),
        M::Aesdeclast | M::Vaesdeclast => handler!(lanes2, |state, key, _| lanes::decrypt_last(state, key)),
        M::Aesimc | M::Vaesimc => handler!(lanes1, |state, _, _| lanes::unmix(state)),
        M::Aeskeygenassist | M::Vaeskeygenassist => {
            handler!(lanes1, |state, round, _| lanes::assist_key(state, round))
        }
        M::Pclmulqdq | M::Vpclmulqdq => handler!(lanes2, |a, b, control| {
            let half = |of: u128, upper: u8| (of >> (u32::from(upper & 1) * 64)) as u64;
            lanes::multiply_carryless(half(a, control), half(b, control >> 4))
        }),
        _ => return None,
    })
}
