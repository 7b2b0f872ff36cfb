//! device capabilities, bus, interrupt lines and VM clock.
