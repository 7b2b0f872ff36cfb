//! Processors and memory for this crate's unit tests.

pub(crate) mod integer;
