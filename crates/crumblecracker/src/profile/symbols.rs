//! Names for the addresses of a kernel.

use std::io::Result;

use super::elf::{Sections, text_at, u16_at, u32_at, u64_at};
use super::kallsyms;

/// A name and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) address: u64,
    pub(super) code: bool,
    pub(super) name: String,
}

/// The functions of a kernel.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// By address.
    functions: Vec<Symbol>,
    data: Vec<Symbol>,
    code: Vec<(u64, u64)>,
}

impl Symbols {
    /// From the file's own table of symbols, or from the one that the kernel carries; none where there is neither.
    pub(super) fn read(sections: &Sections<'_>) -> Result<Self> {
        let code = sections.code();
        let mut all = own_table(sections)?;
        if all.is_empty()
            && let Some((_, data)) = sections.contents(".rodata")?
            && let Some(text) = sections.named(".text")
        {
            all = kallsyms::symbols(&data, text.address).unwrap_or_default();
        }
        let (mut functions, data): (Vec<_>, Vec<_>) = all.into_iter().partition(|symbol| symbol.code);
        functions.sort_by_key(|symbol| symbol.address);
        functions.dedup_by_key(|symbol| symbol.address);
        Ok(Self {
            functions,
            data,
            code,
        })
    }

    /// The function that `address` is in.
    pub(super) fn function(&self, address: u64) -> Option<&str> {
        let inside = |&(start, len): &(u64, u64)| address.wrapping_sub(start) < len;
        if !self.code.iter().any(inside) {
            return None;
        }
        let behind = self.functions.partition_point(|symbol| symbol.address <= address);
        let symbol = self.functions.get(behind.checked_sub(1)?)?;
        Some(&symbol.name)
    }

    /// Where a variable is.
    pub(super) fn variable(&self, name: &str) -> Option<u64> {
        let found = self.data.iter().find(|symbol| symbol.name == name)?;
        Some(found.address)
    }
}

/// ".symtab" ("Symbol table").
fn own_table(sections: &Sections<'_>) -> Result<Vec<Symbol>> {
    const ENTRY: usize = 24;
    const FUNCTION: u8 = 2;
    let (Some((_, table)), Some((_, names))) = (sections.contents(".symtab")?, sections.contents(".strtab")?)
    else {
        return Ok(Vec::new());
    };
    let symbol = |entry: &[u8]| {
        // No section: it is defined elsewhere.
        if u16_at(entry, 6)? == 0 {
            return None;
        }
        let name = text_at(&names, u32_at(entry, 0)? as usize)?;
        (!name.is_empty()).then_some(Symbol {
            address: u64_at(entry, 8)?,
            code: entry.get(4)? & 0xf == FUNCTION,
            name,
        })
    };
    Ok(table.chunks_exact(ENTRY).filter_map(symbol).collect())
}
