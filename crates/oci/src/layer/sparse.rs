//! Maps of sparse files: which parts of a file an archive holds, the rest being zeros.

use super::pax::decimal;
use super::{Fault, Limits};

/// Segments of one file; far more than GNU tar writes for real files.
const MAX_SEGMENTS: usize = 1 << 20;

/// The parts of a file that are stored, in order and apart, inside `real_size`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// Length of the file in bytes.
    pub(crate) real_size: u64,
    /// Offset and length of each part.
    pub(crate) segments: Vec<(u64, u64)>,
}

impl SparseMap {
    /// Checks order and bounds; the sum of all segments must be `stored` bytes.
    pub(super) fn new(
        segments: Vec<(u64, u64)>,
        real_size: u64,
        stored: u64,
        limits: &Limits,
    ) -> Result<SparseMap, &'static str> {
        if real_size > limits.layer_bytes {
            return Err("it is longer than the limit for a sparse file");
        }
        let (mut end, mut sum) = (0, 0u64);
        for &(offset, length) in &segments {
            let next = offset
                .checked_add(length)
                .filter(|&next| offset >= end && next <= real_size);
            end = next.ok_or("its sparse map is out of order or out of bounds")?;
            sum += length;
        }
        if sum != stored {
            return Err("its sparse map does not fit its size");
        }
        Ok(SparseMap { real_size, segments })
    }

    /// Pairs up the alternating numbers of PAX versions 0.0 and 0.1.
    pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>, &'static str> {
        if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
            return Err("its sparse map is malformed");
        }
        Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }
}

pub(super) fn check_segment_count(count: usize) -> Result<(), Fault> {
    if count > MAX_SEGMENTS {
        return Err(Fault::Bad(
            "it has a sparse map of more than a million segments".into(),
        ));
    }
    Ok(())
}

/// Reads the decimal lines that begin the data of a PAX 1.0 sparse file: a count, then two per segment.
#[derive(Default)]
pub(super) struct MapLines {
    digits: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapLines {
    /// Takes one block; true when the map is complete.
    pub(super) fn feed(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                self.digits.push(byte);
                if self.digits.len() > 20 {
                    return Err("its sparse map is malformed");
                }
                continue;
            }
            let number = decimal(&self.digits).ok_or("its sparse map is malformed")?;
            self.digits.clear();
            match self.count {
                None => {
                    let count = usize::try_from(number)
                        .ok()
                        .filter(|&count| count <= MAX_SEGMENTS);
                    self.count = Some(count.ok_or("its sparse map has more than a million segments")?);
                }
                Some(_) => self.numbers.push(number),
            }
            if self.count.is_some_and(|count| self.numbers.len() == 2 * count) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn numbers(&self) -> &[u64] {
        &self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_map_out_of_bounds_or_order_is_refused() {
        let limits = Limits::default();
        let map =
            |segments: &[(u64, u64)], real, stored| SparseMap::new(segments.to_vec(), real, stored, &limits);
        assert!(map(&[(0, 5), (10, 5), (20, 0)], 20, 10).is_ok());
        assert!(map(&[(10, 5), (0, 5)], 20, 10).is_err());
        assert!(map(&[(16, 5)], 20, 5).is_err());
        assert!(map(&[(u64::MAX, 5)], 20, 5).is_err());
        assert!(map(&[(0, 5)], 20, 6).is_err());
        assert!(map(&[], u64::MAX, 0).is_err());
    }

    #[test]
    fn map_lines_across_blocks_are_joined() {
        let mut lines = MapLines::default();
        assert_eq!(lines.feed(b"2\n0\n51"), Ok(false));
        assert_eq!(lines.feed(b"2\n1024\n7\nrest"), Ok(true));
        assert_eq!(lines.numbers(), [0, 512, 1024, 7]);
    }
}
