//! one virtual machine: profile, boot, wiring, run.
