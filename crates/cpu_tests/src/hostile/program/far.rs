//! From one segment to another: jumps, calls, returns, gates, and loads of segment registers.

use iced_x86::code_asm::{CodeAssembler, ax, eax, ebx, edi, edx, esp, ptr, r8, rax, rsp};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::narrow::{POINTERS, operand};
use crate::hostile::part::{Plan, word};
use crate::hostile::place::{
    GDT_LIMIT, KERNEL_CS, ODD_COUNT, ODD_SEGMENTS, PART_SEGMENTS, TSS_SELECTOR, USER_CS,
};
use crate::random::Random;

/// A later part, mostly one that this one's mode has a way to.
fn target<'a>(random: &mut Random, plan: &Plan, later: &'a [Plan]) -> Option<&'a Plan> {
    if later.is_empty() {
        return None;
    }
    let any = &later[random.below(later.len())];
    let reachable = |other: &&Plan| {
        other.setting.kind.is_long_mode() == plan.setting.kind.is_long_mode() && other.level >= plan.level
    };
    if random.once_in(4) {
        return Some(any);
    }
    later.iter().find(reachable).or(Some(any))
}

/// Far transfers of 64-bit code.
pub(super) fn long(
    a: &mut CodeAssembler,
    random: &mut Random,
    plan: &Plan,
    later: &[Plan],
) -> Result<(), IcedError> {
    let Some(target) = target(random, plan, later) else {
        return a.int3();
    };
    let [cs, ss] = [word::CS, word::SS].map(|word| target.words[word] as i32);
    match random.below(3) {
        0 => {
            // Its stack is where it was.
            a.mov(rax, rsp)?;
            a.push(ss)?;
            a.push(rax)?;
            a.pushfq()?;
            a.push(cs)?;
            a.mov(rax, target.ip)?;
            a.push(rax)?;
            a.iretq()
        }
        1 => {
            a.mov(rax, target.words[word::RSP])?;
            if target.level > plan.level {
                a.push(ss)?;
                a.push(rax)?;
            }
            a.push(cs)?;
            a.mov(rax, target.ip)?;
            a.push(rax)?;
            a.add_instruction(Instruction::with(Code::Retfq))
        }
        _ => {
            let (mut data, mut over) = (a.create_label(), a.create_label());
            a.lea(r8, ptr(data))?;
            let memory = MemoryOperand::with_base(Register::R8);
            let code = random.pick(&[Code::Jmp_m1632, Code::Call_m1632]);
            a.add_instruction(Instruction::with1(code, memory)?)?;
            a.jmp(over)?;
            a.set_label(&mut data)?;
            a.db(&far_pointer(target.ip, target.words[word::CS] as u16))?;
            a.set_label(&mut over)?;
            a.nop()
        }
    }
}

fn far_pointer(ip: u64, selector: u16) -> [u8; 6] {
    let [a, b, c, d] = (ip as u32).to_le_bytes();
    let [low, high] = selector.to_le_bytes();
    [a, b, c, d, low, high]
}

/// Far transfers of other code.
pub(super) fn narrow(
    a: &mut CodeAssembler,
    random: &mut Random,
    plan: &Plan,
    later: &[Plan],
) -> Result<(), IcedError> {
    let odd = selector(random);
    let (cs, ip, ss, pointer, level) = match target(random, plan, later) {
        Some(to) => (
            to.words[word::CS],
            to.ip,
            to.words[word::SS],
            to.words[word::RSP],
            to.level,
        ),
        None => (odd.into(), random.next() & 0xffff, odd.into(), 0, plan.level),
    };
    let (cs, ip) = (cs as u16, ip as u32);
    match random.below(8) {
        0 | 1 => {
            if level > plan.level {
                push(a, ss as u32)?;
                push(a, pointer as u32)?;
            }
            if random.once_in(2) {
                push(a, cs.into())?;
                push(a, ip)?;
                return a.add_instruction(Instruction::with(Code::Retfd));
            }
            a.pushfd()?;
            push(a, cs.into())?;
            push(a, ip)?;
            a.iretd()
        }
        2 => a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, cs, ip)?),
        3 => a.add_instruction(Instruction::with_far_branch(Code::Call_ptr1632, cs, ip)?),
        4 => a.add_instruction(Instruction::with_far_branch(Code::Call_ptr1632, odd, ip)?),
        5 => a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1616, odd, ip & 0xffff)?),
        6 => {
            let code = random.pick(&[Code::Jmp_m1632, Code::Call_m1632, Code::Call_m1616]);
            let base = random.pick(&[Register::EBX, Register::ESI, Register::EDI]);
            a.add_instruction(Instruction::with1(code, MemoryOperand::with_base(base))?)
        }
        _ => {
            a.mov(ptr(ebx), edx)?;
            a.mov(edx, ip)?;
            a.mov(ptr(edi), edx)?;
            a.mov(ptr(edi + 4), ax)?;
            let memory = MemoryOperand::with_base(Register::EDI);
            a.add_instruction(Instruction::with1(Code::Jmp_m1632, memory)?)
        }
    }
}

/// Four bytes, also in 16-bit code.
fn push(a: &mut CodeAssembler, value: u32) -> Result<(), IcedError> {
    a.mov(eax, value)?;
    a.push(eax)
}

/// Names of all kinds of descriptors, and of none.
fn selector(random: &mut Random) -> u16 {
    let selector = match random.below(8) {
        0 => random.next() as u16,
        1 => random.pick(&[0, 3, KERNEL_CS, USER_CS, TSS_SELECTOR, GDT_LIMIT & !7]),
        2 | 3 => PART_SEGMENTS + random.below(16) as u16 * 8,
        _ => ODD_SEGMENTS + random.below(usize::from(ODD_COUNT)) as u16 * 8,
    };
    let level = if random.once_in(3) {
        random.below(4) as u16
    } else {
        3
    };
    let local = if random.once_in(6) { 4 } else { 0 };
    selector & !7 | level | local
}

/// Loads of segment registers, and questions about descriptors.
pub(super) fn segments(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    use iced_x86::code_asm::{ds, ecx, es, fs, gs, ss};
    let selector = selector(random);
    a.mov(eax, u32::from(selector))?;
    let m = operand(random);
    match random.below(24) {
        0 | 1 => a.mov(es, eax),
        2 => a.mov(ds, eax),
        3 | 4 => a.mov(fs, eax),
        5 => a.mov(gs, eax),
        6 => a.mov(ss, eax),
        7 => {
            a.push(eax)?;
            a.pop(es)
        }
        8 => a.push(fs),
        9 => a.lds(ecx, m),
        10 => a.les(edx, m),
        11 => a.lfs(ecx, m),
        12 => a.lgs(edx, m),
        13 => a.lss(esp, m),
        14 => a.lar(ecx, eax),
        15 => a.lsl(ecx, eax),
        16 => a.verr(ax),
        17 => a.verw(m),
        18 => a.arpl(m, ax),
        19 => a.sldt(m),
        20 => a.sgdt(m),
        21 => a.sidt(m),
        22 => a.mov(m, ds),
        _ => a.mov(es, ptr(random.pick(&POINTERS))),
    }
}

/// Exceptions that are asked for.
pub(super) fn interrupts(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    use iced_x86::code_asm::{cx, ecx};
    match random.below(6) {
        0 => a.int(random.pick(&[0, 4, 13, 14, 0x20, 0x80, 0xff])),
        1 => a.into(),
        2 => a.bound(ecx, operand(random)),
        3 => a.bound(cx, operand(random)),
        4 => a.syscall(),
        _ => a.sysenter(),
    }
}
