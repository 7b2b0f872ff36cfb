//! The rounds of AES (FIPS 197; Intel SDM vol. 2, AESENC and its like). The state's first column is the lowest
//! doubleword.

/// A byte times x, in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn double(a: u8) -> u8 {
    (a << 1) ^ ((a >> 7) * 0x1b)
}

const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        product ^= a * (b & 1);
        a = double(a);
        b >>= 1;
    }
    product
}

/// The S-box (FIPS 197, 5.1.1): the inverse, which is the 254th power, and an affine map.
const fn substitution() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut inverse = 1;
        let mut power = 0;
        while power < 254 {
            inverse = multiply(inverse, byte as u8);
            power += 1;
        }
        table[byte] = inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4)
            ^ 0x63;
        byte += 1;
    }
    table
}

const fn inverted(table: &[u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        inverse[table[byte] as usize] = byte as u8;
        byte += 1;
    }
    inverse
}

static SUBSTITUTION: [u8; 256] = substitution();
static INVERSE: [u8; 256] = inverted(&substitution());

/// Bytes in column order, row `row` of column `column` taken from `from(row, column)`.
fn arranged(state: u128, from: impl Fn(usize, usize) -> usize, table: &[u8; 256]) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|index| {
        let (row, column) = (index % 4, index / 4);
        table[usize::from(bytes[from(row, column) % 4 * 4 + row])]
    }))
}

/// The same byte sixteen times.
const fn everywhere(byte: u8) -> u128 {
    u128::from_le_bytes([byte; 16])
}

/// Every byte times x.
fn doubled(state: u128) -> u128 {
    let carries = state >> 7 & everywhere(1);
    ((state & everywhere(0x7f)) << 1) ^ (carries * 0x1b)
}

/// Every column turned by `rows` (1 to 3) rows: row 0 gets what was in that row.
fn turned(state: u128, rows: u32) -> u128 {
    let low = u128::from(u32::MAX >> (rows * 8));
    let kept = low | low << 32 | low << 64 | low << 96;
    state >> (rows * 8) & kept | state << (32 - rows * 8) & !kept
}

/// Every column times 3x^3 + x^2 + x + 2 (FIPS 197, 5.1.3).
fn mixed(state: u128) -> u128 {
    let twice = doubled(state);
    twice ^ turned(twice ^ state, 1) ^ turned(state, 2) ^ turned(state, 3)
}

/// `AESENCLAST`.
pub(crate) fn encrypt_last(state: u128, key: u128) -> u128 {
    arranged(state, |row, column| column + row, &SUBSTITUTION) ^ key
}

/// `AESENC`.
pub(crate) fn encrypt(state: u128, key: u128) -> u128 {
    mixed(encrypt_last(state, 0)) ^ key
}

/// `AESDECLAST`.
pub(crate) fn decrypt_last(state: u128, key: u128) -> u128 {
    arranged(state, |row, column| column + 4 - row, &INVERSE) ^ key
}

/// `AESDEC`.
pub(crate) fn decrypt(state: u128, key: u128) -> u128 {
    unmix(decrypt_last(state, 0)) ^ key
}

/// `AESIMC`: the inverse polynomial is the other one times 4x^2 + 5.
pub(crate) fn unmix(state: u128) -> u128 {
    mixed(state ^ doubled(doubled(state ^ turned(state, 2))))
}

/// `AESKEYGENASSIST`.
pub(crate) fn assist_key(state: u128, round: u8) -> u128 {
    let word = |index: u32| {
        let bytes = ((state >> (index * 32)) as u32).to_le_bytes();
        u32::from_le_bytes(bytes.map(|byte| SUBSTITUTION[usize::from(byte)]))
    };
    let (low, high) = (word(1), word(3));
    let turned = |word: u32| word.rotate_right(8) ^ u32::from(round);
    [low, turned(low), high, turned(high)]
        .into_iter()
        .rev()
        .fold(0, |result, word| result << 32 | u128::from(word))
}

/// `PCLMULQDQ`: the product of two polynomials over GF(2), four terms at a time.
pub(crate) fn multiply_carryless(a: u64, b: u64) -> u128 {
    let a = u128::from(a);
    let mut multiples = [0; 16];
    for index in 1..16 {
        let half: u128 = multiples[index / 2];
        multiples[index] = (half << 1) ^ (a * (index as u128 & 1));
    }
    (0..16).rev().fold(0, |product, digit| {
        (product << 4) ^ multiples[(b >> (digit * 4) & 15) as usize]
    })
}
