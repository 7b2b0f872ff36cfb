//! What ring 0 does to modes outside 64-bit code: parts of a switch, and whole ones.

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, cr0, cr3, cr4, eax, ecx, edx, esi, ptr};

use super::narrow::operand;
use crate::hostile::part::Plan;
use crate::hostile::place::{
    CODE, CODE_PAGES, DATA, DIRECTORY, IN_LARGE, NARROW_IDTR, PAGE, PML4, POINTERS, TABLES_END, WIDE_IDTR,
};
use crate::hostile::setting::{Kind, Setting, bit};
use crate::random::Random;

const EFER: u32 = 0xc000_0080;

pub(super) fn privileged(a: &mut CodeAssembler, random: &mut Random, plan: &Plan) -> Result<(), IcedError> {
    match random.below(16) {
        0 => a.invlpg(operand(random)),
        1 | 2 => {
            a.mov(eax, cr3)?;
            a.mov(cr3, eax)
        }
        3 => {
            a.mov(eax, cr0)?;
            let bits = [
                bit::WP,
                bit::AM,
                bit::TS,
                bit::PG,
                bit::PG,
                bit::PG | bit::PE,
                bit::NE,
                3 << 29,
            ];
            a.xor(eax, random.pick(&bits) as u32)?;
            a.mov(cr0, eax)
        }
        4 => {
            a.mov(eax, cr4)?;
            let bits = [
                bit::PSE,
                bit::PSE,
                bit::PAE,
                bit::PGE,
                bit::SMAP,
                bit::SMEP,
                bit::UMIP,
            ];
            a.xor(eax, random.pick(&bits) as i32)?;
            a.mov(cr4, eax)
        }
        5 => {
            a.mov(eax, odd_root(random) as u32)?;
            a.mov(cr3, eax)
        }
        6 => {
            a.mov(ecx, EFER)?;
            a.rdmsr()?;
            a.xor(eax, random.pick(&[bit::LME, bit::NXE, bit::NXE]) as i32)?;
            a.wrmsr()
        }
        7 => {
            a.mov(edx, 0x70)?;
            a.mov(ecx, 9)?;
            a.rep().insb()
        }
        8 => {
            a.mov(edx, 0x70)?;
            a.mov(ecx, 5)?;
            a.rep().outsd()
        }
        9 => {
            a.mov(eax, random.below(0x200) as u32)?;
            a.lldt(eax)
        }
        10 => {
            a.mov(ptr(esi), eax)?;
            a.lmsw(operand(random))
        }
        11 => a.clts(),
        _ => to_another(a, random, plan.setting.kind),
    }
}

/// Tables where none are.
fn odd_root(random: &mut Random) -> u64 {
    let places = [
        PML4,
        POINTERS,
        DIRECTORY,
        POINTERS + 8,
        DATA,
        CODE + (CODE_PAGES as u64 - 1) * PAGE + 0xfe0,
        TABLES_END,
        IN_LARGE + 2 * PAGE + 0xfe0,
        0xffff_f000,
        0xfee0_0000,
    ];
    random.pick(&places)
}

/// Paging off, other tables and another kind of them, and on again: code goes on where it lies at the same address in
/// both.
fn to_another(a: &mut CodeAssembler, random: &mut Random, from: Kind) -> Result<(), IcedError> {
    let kind = random.pick(&Kind::ALL);
    let setting = Setting::make_up(random, kind);
    a.mov(eax, cr0)?;
    a.and(eax, !bit::PG as u32)?;
    a.mov(cr0, eax)?;
    if setting.kind.is_long_mode() != from.is_long_mode() {
        let idtr = if setting.kind.is_long_mode() {
            WIDE_IDTR
        } else {
            NARROW_IDTR
        };
        a.lidt(ptr(idtr as i32))?;
    }
    a.mov(eax, setting.cr4 as u32)?;
    a.mov(cr4, eax)?;
    a.mov(ecx, EFER)?;
    a.xor(edx, edx)?;
    a.mov(eax, setting.efer as u32)?;
    a.wrmsr()?;
    a.mov(eax, setting.cr3 as u32)?;
    a.mov(cr3, eax)?;
    a.mov(eax, setting.cr0 as u32)?;
    a.mov(cr0, eax)
}
