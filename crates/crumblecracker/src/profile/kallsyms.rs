//! The table of symbols that a Linux kernel carries in its read-only data (`scripts/kallsyms.c` of its source, since
//! Linux 6.4), for kernels whose file was stripped of its own.
//!
//! Nothing points at the table. It is found by its dictionary, whose index repeats where each of its words begins, and
//! by what lies around: the number of symbols, their names, an index of the names, the dictionary and its index, the
//! addresses, the address that those are relative to. Each part confirms the others.

use super::elf::{u16_at, u32_at, u64_at};
use super::symbols::Symbol;

/// Words of the dictionary. The digits stand for themselves.
const WORDS: usize = 256;
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// Every so many names the index has one.
const NAMES_PER_MARK: usize = 256;
/// The most symbols that are believed.
const MOST: usize = 4 << 20;

/// Reads the table in `data`. `base` is the address that the kernel's addresses are relative to, its first code.
pub(super) fn symbols(data: &[u8], base: u64) -> Option<Vec<Symbol>> {
    let dictionary = Dictionary::find(data)?;
    let addresses = align(dictionary.end + 2 * WORDS);
    let base_at = (addresses..data.len())
        .step_by(8)
        .take(MOST / 2)
        .find(|&at| u64_at(data, at) == Some(base))?;
    let room = (base_at - addresses) / 4;
    // The last address may be followed by nothing that fills up to eight bytes.
    [room, room.checked_sub(1)?].into_iter().find_map(|count| {
        let names = Names::find(data, &dictionary, count)?;
        let address = |index| address(u32_at(data, addresses + 4 * index)?, base);
        let symbol = |index| Some((address(index)?, names.at.get(index)?));
        let all = (0..count).map(symbol).collect::<Option<Vec<_>>>()?;
        Some(
            all.into_iter()
                .filter_map(|(address, &at)| dictionary.symbol(data, at, address))
                .collect(),
        )
    })
}

/// What is positive is absolute: a place in the data of each CPU. Other addresses count backwards from `base`.
fn address(offset: u32, base: u64) -> Option<u64> {
    let offset = i64::from(offset as i32);
    if offset >= 0 {
        return Some(offset as u64);
    }
    Some(base.wrapping_sub(1).wrapping_sub(offset as u64))
}

fn align(at: usize) -> usize {
    at.next_multiple_of(8)
}

struct Dictionary<'a> {
    words: Vec<&'a [u8]>,
    start: usize,
    end: usize,
}

impl<'a> Dictionary<'a> {
    fn find(data: &'a [u8]) -> Option<Self> {
        let found = data.windows(DIGITS.len()).enumerate();
        found
            .filter(|(_, bytes)| *bytes == DIGITS)
            .find_map(|(at, _)| Self::around(data, at))
    }

    /// The dictionary whose digits are at `digits`.
    fn around(data: &'a [u8], digits: usize) -> Option<Self> {
        let mut start = digits;
        for _ in 0..b'0' {
            let before = data.get(..start.checked_sub(1)?)?;
            start = before.iter().rposition(|&byte| byte == 0)? + 1;
        }
        // The first word has none before it, but for what fills up.
        let mut words = Vec::new();
        let mut starts = Vec::new();
        let mut end = start;
        for _ in 0..WORDS {
            let rest = data.get(end..)?;
            let len = rest.iter().position(|&byte| byte == 0)?;
            starts.push(end - start);
            words.push(&rest[..len]);
            end += len + 1;
        }
        let index = align(end);
        let repeats =
            |(number, &at): (usize, &usize)| u16_at(data, index + 2 * number).map(usize::from) == Some(at);
        let end = index;
        starts
            .iter()
            .enumerate()
            .all(repeats)
            .then_some(Self { words, start, end })
    }

    /// The symbol whose packed name is at `at`: its first character tells its kind.
    fn symbol(&self, data: &[u8], at: usize, address: u64) -> Option<Symbol> {
        let (len, at) = name_len(data, at)?;
        let packed = data.get(at..at + len)?;
        let name: Vec<u8> = packed
            .iter()
            .flat_map(|&word| self.words[usize::from(word)])
            .copied()
            .collect();
        let (&kind, name) = name.split_first()?;
        Some(Symbol {
            address,
            code: matches!(kind, b't' | b'T' | b'w' | b'W'),
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

/// Length of a packed name, and where it begins.
fn name_len(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*data.get(at)?);
    if first & 0x80 == 0 {
        return Some((first, at + 1));
    }
    let second = usize::from(*data.get(at + 1)?);
    Some((first & 0x7f | second << 7, at + 2))
}

/// Where each name is.
struct Names {
    at: Vec<usize>,
}

impl Names {
    /// The `count` names before the dictionary.
    fn find(data: &[u8], dictionary: &Dictionary<'_>, count: usize) -> Option<Self> {
        if !(1..=MOST).contains(&count) {
            return None;
        }
        let marks = count.div_ceil(NAMES_PER_MARK);
        // The index may be followed by what fills up to eight bytes, and begins at a multiple of eight.
        let index = dictionary.start.checked_sub(4 * marks)? & !7;
        let last = u32_at(data, index + 4 * (marks - 1))? as usize;
        // No name is longer than 512 bytes.
        let latest = index.checked_sub(last)? & !7;
        let earliest = latest.saturating_sub(NAMES_PER_MARK * 512);
        let counts = (earliest..=latest).rev().step_by(8);
        counts
            .filter(|&at| u32_at(data, at) == Some(count as u32))
            .find_map(|at| Self::walk(data, at + 8, index, count))
    }

    /// The names from `start` on, if the index agrees.
    fn walk(data: &[u8], start: usize, index: usize, count: usize) -> Option<Self> {
        let mut names = Self {
            at: Vec::with_capacity(count),
        };
        let mut at = start;
        for number in 0..count {
            if number % NAMES_PER_MARK == 0 {
                let mark = u32_at(data, index + number / NAMES_PER_MARK * 4)?;
                if mark as usize != at - start {
                    return None;
                }
            }
            names.at.push(at);
            let (len, bytes) = name_len(data, at)?;
            at = bytes + len;
        }
        (at <= index).then_some(names)
    }
}
