//! the platform devices around the CPU.
