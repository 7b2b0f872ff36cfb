//! A case, and many of them as one batch.

use iced_x86::{Decoder, DecoderOptions, Instruction};

use crate::block::{BLOCK_LEN, Block, index};
use crate::layout::{BLOCKS, CODE, CODE_LEN, MAX_CASES};

/// Some instructions and what they find.
#[derive(Clone)]
pub(crate) struct Case {
    /// Where in the code area it is: its instructions may be relative to RIP.
    pub(crate) slot: usize,
    /// What can be left out by itself: an instruction, or a branch and what it may jump over.
    pub(crate) items: Vec<Vec<u8>>,
    pub(crate) input: Block,
}

impl Case {
    pub(crate) fn address(&self) -> u64 {
        CODE + (self.slot * CODE_LEN) as u64
    }

    pub(crate) fn code(&self) -> Vec<u8> {
        self.items.concat()
    }

    /// The instructions in the order in which they stand.
    pub(crate) fn instructions(&self) -> Vec<Instruction> {
        decode(&self.code(), self.address())
    }

    /// This case with nothing but NOPs for one item; the others stay where they are.
    pub(crate) fn without(&self, item: usize) -> Self {
        let mut shorter = self.clone();
        shorter.items[item].fill(NOP);
        shorter
    }

    pub(crate) fn is_dropped(&self, item: usize) -> bool {
        self.items[item].iter().all(|&byte| byte == NOP)
    }
}

const NOP: u8 = 0x90;

pub(crate) fn decode(code: &[u8], at: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, code, at, DecoderOptions::AMD)
        .into_iter()
        .collect()
}

/// The bytes from [`CODE`] on that run these cases one after the other.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
}

impl Batch {
    /// Each case ends with a jump to `done`.
    pub(crate) fn new(cases: &[Case], done: u64) -> Self {
        let mut bytes = vec![0; MAX_CASES * CODE_LEN + cases.len() * BLOCK_LEN];
        let (code, blocks) = bytes.split_at_mut((BLOCKS - CODE) as usize);
        for (case, block) in cases.iter().zip(blocks.chunks_exact_mut(BLOCK_LEN)) {
            let mut body = case.code();
            let end = case.address() + body.len() as u64 + 5;
            body.push(0xe9);
            body.extend((done.wrapping_sub(end) as u32).to_le_bytes());
            code[case.slot * CODE_LEN..][..body.len()].copy_from_slice(&body);
            let mut input = case.input.clone();
            input.set_register(index::RIP, case.address());
            block.copy_from_slice(&input.0);
        }
        Self { bytes }
    }

    pub(crate) fn count(&self) -> usize {
        (self.bytes.len() - MAX_CASES * CODE_LEN) / BLOCK_LEN
    }
}
