//! Parts in 32-bit and 16-bit code.

use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister32, CodeAssembler, al, ax, byte_ptr, dword_ptr, dx, eax, ebp, ebx, ecx, edi,
    edx, esi, esp, mm1, mm2, ptr, tword_ptr, xmm1, xmm2, xmm3, ymm1, ymm2,
};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::{address, far, switch};
use crate::hostile::part::Plan;
use crate::hostile::setting::Kind;
use crate::random::Random;

/// Registers that hold addresses.
pub(super) const POINTERS: [AsmRegister32; 4] = [ebx, ebp, esi, edi];

/// Code of a part, which may go on with one of the `later` ones.
pub(super) fn part(random: &mut Random, plan: &Plan, later: &[Plan]) -> Result<Vec<u8>, IcedError> {
    let kind = plan.setting.kind;
    let mut a = CodeAssembler::new(plan.bits)?;
    for pointer in POINTERS {
        if random.once_in(3) {
            a.mov(pointer, address(random, kind) as u32)?;
        }
    }
    for _ in 0..3 + random.below(8) {
        if plan.level == 0 && random.once_in(4) {
            switch::privileged(&mut a, random, plan)?;
            continue;
        }
        match random.below(16) {
            0..=3 => general(&mut a, random)?,
            4 | 5 => vector(&mut a, random)?,
            6 | 7 => strings(&mut a, random)?,
            8 | 9 => stack(&mut a, random, plan)?,
            10 | 11 => wide(&mut a, random)?,
            12 | 13 => far::segments(&mut a, random)?,
            14 => far::narrow(&mut a, random, plan, later)?,
            _ if random.once_in(4) => far::interrupts(&mut a, random)?,
            _ => bits(&mut a, random)?,
        }
    }
    a.int3()?;
    a.assemble(plan.ip)
}

pub(super) fn operand(random: &mut Random) -> AsmMemoryOperand {
    let base = random.pick(&POINTERS);
    let displacement = match random.below(3) {
        0 => 0,
        1 => random.below(64) as i32 - 32,
        _ => random.pick(&[-4096, 4096, 8, -1, 0x10_0000]),
    };
    let operand = ptr(base + displacement);
    match random.below(12) {
        0 => operand.fs(),
        1 => operand.es(),
        2 => operand.ss(),
        3 => operand.cs(),
        _ => operand,
    }
}

/// With an address of 16 bits.
fn short_operand(random: &mut Random) -> MemoryOperand {
    let displacement = random.pick(&[0, 0x7ff, -2, 0x7fff]);
    MemoryOperand::with_base_index_scale_displ_size(Register::BX, Register::SI, 1, displacement, 2)
}

fn general(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(20) {
        0 => a.mov(al, m),
        1 => a.mov(ax, m),
        2 => a.mov(eax, m),
        3 => a.mov(m, al),
        4 => a.mov(m, ax),
        5 => a.mov(m, edx),
        6 => a.add(m, edx),
        7 => a.sub(edx, m),
        8 => a.cmp(m, dx),
        9 => a.lock().xadd(m, edx),
        10 => a.xchg(m, eax),
        11 => a.lock().cmpxchg(m, ecx),
        12 => a.inc(dword_ptr(random.pick(&POINTERS))),
        13 => a.lock().adc(byte_ptr(random.pick(&POINTERS)), 1),
        14 => a.movbe(m, edx),
        15 => a.movzx(eax, byte_ptr(random.pick(&POINTERS) + 7)),
        16 => a.add_instruction(Instruction::with2(
            Code::Mov_r32_rm32,
            Register::EAX,
            short_operand(random),
        )?),
        17 => a.add_instruction(Instruction::with2(
            Code::Mov_rm32_r32,
            short_operand(random),
            Register::EDX,
        )?),
        18 => a.xlatb(),
        _ => a.lock().cmpxchg8b(m),
    }
}

/// Bits far from where their operand is.
fn bits(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    a.mov(edx, random.next() as u32)?;
    let m = operand(random);
    match random.below(4) {
        0 => a.bt(m, edx),
        1 => a.lock().bts(m, edx),
        2 => a.btr(m, dx),
        _ => a.lock().btc(m, edx),
    }
}

fn vector(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(14) {
        0 => a.movups(xmm1, m),
        1 => a.movups(m, xmm1),
        2 => a.movaps(xmm2, m),
        3 => a.movaps(m, xmm2),
        4 => a.vmovdqu(ymm1, m),
        5 => a.vmovdqu(m, ymm2),
        6 => a.vmovdqa(m, ymm1),
        7 => a.paddb(xmm3, m),
        8 => a.vpmaskmovd(m, xmm1, xmm2),
        9 => a.maskmovdqu(xmm1, xmm2),
        10 => a.add_instruction(gather()?),
        11 => a.movq(xmm1, m),
        12 => a.movq(m, mm1),
        _ => a.paddb(mm2, m),
    }
}

/// From addresses that are as they come.
fn gather() -> Result<Instruction, IcedError> {
    let operand = MemoryOperand::with_base_index_scale(Register::EBX, Register::YMM2, 4);
    Instruction::with3(
        Code::VEX_Vpgatherdd_ymm_vm32y_ymm,
        Register::YMM1,
        operand,
        Register::YMM3,
    )
}

fn strings(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let count = random.pick(&[0, 1, 3, 17, 600, 5000]);
    a.mov(ecx, count)?;
    match random.below(11) {
        0 => a.rep().movsb(),
        1 => a.rep().movsd(),
        2 => a.rep().stosb(),
        3 => a.rep().stosd(),
        4 => a.rep().lodsb(),
        5 => a.repe().cmpsb(),
        6 => a.repne().scasw(),
        7 => a.std(),
        8 => a.cld(),
        // With 16-bit addresses where code has 32-bit ones, and the other way.
        9 => {
            a.db(&[0x67])?;
            a.rep().movsb()
        }
        _ => a.movsd(),
    }
}

fn stack(a: &mut CodeAssembler, random: &mut Random, plan: &Plan) -> Result<(), IcedError> {
    let kind = plan.setting.kind;
    // Ring 0 stays where its exceptions can be told.
    let free = plan.level != 0 || kind == Kind::Compatibility || random.once_in(16);
    if free && random.once_in(4) {
        a.mov(esp, address(random, kind) as u32)?;
    }
    match random.below(12) {
        0 => a.push(eax),
        1 => a.push(dword_ptr(random.pick(&POINTERS))),
        2 => a.pop(edx),
        3 => a.pop(dword_ptr(random.pick(&POINTERS))),
        4 => a.pushfd(),
        5 => a.enter(64, random.below(4) as i32),
        6 if free => a.leave(),
        7 => a.push(ax),
        8 => a.pushad(),
        9 if free => a.popad(),
        10 => a.popfd(),
        _ => {
            let mut over = a.create_label();
            a.call(over)?;
            a.set_label(&mut over)?;
            a.lea(edx, ptr(edx + 1))
        }
    }
}

fn wide(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let pointer = random.pick(&POINTERS);
    match random.below(9) {
        0 => a.fxsave(ptr(pointer + 1)),
        1 => a.fxsave(ptr(pointer)),
        2 => {
            a.mov(eax, 7)?;
            a.xor(edx, edx)?;
            a.xsave(ptr(pointer))
        }
        3 => a.fnsave(ptr(pointer)),
        4 => a.frstor(ptr(pointer)),
        5 => a.fstp(tword_ptr(pointer)),
        6 => a.clflush(ptr(pointer)),
        7 => a.jmp(dword_ptr(pointer)),
        // Code that is stored to, by itself: the byte is none that is executed.
        _ => {
            let (mut over, mut data) = (a.create_label(), a.create_label());
            a.call(data)?;
            a.set_label(&mut data)?;
            a.pop(ebx)?;
            a.inc(byte_ptr(ebx + 12))?;
            a.jmp(over)?;
            a.db(&[0xcc; 16])?;
            a.set_label(&mut over)?;
            a.nop()
        }
    }
}
