//! Parts in 64-bit code.

use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, CodeAssembler, byte_ptr, ptr, qword_ptr, r8, r9, r10, r11, r12, r13,
    rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp,
};
use iced_x86::code_asm::{al, ax, eax, edx, mm1, mm2, xmm1, xmm2, xmm3, ymm1, ymm2};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::far;
use crate::hostile::part::Plan;
use crate::hostile::setting::Kind;
use crate::random::Random;

/// Registers that hold addresses.
const POINTERS: [AsmRegister64; 5] = [rbx, rbp, rsi, rdi, r12];

fn address(random: &mut Random) -> u64 {
    super::address(random, Kind::Long)
}

/// Code of a part, which may go on with one of the `later` ones: none of it leaves flags undefined.
pub(super) fn part(random: &mut Random, plan: &Plan, later: &[Plan]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    for pointer in POINTERS {
        if random.once_in(3) {
            let to = address(random);
            a.mov(pointer, to)?;
        }
    }
    for _ in 0..3 + random.below(8) {
        if plan.level == 0 && random.once_in(8) {
            privileged(&mut a, random)?;
        } else if plan.mixed && random.once_in(12) {
            far::long(&mut a, random, plan, later)?;
        } else {
            match random.below(6) {
                0 | 1 => general(&mut a, random)?,
                2 => vector(&mut a, random)?,
                3 => strings(&mut a, random)?,
                4 => stack(&mut a, random)?,
                _ => wide(&mut a, random)?,
            }
        }
    }
    a.int3()?;
    a.assemble(plan.ip)
}

fn operand(random: &mut Random) -> AsmMemoryOperand {
    let base = random.pick(&POINTERS);
    let displacement = match random.below(3) {
        0 => 0,
        1 => random.below(64) as i32 - 32,
        _ => random.pick(&[-4096, 4096, 8, -1, 0x10_0000]),
    };
    let operand = ptr(base + displacement);
    if random.once_in(12) { operand.fs() } else { operand }
}

fn general(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(20) {
        0 => a.mov(al, m),
        1 => a.mov(ax, m),
        2 => a.mov(eax, m),
        3 => a.mov(rax, m),
        4 => a.mov(m, al),
        5 => a.mov(m, ax),
        6 => a.mov(m, edx),
        7 => a.mov(m, r10),
        8 => a.add(m, r9),
        9 => a.sub(r9, m),
        10 => a.cmp(m, rdx),
        11 => a.lock().xadd(m, r11),
        12 => a.xchg(m, eax),
        13 => a.lock().cmpxchg(m, rcx),
        14 => a.inc(qword_ptr(random.pick(&POINTERS))),
        15 => a.lock().adc(byte_ptr(random.pick(&POINTERS)), 1),
        16 => a.movbe(m, r8),
        17 => a.movzx(eax, byte_ptr(random.pick(&POINTERS) + 7)),
        18 => a.movsxd(r13, m),
        _ => a.lock().cmpxchg8b(m),
    }
}

fn vector(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let m = operand(random);
    match random.below(15) {
        0 => a.movups(xmm1, m),
        1 => a.movups(m, xmm1),
        2 => a.movaps(xmm2, m),
        3 => a.movaps(m, xmm2),
        4 => a.vmovdqu(ymm1, m),
        5 => a.vmovdqu(m, ymm2),
        6 => a.vmovdqa(m, ymm1),
        7 => a.paddb(xmm3, m),
        8 => a.vpaddd(ymm2, ymm1, m),
        9 => a.vpmaskmovd(m, xmm1, xmm2),
        10 => a.maskmovdqu(xmm1, xmm2),
        11 => a.add_instruction(gather(random)?),
        12 => a.movq(xmm1, m),
        13 => a.movq(m, mm1),
        _ => a.paddb(mm2, m),
    }
}

/// From addresses that are as they come.
fn gather(random: &mut Random) -> Result<Instruction, IcedError> {
    let base = random.pick(&[Register::RBX, Register::RBP, Register::RSI]);
    let operand = MemoryOperand::with_base_index_scale(base, Register::YMM2, 8);
    Instruction::with3(
        Code::VEX_Vpgatherqq_ymm_vm64y_ymm,
        Register::YMM1,
        operand,
        Register::YMM3,
    )
}

fn strings(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let count = random.pick(&[0, 1, 3, 17, 600, 5000]);
    a.mov(rcx, count as u64)?;
    match random.below(10) {
        0 => a.rep().movsb(),
        1 => a.rep().movsq(),
        2 => a.rep().stosb(),
        3 => a.rep().stosd(),
        4 => a.rep().lodsb(),
        5 => a.repe().cmpsb(),
        6 => a.repne().scasw(),
        7 => a.std(),
        8 => a.cld(),
        _ => a.movsd(),
    }
}

fn stack(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    if random.once_in(4) {
        a.mov(rsp, address(random))?;
    }
    match random.below(9) {
        0 => a.push(rax),
        1 => a.push(qword_ptr(random.pick(&POINTERS))),
        2 => a.pop(rdx),
        3 => a.pop(qword_ptr(random.pick(&POINTERS))),
        4 => a.pushfq(),
        5 => a.enter(64, random.below(4) as i32),
        6 => a.leave(),
        7 => a.push(ax),
        _ => {
            let mut over = a.create_label();
            a.call(over)?;
            a.set_label(&mut over)?;
            a.lea(r8, ptr(r8 + 1))
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
        3 => a.lock().cmpxchg16b(ptr(pointer)),
        4 => a.fnsave(iced_x86::code_asm::ptr(pointer)),
        5 => a.fstp(iced_x86::code_asm::tword_ptr(pointer)),
        6 => a.clflush(ptr(pointer)),
        7 => a.jmp(qword_ptr(pointer)),
        // Code that is stored to, by itself: the byte is none that is executed.
        _ => {
            let (mut over, mut data) = (a.create_label(), a.create_label());
            a.lea(r8, ptr(data))?;
            a.inc(byte_ptr(r8))?;
            a.jmp(over)?;
            a.set_label(&mut data)?;
            a.db(&[0xcc])?;
            a.set_label(&mut over)
        }
    }
}

/// What only ring 0 may do.
fn privileged(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let pointer = random.pick(&POINTERS);
    match random.below(7) {
        0 => a.invlpg(ptr(pointer)),
        1 => {
            a.mov(rax, iced_x86::code_asm::cr3)?;
            a.mov(iced_x86::code_asm::cr3, rax)
        }
        2 => a.sgdt(ptr(pointer)),
        3 => a.stac(),
        4 => a.clac(),
        5 => {
            a.mov(edx, 0x70)?;
            a.mov(rcx, 9_u64)?;
            a.rep().insb()
        }
        _ => {
            a.mov(edx, 0x70)?;
            a.mov(rcx, 5_u64)?;
            a.rep().outsd()
        }
    }
}
