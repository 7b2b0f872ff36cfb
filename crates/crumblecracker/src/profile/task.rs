//! Which process a CPU of a Linux guest executes: the variable `pcpu_hot` of that CPU begins with the address of the
//! current task, and the kernel's type information (`Documentation/bpf/btf.rst`) says where a task keeps its name.

use std::io::Result;

use soft_cpu::{GuestStack, Sample};

use super::elf::{Sections, text_at, u16_at, u32_at};
use super::symbols::Symbols;

/// `TASK_COMM_LEN`.
const NAME_LEN: usize = 16;

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskNames {
    /// From the base of a CPU's data to the pointer.
    current: u64,
    /// From the task to its name.
    name: u64,
}

impl TaskNames {
    pub(super) fn read(sections: &Sections<'_>, symbols: &Symbols) -> Result<Option<Self>> {
        let Some((_, types)) = sections.contents(".BTF")? else {
            return Ok(None);
        };
        let current = symbols
            .variable("pcpu_hot")
            .or_else(|| symbols.variable("current_task"));
        let name = member_offset(&types, "task_struct", "comm");
        Ok(current.zip(name).map(|(current, name)| Self { current, name }))
    }

    /// The name of the process that the sampled CPU executes.
    pub(super) fn current(&self, sample: &Sample, stack: &dyn GuestStack) -> Option<[u8; NAME_LEN]> {
        // A kernel's data are in the upper half; what else GS is used for is not.
        let base = sample.gs_bases.into_iter().find(|base| base >> 63 != 0)?;
        let task = stack.quad(base.wrapping_add(self.current))?;
        let low = stack.quad(task.wrapping_add(self.name))?;
        let high = stack.quad(task.wrapping_add(self.name + 8))?;
        let mut name = [0; NAME_LEN];
        name[..8].copy_from_slice(&low.to_le_bytes());
        name[8..].copy_from_slice(&high.to_le_bytes());
        Some(name)
    }
}

/// A process's name as text.
pub(super) fn text(name: &[u8; NAME_LEN]) -> String {
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&name[..len]).into_owned()
}

/// Offset in bytes of a member of a structure.
fn member_offset(types: &[u8], structure: &str, member: &str) -> Option<u64> {
    const MAGIC: u16 = 0xeb9f;
    const STRUCT: u32 = 4;
    if u16_at(types, 0)? != MAGIC {
        return None;
    }
    let header = u32_at(types, 4)? as usize;
    let section = |at| {
        Some((
            header + u32_at(types, at)? as usize,
            u32_at(types, at + 4)? as usize,
        ))
    };
    let ((start, len), (names_at, names_len)) = (section(8)?, section(16)?);
    let names = types.get(names_at..names_at.checked_add(names_len)?)?;
    let types = types.get(start..start.checked_add(len)?)?;
    let mut at = 0;
    while at < types.len() {
        let info = u32_at(types, at + 4)?;
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let is_it = || text_at(names, u32_at(types, at).unwrap_or(0) as usize).as_deref() == Some(structure);
        if kind == STRUCT && count > 0 && is_it() {
            let bit_fields = info >> 31 != 0;
            let members = (0..count).map(|index| at + 12 + index * 12);
            let mut named = members.filter(|&at| {
                text_at(names, u32_at(types, at).unwrap_or(0) as usize).as_deref() == Some(member)
            });
            let bits = u32_at(types, named.next()? + 8)? & if bit_fields { 0xff_ffff } else { u32::MAX };
            return Some(u64::from(bits / 8));
        }
        at += 12 + extra(kind, count)?;
    }
    None
}

/// How many bytes follow the header of a type of this kind.
fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG.
        1 | 14 | 17 => 4,
        // ARRAY.
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64.
        4 | 5 | 15 | 19 => count * 12,
        // ENUM, FUNC_PROTO.
        6 | 13 => count * 8,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}
