//! Small programs, one instruction at a time.

mod control;
mod debug;
mod delivery;
mod msr;
mod ports;
mod segments;
mod syscall;
mod tables;
mod transfers;
