//! the command line under its short name.
fn main() {}
