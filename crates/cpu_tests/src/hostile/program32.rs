//! Parts of programs in 32-bit and 16-bit code, in long mode's compatibility mode or without it.

use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister32, CodeAssembler, al, ax, byte_ptr, cl, cr0, cr3, cr4, ds, dword_ptr, eax,
    ebp, ebx, ecx, edi, edx, es, esi, esp, fs, gs, mm1, mm2, ptr, word_ptr, xmm1, xmm2, xmm3, ymm1,
};
use iced_x86::{Code, IcedError, Instruction};

use super::paging::Paging;
use super::place::{ODD, ODD_COUNT, USER_CS, USER_CS_16, USER_CS_32, USER_SS};
use super::program;
use crate::random::Random;

/// Registers that hold addresses.
const POINTERS: [AsmRegister32; 4] = [ebx, ebp, esi, edi];

/// Bytes of a jump over what is near.
const SHORT_JUMP: u32 = 2;

/// What kind of part is wanted.
pub(super) struct Kind {
    pub(super) paging: Paging,
    /// 32 or 16.
    pub(super) bits: u32,
    /// Where its code segment begins.
    pub(super) base: u64,
    /// In ring 0, where the stack must stay what it is.
    pub(super) supervisor: bool,
    /// It may change how memory is found.
    pub(super) wild: bool,
}

/// Code of a part at `at`: none of it leaves flags undefined.
pub(super) fn part(kind: &Kind, random: &mut Random, at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(kind.bits)?;
    // Code that is stored to, by itself: the byte is none that is executed.
    let mut over = a.create_label();
    let spot = (kind.base + at) as u32 + SHORT_JUMP;
    a.jmp(over)?;
    a.db(&[0xcc])?;
    a.set_label(&mut over)?;
    if kind.paging.is_long() && !random.once_in(4) {
        // Parts before may have loaded anything.
        a.mov(eax, u32::from(USER_SS))?;
        a.mov(ds, eax)?;
        a.mov(es, eax)?;
    }
    for pointer in POINTERS {
        a.mov(pointer, program::address(kind.paging, random) as u32)?;
    }
    for _ in 0..3 + random.below(8) {
        if kind.supervisor && random.once_in(8) {
            privileged(&mut a, kind, random)?;
            continue;
        }
        match random.below(7) {
            0 | 1 => general(&mut a, random)?,
            2 => vector(&mut a, random)?,
            3 => strings(&mut a, random)?,
            4 if !kind.supervisor => stack(&mut a, kind, random)?,
            5 => segments(&mut a, random)?,
            _ => wide(&mut a, spot, random)?,
        }
    }
    a.int3()?;
    a.assemble(at)
}

/// A part that begins in 32-bit code and goes on in 64-bit code, which only long mode has.
pub(super) fn mixed_part(kind: &Kind, random: &mut Random, at: u64) -> Result<Vec<u8>, IcedError> {
    let mut head = CodeAssembler::new(32)?;
    for pointer in POINTERS {
        head.mov(pointer, program::address(kind.paging, random) as u32)?;
    }
    for _ in 0..random.below(4) {
        general(&mut head, random)?;
    }
    let mut code = head.assemble(at)?;
    let jump_at = at + code.len() as u64;
    let jump_to = |tail: u64| -> Result<Vec<u8>, IcedError> {
        let mut jump = CodeAssembler::new(32)?;
        jump.add_instruction(Instruction::with_far_branch(
            Code::Jmp_ptr1632,
            USER_CS,
            tail as u32,
        )?)?;
        jump.assemble(jump_at)
    };
    // How long the jump is does not depend on where it goes.
    let tail = jump_at + jump_to(0)?.len() as u64;
    code.extend(jump_to(tail)?);
    code.extend(program::part(random, tail, false)?);
    Ok(code)
}

fn operand(random: &mut Random) -> AsmMemoryOperand {
    let base = random.pick(&POINTERS);
    let displacement = match random.below(3) {
        0 => 0,
        1 => random.below(64) as i32 - 32,
        _ => random.pick(&[-4096, 4096, 8, -1, 0x10_0000]),
    };
    let operand = ptr(base + displacement);
    match random.below(12) {
        0 => operand.fs(),
        1 => operand.gs(),
        2 => operand.es(),
        3 => operand.ss(),
        _ => operand,
    }
}

fn general(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(19) {
        0 => a.mov(al, m),
        1 => a.mov(ax, m),
        2 => a.mov(eax, m),
        3 => a.mov(m, al),
        4 => a.mov(m, ax),
        5 => a.mov(m, edx),
        6 => a.add(m, ecx),
        7 => a.sub(ecx, m),
        8 => a.cmp(m, edx),
        9 => a.lock().xadd(m, eax),
        10 => a.xchg(m, eax),
        11 => a.lock().cmpxchg(m, ecx),
        12 => a.inc(dword_ptr(random.pick(&POINTERS))),
        13 => a.lock().adc(byte_ptr(random.pick(&POINTERS)), 1),
        14 => a.movbe(m, edx),
        15 => a.movzx(eax, byte_ptr(random.pick(&POINTERS) + 7)),
        16 => a.lock().cmpxchg8b(m),
        17 => a.mov(eax, word_ptr(random.below(0x1_0000) as u32)),
        _ => a.rol(word_ptr(random.pick(&POINTERS)), cl),
    }
}

fn vector(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(11) {
        0 => a.movups(xmm1, m),
        1 => a.movups(m, xmm1),
        2 => a.movaps(xmm2, m),
        3 => a.movaps(m, xmm2),
        4 => a.vmovdqu(ymm1, m),
        5 => a.vmovdqu(m, ymm1),
        6 => a.paddb(xmm3, m),
        7 => a.maskmovdqu(xmm1, xmm2),
        8 => a.movq(xmm1, m),
        9 => a.movq(m, mm1),
        _ => a.paddb(mm2, m),
    }
}

fn strings(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let count = random.pick(&[0, 1, 3, 17, 600, 5000]);
    a.mov(ecx, count as u32)?;
    match random.below(10) {
        0 => a.rep().movsb(),
        1 => a.rep().movsd(),
        2 => a.rep().stosb(),
        3 => a.rep().stosd(),
        4 => a.rep().lodsb(),
        5 => a.repe().cmpsb(),
        6 => a.repne().scasw(),
        7 => a.std(),
        8 => a.cld(),
        _ => a.movsw(),
    }
}

fn stack(a: &mut CodeAssembler, kind: &Kind, random: &mut Random) -> Result<(), IcedError> {
    if random.once_in(4) {
        a.mov(esp, program::address(kind.paging, random) as u32)?;
    }
    match random.below(10) {
        0 => a.push(eax),
        1 => a.push(dword_ptr(random.pick(&POINTERS))),
        2 => a.pop(edx),
        3 => a.pop(dword_ptr(random.pick(&POINTERS))),
        4 => a.pushad(),
        5 => a.popad(),
        6 => a.enter(64, random.below(4) as i32),
        7 => a.leave(),
        8 => a.push(ax),
        _ => {
            let mut over = a.create_label();
            a.call(over)?;
            a.set_label(&mut over)?;
            a.lea(edx, ptr(edx + 1))
        }
    }
}

/// Segments with bases and limits that no kernel sets.
fn segments(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let selector = match random.below(8) {
        0 => random.below(0x1_0000) as u32,
        1 | 2 => u32::from(USER_SS),
        3 => random.pick(&[0, USER_CS, USER_CS_16, USER_CS_32].map(u32::from)),
        _ => u32::from(ODD) + 8 * random.below(usize::from(ODD_COUNT)) as u32,
    };
    match random.below(8) {
        0 => {
            a.mov(eax, selector)?;
            a.mov(ds, eax)
        }
        1 => {
            a.mov(eax, selector)?;
            a.mov(es, eax)
        }
        2 | 3 => {
            a.mov(eax, selector)?;
            a.mov(fs, eax)
        }
        4 | 5 => {
            a.mov(eax, selector)?;
            a.mov(gs, eax)
        }
        6 => a.add_instruction(Instruction::with2(
            Code::Lds_r32_m1632,
            iced_x86::Register::EDX,
            iced_x86::MemoryOperand::with_base(iced_x86::Register::ESI),
        )?),
        _ => a.add_instruction(Instruction::with1(
            Code::Fnstenv_m28byte,
            iced_x86::MemoryOperand::with_base(iced_x86::Register::EDI),
        )?),
    }
}

/// `spot` is among the code, and not executed.
fn wide(a: &mut CodeAssembler, spot: u32, random: &mut Random) -> Result<(), IcedError> {
    let pointer = random.pick(&POINTERS);
    match random.below(7) {
        0 => a.fxsave(ptr(pointer)),
        1 => {
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.xsave(ptr(pointer))
        }
        2 => a.fnsave(ptr(pointer)),
        3 => a.fstp(iced_x86::code_asm::tword_ptr(pointer)),
        4 => a.clflush(ptr(pointer)),
        5 => a.jmp(dword_ptr(pointer)),
        _ => {
            a.mov(edx, spot)?;
            a.inc(byte_ptr(edx))
        }
    }
}

/// What only ring 0 may do. Wild code also leaves the mode it is in, and does not come back.
fn privileged(a: &mut CodeAssembler, kind: &Kind, random: &mut Random) -> Result<(), IcedError> {
    const PG_WP_PE: [u32; 4] = [1 << 31, 1 << 16, 1 << 31 | 1, 1];
    const PAE_PSE_PGE: [u32; 4] = [1 << 5, 1 << 4, 1 << 7, 1 << 20 | 1 << 21];
    const LME_NXE_SCE: [u32; 3] = [1 << 8, 1 << 11, 1 << 0];
    let pointer = random.pick(&POINTERS);
    match random.below(if kind.wild { 9 } else { 5 }) {
        0 => a.invlpg(ptr(pointer)),
        1 => {
            a.mov(eax, cr3)?;
            a.mov(cr3, eax)
        }
        2 => a.sgdt(ptr(pointer)),
        3 => {
            a.mov(edx, 0x70)?;
            a.mov(ecx, 9)?;
            a.rep().insb()
        }
        4 => {
            a.mov(edx, 0x70)?;
            a.mov(ecx, 5)?;
            a.rep().outsd()
        }
        5 => {
            a.mov(eax, cr0)?;
            a.xor(eax, random.pick(&PG_WP_PE) as i32)?;
            a.mov(cr0, eax)
        }
        6 => {
            a.mov(eax, cr4)?;
            a.xor(eax, random.pick(&PAE_PSE_PGE) as i32)?;
            a.mov(cr4, eax)
        }
        7 => {
            a.mov(ecx, 0xc000_0080_u32)?;
            a.rdmsr()?;
            a.xor(eax, random.pick(&LME_NXE_SCE) as i32)?;
            a.wrmsr()
        }
        _ => {
            a.mov(eax, random.next() as u32 & 0xf_ffff)?;
            a.mov(cr3, eax)
        }
    }
}
