//! Which blocks of a file lie where in the scratch file.

use std::collections::BTreeMap;

use super::store::Run;

/// Where a block of a file comes from once the overlay has its own of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This block of the scratch file.
    Scratch(u64),
    /// Nowhere: a hole punched over the image's contents.
    Zero,
}

impl Place {
    /// The place `blocks` further on.
    fn advanced(self, blocks: u64) -> Self {
        match self {
            Self::Scratch(start) => Self::Scratch(start + blocks),
            Self::Zero => Self::Zero,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    len: u64,
    place: Place,
}

/// The extents of one file: first block to extent, never overlapping, merged where they continue each other.
#[derive(Debug, Default)]
pub(super) struct ExtentMap {
    extents: BTreeMap<u64, Extent>,
    data_blocks: u64,
}

impl ExtentMap {
    pub(super) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// How many blocks of the scratch file the file has.
    pub(super) fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// All extents in order: first block, how many, and where the first one comes from.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, Place)> {
        self.extents
            .iter()
            .map(|(&first, extent)| (first, extent.len, extent.place))
    }

    /// Where `block` comes from (`None`: no extent) and the first block after it of which that is not so.
    pub(super) fn run_at(&self, block: u64) -> (Option<Place>, u64) {
        let covering = self.extents.range(..=block).next_back();
        if let Some((&start, extent)) = covering.filter(|(start, extent)| block - **start < extent.len) {
            return (Some(extent.place.advanced(block - start)), start + extent.len);
        }
        let next = self
            .extents
            .range(block..)
            .next()
            .map_or(u64::MAX, |(&start, _)| start);
        (None, next)
    }

    /// Adds `len` blocks from `block` on, of which none may have an extent.
    pub(super) fn insert(&mut self, block: u64, len: u64, place: Place) {
        if matches!(place, Place::Scratch(_)) {
            self.data_blocks += len;
        }
        let (mut start, mut extent) = (block, Extent { len, place });
        if let Some(next) = self.extents.get(&(block + len)).copied()
            && next.place == place.advanced(len)
        {
            self.extents.remove(&(block + len));
            extent.len += next.len;
        }
        if let Some((&before, previous)) = self.extents.range(..block).next_back()
            && before + previous.len == block
            && previous.place.advanced(previous.len) == place
        {
            start = before;
            extent = Extent {
                len: previous.len + extent.len,
                place: previous.place,
            };
        }
        self.extents.insert(start, extent);
    }

    /// Removes all extents in `first..end` and returns the blocks of the scratch file they had.
    pub(super) fn remove(&mut self, first: u64, end: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        if first >= end {
            return runs;
        }
        self.split_at(first);
        self.split_at(end);
        let inside: Vec<u64> = self.extents.range(first..end).map(|(&start, _)| start).collect();
        for start in inside {
            if let Some(Extent {
                len,
                place: Place::Scratch(at),
            }) = self.extents.remove(&start)
            {
                self.data_blocks -= len;
                runs.push(Run { start: at, len });
            }
        }
        runs
    }

    /// Makes an extent boundary at `block`.
    fn split_at(&mut self, block: u64) {
        let Some((&start, extent)) = self.extents.range_mut(..block).next_back() else {
            return;
        };
        let head = block - start;
        if head < extent.len {
            let tail = Extent {
                len: extent.len - head,
                place: extent.place.advanced(head),
            };
            extent.len = head;
            self.extents.insert(block, tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn insert_continuing_neighbours_merges_to_one_extent() {
        let mut map = ExtentMap::default();
        map.insert(0, 2, Place::Scratch(10));
        map.insert(4, 2, Place::Scratch(14));

        map.insert(2, 2, Place::Scratch(12));

        assert_eq!(map.run_at(0), (Some(Place::Scratch(10)), 6));
        assert_eq!(map.extents.len(), 1);
    }

    proptest! {
        #[test]
        fn map_after_random_changes_agrees_with_one_place_per_block(
            steps in prop::collection::vec((0_u64..40, 1_u64..10, 0_u8..3), 1..60),
        ) {
            let mut map = ExtentMap::default();
            let mut model: BTreeMap<u64, Place> = BTreeMap::new();
            for (number, (first, len, what)) in steps.into_iter().enumerate() {
                let removed: u64 = map.remove(first, first + len).iter().map(|run| run.len).sum();
                let mut expected = 0;
                for block in first..first + len {
                    expected += u64::from(matches!(model.remove(&block), Some(Place::Scratch(_))));
                }
                prop_assert_eq!(removed, expected);
                let place = match what {
                    0 => continue,
                    1 => Place::Zero,
                    _ => Place::Scratch(number as u64 * 100),
                };
                map.insert(first, len, place);
                for block in 0..len {
                    model.insert(first + block, place.advanced(block));
                }
            }
            for block in 0..60 {
                prop_assert_eq!(map.run_at(block).0, model.get(&block).copied());
            }
            let data = model.values().filter(|place| matches!(place, Place::Scratch(_))).count();
            prop_assert_eq!(map.data_blocks(), data as u64);
        }
    }
}
