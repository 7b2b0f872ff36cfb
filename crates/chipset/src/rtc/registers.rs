//! Registers of the MC146818 (data sheet, table 3 and figure 15).

/// Index port; bit 7 gates NMI and is no part of the index.
pub(super) const INDEX: u16 = 0x70;
/// Data port.
pub(super) const DATA: u16 = 0x71;
pub(super) const INDEX_MASK: u8 = 0x7f;

pub(super) const SECONDS: u8 = 0x00;
pub(super) const MINUTES: u8 = 0x02;
pub(super) const HOURS: u8 = 0x04;
pub(super) const DAY_OF_WEEK: u8 = 0x06;
pub(super) const DAY_OF_MONTH: u8 = 0x07;
pub(super) const MONTH: u8 = 0x08;
pub(super) const YEAR: u8 = 0x09;
pub(super) const REGISTER_A: u8 = 0x0a;
pub(super) const REGISTER_B: u8 = 0x0b;
pub(super) const REGISTER_C: u8 = 0x0c;
pub(super) const REGISTER_D: u8 = 0x0d;
/// Where the FADT says that the century is.
pub(super) const CENTURY: u8 = 0x32;

/// A 32.768 kHz time base, no periodic rate, no update in progress.
pub(super) const A_TIME_BASE: u8 = 0x20;
/// Time of day in 24 hours, and in BCD as bit 2 is clear.
pub(super) const B_24_HOURS: u8 = 0x02;
/// RAM and time are valid.
pub(super) const D_VALID: u8 = 0x80;
