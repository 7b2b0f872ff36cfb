//! Where everything lies, in the child process and in the guest alike.
//!
//! An address of data, shifted, rotated or with a byte exchanged, is none of the harness: cases do such things.

/// The harness's code, one page.
pub(crate) const RUNTIME: u64 = 0x3a40_0000;
/// What the harness remembers, one page; its stack grows down from the end.
pub(crate) const VARIABLES: u64 = 0x3a40_1000;
pub(crate) const STACK_TOP: u64 = 0x3a40_2000;
/// The stack of the child's signal handler: a frame with AVX-512 state takes some 4 KiB.
pub(crate) const SIGNAL_STACK: u64 = 0x3a41_0000;
pub(crate) const SIGNAL_STACK_LEN: u64 = 0x1_0000;
pub(crate) const RUNTIME_END: u64 = SIGNAL_STACK + SIGNAL_STACK_LEN;

/// The block of the current case.
pub(crate) const CURRENT: u64 = VARIABLES;
/// Where the current case's code is.
pub(crate) const TARGET: u64 = VARIABLES + 8;
pub(crate) const SCRATCH: u64 = VARIABLES + 16;
/// Where the harness goes after the last case.
pub(crate) const AT_END: u64 = VARIABLES + 24;
/// Cases that are left; the length of their blocks follows.
pub(crate) const COUNT: u64 = VARIABLES + 32;
/// Their length.
pub(crate) const BLOCKS_LEN: u64 = VARIABLES + 40;
/// `struct sigaction` and `stack_t` of the child.
pub(crate) const SIGACTION: u64 = VARIABLES + 64;
pub(crate) const SIGSTACK: u64 = VARIABLES + 128;

/// The most cases of one batch.
pub(crate) const MAX_CASES: usize = 2048;
/// Each case's instructions and the jump behind them fit into this.
pub(crate) const CODE_LEN: usize = 128;
/// Every thirty-second case lies over the border of two pages.
pub(crate) const CODE: u64 = 0x3a50_0fc0;
pub(crate) const CODES_LEN: usize = MAX_CASES * CODE_LEN;
/// The blocks of all cases, where no address of 32 bits reaches.
pub(crate) const BLOCKS: u64 = 0x2a5c_7640_0000;
pub(crate) const BLOCKS_END: u64 = BLOCKS + 0x40_0000;

/// Two pages that cases read and write; nothing is mapped before them nor behind them.
pub(crate) const DATA: u64 = 0x3b5c_7000;
pub(crate) const DATA_END: u64 = DATA + 0x2000;
/// The part of them that belongs to a block lies around the border of the pages, and at their end.
pub(crate) const WINDOW: u64 = DATA + 0xf80;
pub(crate) const WINDOW_LEN: usize = 256;
pub(crate) const LAST_WINDOW: u64 = DATA_END - 64;
pub(crate) const LAST_WINDOW_LEN: usize = 64;
/// A page that can only be read.
pub(crate) const READ_ONLY: u64 = DATA + 0x4000;

pub(crate) const PAGE: u64 = 0x1000;
