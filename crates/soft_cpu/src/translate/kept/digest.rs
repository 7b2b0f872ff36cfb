//! Sums that tell whether bytes are still what they were.
//!
//! **Of a record**, against accidents, not against people: who can write a record can write its sum, so what keeps others
//! out is who owns the file. So speed decides: four lanes of one multiplication for each eight bytes.
//!
//! **Of pages of code**, against guests: one of them makes the code that later ones execute, and must not be able to make
//! a page whose sum is that of another. So these depend on random numbers that no guest sees ([`PageKey`]).

use crate::memory::PAGE_SIZE;

/// 128 bits.
pub(super) type Digest = [u64; 2];

const LANES: usize = 4;
const WORD: usize = size_of::<u64>();
const STRIPE: usize = LANES * WORD;
/// Odd numbers, so that no step loses anything: bytes that differ in one word differ in their sum.
const FACTORS: [u64; LANES] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0xd6e8_feb8_6659_fd93,
];

fn step(state: u64, word: u64, factor: u64) -> u64 {
    (state ^ word).wrapping_mul(factor).rotate_left(29)
}

fn word(bytes: &[u8]) -> u64 {
    let mut whole = [0; WORD];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

/// The sum of bytes that come in pieces.
pub(super) struct Sum {
    lanes: [u64; LANES],
    len: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            lanes: FACTORS,
            len: 0,
        }
    }
}

impl Sum {
    /// Adds a piece; all but the last are multiples of 32 bytes long.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        debug_assert!(
            self.len.is_multiple_of(STRIPE as u64),
            "a piece that is not the last"
        );
        self.len += bytes.len() as u64;
        // On the stack of this function they are in registers.
        let mut lanes = self.lanes;
        let (stripes, rest) = bytes.as_chunks::<STRIPE>();
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<WORD>();
            for ((lane, factor), word) in lanes.iter_mut().zip(FACTORS).zip(words) {
                *lane = step(*lane, u64::from_le_bytes(*word), factor);
            }
        }
        for ((lane, factor), bytes) in lanes.iter_mut().zip(FACTORS).zip(rest.chunks(WORD)) {
            *lane = step(*lane, word(bytes), factor);
        }
        self.lanes = lanes;
    }

    pub(super) fn end(self) -> Digest {
        let mut sum = [self.len, !self.len];
        for lane in self.lanes {
            for (half, factor) in sum.iter_mut().zip(FACTORS) {
                *half = step(*half, lane ^ lane >> 32, factor);
            }
        }
        sum.map(|half| half ^ half >> 31)
    }
}

/// The sum of `bytes`.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.end()
}

/// Words of a page.
const PAGE_WORDS: usize = PAGE_SIZE as usize / size_of::<u32>();
/// Words are multiplied in pairs this far from each other, so that four pairs are one vector.
const PAIR: usize = 4;
/// The second half of a sum has the same random words, from this one on.
const SHIFT: usize = 4;
/// Random words.
const KEY_WORDS: usize = PAGE_WORDS + SHIFT;

/// A sum of pages that depends on random numbers: NH in two Toeplitz iterations (Black et al., "UMAC: Fast and Secure
/// Message Authentication", CRYPTO '99, sections 4.2 and 4.3). Any two different pages have the same sum with a
/// probability of 2⁻⁶⁴ at most, whoever made them, as long as the numbers are not known.
pub(super) struct PageKey([u32; KEY_WORDS]);

impl PageKey {
    /// Its length as bytes.
    pub(super) const LEN: usize = KEY_WORDS * size_of::<u32>();

    /// One that nobody knows; `None` where the system has no random numbers.
    pub(super) fn random() -> Option<Box<Self>> {
        let mut bytes = [0; Self::LEN];
        host_os::random_bytes(&mut bytes).ok()?;
        Some(Self::of(&bytes))
    }

    pub(super) fn of(bytes: &[u8; Self::LEN]) -> Box<Self> {
        let (words, _) = bytes.as_chunks();
        let mut key = Box::new(Self([0; KEY_WORDS]));
        for (place, word) in key.0.iter_mut().zip(words) {
            *place = u32::from_le_bytes(*word);
        }
        key
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(super) fn digest(&self, page: &[u8; PAGE_SIZE as usize]) -> Digest {
        [self.half(page, 0), self.half(page, SHIFT)]
    }

    fn half(&self, page: &[u8; PAGE_SIZE as usize], shift: usize) -> u64 {
        let key = &self.0[shift..][..PAGE_WORDS];
        let (words, _) = page.as_chunks::<{ size_of::<u32>() }>();
        let (groups, _) = words.as_chunks::<{ 2 * PAIR }>();
        let (keys, _) = key.as_chunks::<{ 2 * PAIR }>();
        let mut sums = [0_u64; PAIR];
        for (words, keys) in groups.iter().zip(keys) {
            let sum = |at: usize| u32::from_le_bytes(words[at]).wrapping_add(keys[at]);
            for (at, place) in sums.iter_mut().enumerate() {
                let product = u64::from(sum(at)) * u64::from(sum(at + PAIR));
                *place = place.wrapping_add(product);
            }
        }
        sums.into_iter().fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_with_any_bit_flipped_has_another_sum_and_so_has_the_page_with_another_key() {
        let key = PageKey::random().unwrap();
        let page: [u8; 4096] = std::array::from_fn(|at| (at * 7) as u8);
        let whole = key.digest(&page);
        for bit in 0..page.len() * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(key.digest(&flipped), whole);
        }

        assert_ne!(PageKey::random().unwrap().digest(&page), whole);
    }

    /// Which no key, or one that does not matter, would let through: a difference that the next word takes back.
    #[test]
    fn pages_of_zeros_but_for_one_word_have_different_sums() {
        let key = PageKey::random().unwrap();
        let page = |at: usize, value: u32| {
            let mut page = [0; 4096];
            page[at * 4..][..4].copy_from_slice(&value.to_le_bytes());
            page
        };
        let cases = (0..PAGE_WORDS).flat_map(|at| [1, 1 << 31].map(|value| (at, value)));

        let sums: std::collections::HashSet<_> =
            cases.map(|(at, value)| key.digest(&page(at, value))).collect();

        assert_eq!(sums.len(), 2 * PAGE_WORDS);
    }

    #[test]
    fn page_key_read_back_is_the_same() {
        let key = PageKey::random().unwrap();
        let bytes = key.bytes();

        let read = PageKey::of(bytes[..].try_into().unwrap());

        assert_eq!(read.0, key.0);
    }

    #[test]
    fn digest_of_bytes_with_any_bit_flipped_is_another() {
        let bytes: Vec<u8> = (0..77).collect();
        let whole = digest(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(&flipped), whole);
        }
    }

    #[test]
    fn digest_of_pieces_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut sum = Sum::default();
        sum.add(&bytes[..96]);
        sum.add(&bytes[96..96]);
        sum.add(&bytes[96..]);

        assert_eq!(sum.end(), digest(&bytes));
    }

    #[test]
    fn digest_of_zeros_tells_their_number() {
        let sums: std::collections::HashSet<_> = (0..200).map(|len| digest(&vec![0; len])).collect();
        assert_eq!(sums.len(), 200);
    }
}
