//! tests that run whole virtual machines.
