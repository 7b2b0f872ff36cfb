//! The pages of code that translated blocks lie in, and whether the address space still has them where it had.
//!
//! A block is translated for one linear address of code that lies in one page of memory. Another address space may
//! have another page there. So whoever enters a block from elsewhere than its own page first compares a number that
//! the page was given when it was last looked up with the number that all look-ups have now
//! ([`Generations`](crate::memory::Generations)); a difference leads to the dispatcher, which looks the page up. That
//! is why neither jump caches nor links need to know of address spaces.

use std::collections::HashMap;

use crate::cpu::TlbSet;

/// The most pages that are told apart; for more, all translations are forgotten.
pub(crate) const CODE_PAGES: usize = 16 * 1024;
/// A page that was not looked up yet: generations begin above it.
pub(super) const UNVERIFIED: u64 = 0;

/// A page of memory at a page of linear addresses, for one kind of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CodePage {
    pub(super) linear: u64,
    pub(super) gpa: u64,
    pub(super) user: bool,
}

impl CodePage {
    pub(super) fn new(set: TlbSet, linear: u64, gpa: u64) -> Self {
        Self {
            linear,
            gpa,
            user: set == TlbSet::User,
        }
    }
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct CodePages {
    numbers: HashMap<CodePage, u32>,
    by_linear: HashMap<u64, Vec<u32>>,
    all: Vec<CodePage>,
}

impl CodePages {
    /// These, with the numbers that they have in the list; `None` where there are too many, or one of them twice.
    pub(super) fn of(pages: &[CodePage]) -> Option<Self> {
        let mut all = Self::default();
        for (number, &page) in pages.iter().enumerate() {
            if all.number(page)? as usize != number {
                return None;
            }
        }
        Some(all)
    }

    /// The first of them.
    pub(super) fn first(&self, count: usize) -> Vec<CodePage> {
        self.all.iter().take(count).copied().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Says where the page of that number is, which had no place yet; `false` where another number has it.
    pub(super) fn place(&mut self, number: u32, page: CodePage) -> bool {
        let Some(known) = self.all.get_mut(number as usize) else {
            return false;
        };
        if self.numbers.contains_key(&page) {
            return false;
        }
        self.numbers.remove(known);
        self.numbers.insert(page, number);
        *known = page;
        true
    }

    /// The page of that number.
    pub(super) fn page(&self, number: u32) -> Option<CodePage> {
        self.all.get(number as usize).copied()
    }

    /// The number of a page; `None` where there are too many.
    pub(super) fn number(&mut self, page: CodePage) -> Option<u32> {
        if let Some(&number) = self.numbers.get(&page) {
            return Some(number);
        }
        let number = self.all.len();
        if number == CODE_PAGES {
            return None;
        }
        let number = number as u32;
        self.numbers.insert(page, number);
        self.all.push(page);
        self.by_linear.entry(page.linear).or_default().push(number);
        Some(number)
    }

    /// The numbers of all pages at a linear address.
    pub(super) fn at(&self, linear: u64) -> &[u32] {
        self.by_linear.get(&linear).map_or(&[], Vec::as_slice)
    }
}
