//! Known answers: from the manuals, and for what they leave open from AMD's processors of family 0x19.

mod environment;
mod mmx;
mod save;
mod stack;
mod state;
