//! the portable face of the operating system.
