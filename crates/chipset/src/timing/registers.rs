//! The one register of the timing port, which is this machine's own.

/// Ends a line.
pub(super) const END: u8 = b'\n';
/// The most letters of a line that count.
pub(super) const LINE_MAX: usize = 64;

/// Whether a letter can be part of a line.
pub(super) fn is_printable(letter: u8) -> bool {
    letter == b' ' || letter.is_ascii_graphic()
}
