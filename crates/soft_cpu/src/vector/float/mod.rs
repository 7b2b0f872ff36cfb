//! Floating-point arithmetic as SSE does it: rounding, flags, NaNs and denormals as MXCSR says (Intel SDM vol. 1,
//! 4.8, 4.9, 11.5).
//!
//! Numbers are bits in the low end of a `u64`, whatever their format. Finite ones are taken apart, the exact
//! result (or enough of it, with a bit for the rest) is computed in 128 bits, and rounded once. Where host
//! arithmetic is known to give the same without a new flag, it is used instead.

mod approximate;
mod arithmetic;
mod compare;
mod convert;
mod environment;
mod format;
mod fused;
mod host;
mod rounding;

pub(crate) use approximate::*;
pub(crate) use arithmetic::*;
pub(crate) use compare::*;
pub(crate) use convert::*;
pub(crate) use environment::*;
pub(crate) use format::*;
pub(crate) use fused::*;

#[cfg(test)]
mod tests;
