//! The bytes of kept code.
//!
//! A head of fixed length, then tables of entries of fixed length, then the code. All numbers are little endian. Nothing
//! is believed: a record that is not exactly as it was written, or that names what is not in it, is none.

use std::io::Read;

use super::digest::{Digest, PageKey, Sum, digest};
use super::fingerprint::Fingerprint;
use crate::cpu::{Mode, TlbSet, VectorMode};
use crate::memory::{PAGE_OFFSET, PAGE_SIZE};
use crate::translate::lower::Way;
use crate::translate::pages::{CODE_PAGES, CodePage};
use crate::translate::{Link, NOWHERE};

/// The first bytes of every record; the digits change with the layout.
const MAGIC: [u8; 8] = *b"ccCode01";
/// Length of the head: magic bytes, fingerprint, sums of tables and code, lengths of both, the code's first.
const HEAD: usize = 64;
/// The most entries that a table may have.
const MOST: u32 = 1 << 20;

/// The most bytes of all tables.
const MOST_TABLES: u32 = 64 << 20;

/// What a record has beside its code.
pub(super) struct Record {
    pub(super) modes: Vec<Mode>,
    pub(super) code_pages: Vec<CodePage>,
    pub(super) links: Vec<Link>,
    pub(super) pages: Vec<Page>,
    /// Those of a page follow each other, in ascending order of their addresses.
    pub(super) blocks: Vec<KeptBlock>,
    /// Where the instructions are that handlers execute, from the start of their block.
    pub(super) ops: Vec<u16>,
    /// The numbers of those blocks that jump caches led to.
    pub(super) jumps: Vec<u32>,
    /// How many slots were in use.
    pub(super) slots: u32,
    /// What the pages' sums depend on.
    pub(super) key: Box<PageKey>,
}

/// What is known of code before it is there.
pub(super) struct Code {
    pub(super) len: u32,
    digest: Digest,
}

/// A page of guest memory with code in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Its number among the code pages.
    pub(super) code_page: u32,
    pub(super) digest: Digest,
    /// How many blocks it has.
    pub(super) blocks: u32,
}

/// A translated block. It lies in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptBlock {
    pub(super) linear: u64,
    /// Where it begins in its page.
    pub(super) at: u16,
    /// Number of its mode.
    pub(super) mode: u8,
    pub(super) slot: u32,
    pub(super) code_page: u32,
    /// Where its three ways in are in the code.
    pub(super) entries: [u32; 3],
    pub(super) first_op: u32,
    pub(super) ops: u8,
}

/// Reads numbers, as long as there are any.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn pair(&mut self) -> Option<[u64; 2]> {
        Some([self.u64()?, self.u64()?])
    }

    fn table<T>(&mut self, entry: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32().filter(|&count| count <= MOST)?;
        // Every entry has a byte at least, so what is reserved is no more than what is there.
        let mut entries = Vec::with_capacity((count as usize).min(self.0.len()));
        for _ in 0..count {
            entries.push(entry(self)?);
        }
        Some(entries)
    }
}

impl Code {
    /// The code itself, which follows the tables and ends the record: gives its pieces to `take`, then says whether it was
    /// what it should be.
    pub(super) fn read(
        &self,
        input: &mut dyn Read,
        take: impl FnOnce(&mut dyn FnMut(&mut [u8]) -> Option<()>) -> Option<()>,
    ) -> Option<()> {
        let mut sum = Sum::default();
        take(&mut |piece| {
            input.read_exact(piece).ok()?;
            sum.add(piece);
            Some(())
        })?;
        let ends = input.read(&mut [0]).is_ok_and(|count| count == 0);
        (ends && sum.end() == self.digest).then_some(())
    }
}

/// The head of a record of the program with this fingerprint, and the bytes of its tables. `None` for anything else.
pub(super) fn read(input: &mut dyn Read, fingerprint: Fingerprint) -> Option<(Vec<u8>, Code)> {
    let mut head = [0; HEAD];
    input.read_exact(&mut head).ok()?;
    let mut reader = Reader(&head);
    if reader.array()? != MAGIC || reader.pair()? != fingerprint {
        return None;
    }
    let sum = reader.pair()?;
    let code = Code {
        digest: reader.pair()?,
        len: reader.u32()?,
    };
    let len = reader.u32().filter(|&len| len <= MOST_TABLES)?;
    // Where a file is shorter than it says, memory that was not touched costs nothing.
    let mut tables = Vec::with_capacity(len as usize);
    input.take(len.into()).read_to_end(&mut tables).ok()?;
    (tables.len() == len as usize && digest(&tables) == sum).then_some((tables, code))
}

impl Record {
    /// Nothing, with a key for what comes.
    pub(super) fn empty(key: Box<PageKey>) -> Self {
        Self {
            modes: Vec::new(),
            code_pages: Vec::new(),
            links: Vec::new(),
            pages: Vec::new(),
            blocks: Vec::new(),
            ops: Vec::new(),
            jumps: Vec::new(),
            slots: 0,
            key,
        }
    }

    /// What these tables say, of `code` bytes of code.
    pub(super) fn of(tables: &[u8], code: usize) -> Option<Self> {
        Self::of_tables(tables).filter(|record| record.is_possible(code))
    }

    fn of_tables(tables: &[u8]) -> Option<Self> {
        let mut reader = Reader(tables);
        let slots = reader.u32().filter(|&slots| slots <= MOST)?;
        let record = Self {
            modes: reader.table(mode)?,
            code_pages: reader.table(code_page)?,
            links: reader.table(link)?,
            pages: reader.table(page)?,
            blocks: reader.table(block)?,
            ops: reader.table(Reader::u16)?,
            jumps: reader.table(Reader::u32)?,
            slots,
            key: PageKey::of(&reader.array()?),
        };
        reader.0.is_empty().then_some(record)
    }

    /// That everything it names is in it.
    fn is_possible(&self, code: usize) -> bool {
        let code = |offset: u32, len: usize| offset as usize + len <= code;
        let modes = self.modes.iter().all(|mode| mode.bits == 64);
        let links = self
            .links
            .iter()
            .all(|link| code(link.site, 4) && (link.to == NOWHERE || link.to < self.slots));
        let blocks = self.blocks.iter().all(|block| {
            block.entries.iter().all(|&entry| code(entry, 1))
                && u64::from(block.at) == block.linear % PAGE_SIZE
                && usize::from(block.mode) < self.modes.len()
                && block.slot < self.slots
                && (block.code_page as usize) < self.code_pages.len()
                && block.first_op as usize + usize::from(block.ops) <= self.ops.len()
        });
        let pages = self
            .pages
            .iter()
            .all(|page| (page.code_page as usize) < self.code_pages.len());
        let jumps = self.jumps.iter().all(|&jump| (jump as usize) < self.blocks.len());
        let listed: u64 = self.pages.iter().map(|page| u64::from(page.blocks)).sum();
        modes
            && links
            && blocks
            && pages
            && jumps
            && listed == self.blocks.len() as u64
            && self.code_pages.len() <= CODE_PAGES
            && self.blocks_are_in_their_pages()
    }

    /// Comes after all numbers were found to be in their tables.
    fn blocks_are_in_their_pages(&self) -> bool {
        let mut blocks = self.blocks.iter();
        self.pages.iter().all(|page| {
            blocks.by_ref().take(page.blocks as usize).all(|block| {
                let code_page = self.code_pages[page.code_page as usize];
                let ops = &self.ops[block.first_op as usize..][..usize::from(block.ops)];
                let inside = |&op: &u16| u64::from(block.at) + u64::from(op) < PAGE_SIZE;
                block.code_page == page.code_page
                    && code_page.linear == block.linear & !PAGE_OFFSET
                    && ops.iter().all(inside)
            })
        })
    }

    /// The bytes of it and its code.
    pub(super) fn write(&self, code: &[u8], fingerprint: Fingerprint) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.slots.to_le_bytes());
        table(&mut body, &self.modes, |out, mode| out.extend(mode_bytes(*mode)));
        table(&mut body, &self.code_pages, |out, page| {
            out.extend(page.linear.to_le_bytes());
            out.extend((page.gpa | u64::from(page.user)).to_le_bytes());
        });
        table(&mut body, &self.links, |out, link| {
            out.extend(link.site.to_le_bytes());
            out.extend(link.to.to_le_bytes());
            out.extend(link.target.to_le_bytes());
            out.push(link.way as u8);
            out.extend(mode_bytes(link.mode));
        });
        table(&mut body, &self.pages, |out, page| {
            out.extend(page.code_page.to_le_bytes());
            out.extend(page.digest.map(u64::to_le_bytes).concat());
            out.extend(page.blocks.to_le_bytes());
        });
        table(&mut body, &self.blocks, |out, block| {
            out.extend(block.linear.to_le_bytes());
            out.extend(block.at.to_le_bytes());
            out.push(block.mode);
            out.extend(block.slot.to_le_bytes());
            out.extend(block.code_page.to_le_bytes());
            out.extend(block.entries.map(u32::to_le_bytes).concat());
            out.extend(block.first_op.to_le_bytes());
            out.push(block.ops);
        });
        table(&mut body, &self.ops, |out, op| out.extend(op.to_le_bytes()));
        table(&mut body, &self.jumps, |out, jump| out.extend(jump.to_le_bytes()));
        body.extend(self.key.bytes());
        let mut bytes = MAGIC.to_vec();
        for number in [fingerprint, digest(&body), digest(code)].concat() {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend((code.len() as u32).to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes.extend(code);
        bytes
    }
}

fn table<T>(out: &mut Vec<u8>, entries: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.extend((entries.len() as u32).to_le_bytes());
    entries.iter().for_each(|entry| write(out, entry));
}

/// A mode's bytes; modes are also sorted by them.
pub(super) fn mode_bytes(mode: Mode) -> [u8; 6] {
    let Mode {
        bits,
        stack_bits,
        cpl,
        set,
        alignment_checks,
        vector,
    } = mode;
    [
        bits,
        stack_bits,
        cpl,
        set as u8,
        alignment_checks.into(),
        vector as u8,
    ]
}

fn mode(reader: &mut Reader<'_>) -> Option<Mode> {
    let [bits, stack_bits, cpl, set, alignment_checks, vector] = reader.array()?;
    Some(Mode {
        bits,
        stack_bits,
        cpl,
        set: match set {
            0 => TlbSet::User,
            1 => TlbSet::Supervisor,
            2 => TlbSet::SupervisorOpen,
            _ => return None,
        },
        alignment_checks: alignment_checks != 0,
        vector: match vector {
            0 => VectorMode::Handlers,
            1 => VectorMode::Sse,
            2 => VectorMode::Avx,
            _ => return None,
        },
    })
}

fn code_page(reader: &mut Reader<'_>) -> Option<CodePage> {
    let [linear, gpa] = reader.pair()?;
    Some(CodePage {
        linear,
        gpa: gpa & !1,
        user: gpa & 1 != 0,
    })
}

fn link(reader: &mut Reader<'_>) -> Option<Link> {
    Some(Link {
        site: reader.u32()?,
        to: reader.u32()?,
        target: reader.u64()?,
        way: match reader.u8()? {
            0 => Way::Checked,
            1 => Way::Polled,
            2 => Way::Known,
            _ => return None,
        },
        mode: mode(reader)?,
    })
}

fn page(reader: &mut Reader<'_>) -> Option<Page> {
    Some(Page {
        code_page: reader.u32()?,
        digest: reader.pair()?,
        blocks: reader.u32()?,
    })
}

fn block(reader: &mut Reader<'_>) -> Option<KeptBlock> {
    Some(KeptBlock {
        linear: reader.u64()?,
        at: reader.u16()?,
        mode: reader.u8()?,
        slot: reader.u32()?,
        code_page: reader.u32()?,
        entries: [reader.u32()?, reader.u32()?, reader.u32()?],
        first_op: reader.u32()?,
        ops: reader.u8()?,
    })
}
